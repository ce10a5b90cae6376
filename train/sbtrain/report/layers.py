"""Frozen probes by layer, and nearest neighbors, beside the original paper's linear classifiers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sbtrain.report.beside import DAMAGED, interval_of
from sbtrain.report.charts import Line, layers_chart
from sbtrain.report.document import Block, Cell, Columns, Fold, Gallery, Picture, Section, Table, Text, missing
from sbtrain.report.published import published_table
from sbtrain.report.runs import Run
from sbtrain.report.training import number

#: Rows of the original paper that are drawn.
_DRAWN = {
    "Split-brain, classification": ("published", "x"),
    "Gaussian random weights": ("published, random weights", "+"),
}


def probe_section(runs: Sequence[Run]) -> Section:
    """Return a picture and a table by layer for each run that was probed."""
    blocks: list[Block] = []
    for run in runs:
        probes = []
        for data in run.probes:
            try:
                probes.append(read_probe(run, data))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                blocks.append(Text(f"{run.name}: a probe's result is damaged ({error}): not shown.", warning=True))
        for key in dict.fromkeys(probe.key for probe in probes):
            blocks.append(_block(run, [probe for probe in probes if probe.key == key]))
        lost = [*run.lost("probe"), *run.lost("probe", scratch=True)]
        blocks += [Text(f"{run.name}: {name} is {DAMAGED}.", warning=True) for name in lost]
    if not blocks:
        return Section("Layers", "layers", (Text("No run has been probed. sbtrain probe --run RUN", warning=True),))
    theirs = any(run.config.get("method") == "split_brain" for run in runs if run.probes)
    folded = (Fold("The original paper's table", (_published(),)),) if theirs else ()
    return Section("Layers", "layers", (*blocks, *folded))


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One result, read."""

    scratch: bool
    key: str
    """What a probe and its control have in common."""
    results: list[dict[str, Any]]
    """By layer."""
    near: list[dict[str, Any]]
    """Votes of nearest neighbors."""
    layers: list[str]
    tables: tuple[Table, ...]


def read_probe(run: Run, data: dict[str, Any]) -> Probe:
    """Return a probe's result as it is shown.

    Raises
    ------
    KeyError, TypeError, ValueError, AttributeError
        It is damaged.
    """
    results = [dict(result) for result in data.get("results", [])]
    near = [dict(result) for result in data.get("neighbors", [])]
    config = dict(data.get("config", {}))
    scratch = bool(config.pop("from_scratch", False))
    who = f"{run.name}{', from scratch' if scratch else ''}"
    tables = [_linear_table(who, data, results)] if results else []
    tables += [_neighbor_table(who, near)] if near else []
    layers = list(dict.fromkeys(str(result["layer"]) for result in [*results, *near]))
    key = json.dumps([config, data.get("classes"), data.get("eval_images")], sort_keys=True)
    return Probe(scratch=scratch, key=key, results=results, near=near, layers=layers, tables=tuple(tables))


def _block(run: Run, probes: list[Probe]) -> Columns:
    """Return a picture of a probe and its control, and the tables of both."""
    probes = sorted(probes, key=lambda probe: probe.scratch)
    layers = list(dict.fromkeys(layer for probe in probes for layer in probe.layers))
    drawn = [probe for probe in probes if probe.results]
    pictures = (Gallery((_picture(run.name, layers, drawn),)),) if drawn else ()
    return Columns((*pictures, Columns(tuple(table for probe in probes for table in probe.tables))))


def _line(layers: list[str], probe: Probe) -> Line:
    means = {str(result["layer"]): interval_of(result.get("top1")) for result in probe.results}
    shown = {layer: each for layer in layers if (each := means.get(layer)) is not None}
    return Line(
        name="from scratch" if probe.scratch else "linear probe",
        x=[float(layers.index(layer)) for layer in shown],
        y=[100 * each.mean for each in shown.values()],
        half_width=[100 * (each.half_width or 0.0) for each in shown.values()],
        control=probe.scratch,
    )


def _picture(who: str, layers: list[str], probes: list[Probe]) -> Picture:
    lines = [_line(layers, probe) for probe in probes]
    alt = f"{who}, linear probe by layer: " + "; ".join(
        ("from scratch " if line.control else "")
        + ", ".join(f"{layers[int(x)]} {y:.1f} %" for x, y in zip(line.x, line.y, strict=True))
        for line in lines
    )
    table = published_table("split-brain-linear")
    for row in table.rows:
        common = [name for name in table.metrics if name in layers]
        if row.name in _DRAWN and len(common) > 1:
            x = [float(layers.index(name)) for name in common]
            name, marker = _DRAWN[row.name]
            lines.append(Line(name=name, x=x, y=[100 * row.values[layer] for layer in common], published=marker))
    said = "; published: ImageNet, 1,000 classes" if len(lines) > len(probes) else ""
    return Picture(svg=layers_chart(layers, lines, alt), alt=alt, caption=f"{who}: by layer{said}")


def _linear_table(who: str, data: dict[str, Any], results: list[dict[str, Any]]) -> Table:
    paper = published_table("split-brain-linear").rows[-1].values
    beside = any(result["layer"] in paper for result in results)
    rows = tuple(
        (
            Cell(str(result["layer"])),
            number(result.get("features"), "{:,}"),
            _cell(result.get("top1"), "ours"),
            _cell(result.get("top5"), ""),
            *([number(100 * paper.get(result["layer"], math.nan), "{:.1f}")] if beside else []),
        )
        for result in results
    )
    images, classes = data.get("eval_images"), data.get("classes")
    where = f": {images:,} images, {classes:,} classes" if isinstance(images, int) and isinstance(classes, int) else ""
    header = ("layer", "features", "top-1 %", "top-5 %", *(["paper, ImageNet % (other data)"] if beside else []))
    return Table(caption=f"{who}: linear probe of frozen features{where}", header=header, rows=rows)


def _neighbor_table(who: str, near: list[dict[str, Any]]) -> Table:
    heads = list(dict.fromkeys(neighbors_text(each) for each in near))
    layers = list(dict.fromkeys(str(each["layer"]) for each in near))
    means = [{"mean": each.get("top1"), "ci95": each.get("top1_ci95")} for each in near]
    found = {
        (str(each["layer"]), neighbors_text(each)): interval_of(mean) for each, mean in zip(near, means, strict=True)
    }
    rows = tuple(
        (Cell(layer), *(Cell(each.text()) if (each := found.get((layer, head))) else missing("–") for head in heads))
        for layer in layers
    )
    return Table(caption=f"{who}: nearest neighbors, top-1 %", header=("layer", *heads), rows=rows)


def neighbors_text(each: dict[str, Any]) -> str:
    """Return which neighbors vote."""
    return f"k = {each.get('k')}" + (f", t = {each['temperature']}" if each.get("temperature") else "")


def _cell(value: Any, mark: str) -> Cell:
    found = interval_of(value)
    return missing("not a number") if found is None else Cell(found.text(), "ours" if mark else "")


def _published() -> Table:
    table = published_table("split-brain-linear")
    rows = tuple((Cell(row.name), *(Cell(f"{100 * row.values[m]:.1f}") for m in table.metrics)) for row in table.rows)
    return Table(caption=f"{table.source}, top-1 %", header=("initialization", *table.metrics), rows=rows)
