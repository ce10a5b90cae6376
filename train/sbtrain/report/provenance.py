"""What every number rests on: config, seeds, digests of images, weights and code, versions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sbtrain.report.document import Block, Cell, Code, Fold, Section, Table, Text, missing
from sbtrain.report.finetuned import Finetuned
from sbtrain.report.runs import Run
from sbtrain.report.training import number


def provenance_section(runs: Sequence[Run]) -> Section:
    """Return one table of all runs, and the whole config of each."""
    header = ("run", "seed", "images", "data", "weights", "code", "sbtrain", "torch", "state")
    rows = tuple(_row(run) for run in runs)
    caption = "Runs: first 12 digits of each digest; the whole ones are below"
    blocks: list[Block] = [Table(caption=caption, header=header, rows=rows)]
    blocks += [_fold(run) for run in runs]
    return Section("Provenance", "provenance", tuple(blocks))


def _row(run: Run) -> tuple[Cell, ...]:
    versions = run.record.get("versions")
    versions = versions if isinstance(versions, dict) else {}
    return (
        Cell(run.name),
        number(run.config.get("seed"), "{}", "not known"),
        number(run.data.get("images"), "{:,}", "not known"),
        _digest(run.data.get("digest")),
        _digest((run.summary or {}).get("model_sha256"), "not finished"),
        _digest(run.record.get("code"), "not recorded"),
        _word(versions.get("sbtrain")),
        _word(versions.get("torch")),
        _state(run),
    )


def _state(run: Run) -> Cell:
    note = "collapsed" if run.series.collapsed else ""
    return Cell("finished", note=note) if run.summary else Cell("unfinished", "missing", note)


def _fold(run: Run) -> Fold:
    blocks: list[Block] = [Text(problem + ".", warning=True) for problem in run.problems]
    if run.record:
        blocks.append(Code(json.dumps(run.record, indent=1, ensure_ascii=False)))
    blocks += [_finetuned(result) for result in run.finetuned]
    if run.summary:
        blocks.append(Fold("results/pretrain.json", (Code(json.dumps(run.summary, indent=1, ensure_ascii=False)),)))
    return Fold(f"{run.name}: {run.label}", tuple(blocks) or (Text("Nothing is known of it.", warning=True),))


def _finetuned(result: Finetuned) -> Fold:
    about: dict[str, Any] = {"config": result.config, "data": result.data, "device": result.device}
    return Fold(f"results/{result.file}", (Code(json.dumps(about, indent=1, ensure_ascii=False)),))


def _digest(value: Any, reason: str = "not known") -> Cell:
    return Cell(value[:12]) if isinstance(value, str) and value else missing(reason)


def _word(value: Any) -> Cell:
    return Cell(str(value)) if value else missing("not known")
