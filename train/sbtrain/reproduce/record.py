"""``reproduce.json``: every row of every table that was asked for, its numbers, and where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import sbformat
from sbformat.manifest import write_atomically
from sbtrain.evaluation.few_shot import Interval, interval
from sbtrain.evaluation.finetune_config import FinetuneConfig
from sbtrain.report.published import judged_of
from sbtrain.reproduce.cells import Cell, Row, Table
from sbtrain.reproduce.file import FORMAT, NAME, VERSION, read_record
from sbtrain.reproduce.plan import cells_of
from sbtrain.reproduce.scales import Scale
from sbtrain.reproduce.scores import fits_of, load
from sbtrain.reproduce.sets import Sets

State = Literal["waiting", "done", "failed", "skipped"]


@dataclass(frozen=True)
class Part:
    """What became of one step of a cell: its pretraining, or one evaluation."""

    state: State = "waiting"
    """skipped: its shards have not been built."""
    message: str = ""
    file: str | None = None
    """Result file, relative to the folder of ``reproduce.json``."""


#: (cell, ``pretrain`` or name of the evaluation) -> what became of it.
Parts = Mapping[tuple[str, str], Part]


def write_record(folder: Path, scale: Scale, tables: Sequence[Table], sets: Sets, parts: Parts) -> Path:
    """Write the tables into ``reproduce.json``; those of earlier calls stay in it.

    Raises
    ------
    OSError
        It cannot be written.
    """
    path = folder / NAME
    earlier, cells = read_record(path), cells_of(list(tables))
    record = {
        "format": FORMAT,
        "version": VERSION,
        "scale": scale.name,
        "about": scale.about,
        "versions": {"sbtrain": sbformat.__version__},
        "classes": len(sets.base.label_names),
        "asked": [cell.name for cell in cells],
        "cells": [*_other_cells(earlier, cells), *(_cell(cell, parts) for cell in cells)],
        "tables": {**earlier.get("tables", {}), **{table.name: _table(folder, table, parts) for table in tables}},
    }
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())
    return path


def _other_cells(earlier: dict[str, Any], cells: Sequence[Cell]) -> list[dict[str, Any]]:
    names = {cell.name for cell in cells}
    return [each for each in earlier.get("cells", []) if each.get("run_dir") not in names]


def _cell(cell: Cell, parts: Parts) -> dict[str, Any]:
    names = ["pretrain", *(name for name, _ in cell.evaluations)]
    steps = {name: asdict(parts.get((cell.name, name), Part())) for name in names}
    return {"run_dir": cell.name, "preset": cell.preset, "colorspace": cell.colorspace, "steps": steps}


def _table(folder: Path, table: Table, parts: Parts) -> dict[str, Any]:
    return {"about": table.about, "rows": [_row(folder, row, parts) for row in table.rows]}


def _row(folder: Path, row: Row, parts: Parts) -> dict[str, Any]:
    names = [name for name, _ in row.cells[0].evaluations] if row.cells else []
    found = {
        "name": row.name,
        **row.about,
        "samples_per_class": row.samples,
        "published": row.published,
        "evaluations": [_evaluation(folder, row, name, parts) for name in names],
    }
    shown: dict[str, Any] = {}
    if row.source:
        measures = [asdict(measure) for measure in row.measures]
        shown = {"measures": measures, "note": row.note, "source": row.source}
    return {**found, **shown}


def _evaluation(folder: Path, row: Row, name: str, parts: Parts) -> dict[str, Any]:
    results = [
        {"run": cell.name, "seed": cell.config.seed, **asdict(parts.get((cell.name, name), Part()))}
        for cell in row.cells
    ]
    samples = _samples(row, name)
    fits = [fits_of(folder / found["file"], samples) for found in results if found["file"]]
    summary: dict[str, Any] = {}
    if fits and all(fits):
        summary = {key: _over(fits, key).to_json() for key in _shared(fits)}
        summary["interval_over"] = _interval_over(len(results), fits)
        judged = [judged_of(load(folder / found["file"]), samples) for found in results if found["file"]]
        summary["judged"] = judged[0] if all(each == judged[0] for each in judged) else {}
    return {"name": name, **summary, "results": results}


def _samples(row: Row, name: str) -> int:
    config = dict(row.cells[0].evaluations)[name]
    return config.samples_per_class[0] if row.source and isinstance(config, FinetuneConfig) else row.samples


def _shared(fits: list[list[dict[str, float]]]) -> list[str]:
    first, *others = [fit for of_run in fits for fit in of_run]
    return [key for key in first if all(key in other for other in others)]


def _interval_over(planned: int, fits: list[list[dict[str, float]]]) -> str:
    """Return what an interval is over: draws of one run, or runs, each the mean of its draws."""
    runs, draws = len(fits), {len(of_run) for of_run in fits}
    left = f", {planned - runs} more to come" if runs < planned else ""
    if runs > 1:
        each = (
            "" if draws == {1} else f", each the mean of {min(draws)} draws" if len(draws) == 1 else ", means of draws"
        )
        return f"{runs} pretraining runs{each}{left}"
    return (f"{max(draws)} draws of one pretraining run" if draws != {1} else "none: one fit") + left


def _over(fits: list[list[dict[str, float]]], key: str) -> Interval:
    """Return the interval over draws, or, of several pretraining runs, over the means of each: these hold both variances."""
    means = [[fit[key] for fit in of_run] for of_run in fits]
    return interval(means[0] if len(means) == 1 else [sum(values) / len(values) for values in means])
