"""Tables of ``sbtrain reproduce``, from the ``reproduce.json`` beside its runs: several seeds a line, and what is not run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sbtrain.evaluation.few_shot import Interval
from sbtrain.report.beside import DAMAGED, interval_of, number_of, percent, signed
from sbtrain.report.document import Block, Cell, Section, Table, Text, missing
from sbtrain.report.published import OTHER_DATA, published_table

NAME = "reproduce.json"
#: Published table of rows that name none: all of the split-brain report's are of the same images.
SOURCE = "split-brain-1"


def reproduced_sections(paths: Sequence[Path]) -> tuple[Section, ...]:
    """Return one section with the tables of every reproduction that `paths` are, or are runs of; none without one."""
    blocks: list[Block] = []
    folders = [folder for path in paths for folder in (path.resolve(), path.resolve().parent)]
    for path in dict.fromkeys(folder / NAME for folder in folders):
        if not path.is_file():
            continue
        try:
            data = json.loads(path.read_bytes())
            tables = [_table(name, table) for name, table in data["tables"].items()]
            blocks += [Text(f"Reproduction at scale {data['scale']}: {data['about']}."), *tables]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            blocks.append(
                Text(f"{path.parent.name}/{NAME} is damaged ({error}): its tables are left out.", warning=True)
            )
    return (Section("Reproduced tables", "reproduced", tuple(blocks)),) if blocks else ()


def reproduced_scales(paths: Sequence[Path]) -> set[str]:
    """Return the scales of the reproductions that `paths` are, or are runs of."""
    found = set()
    for path in (folder / NAME for each in paths for folder in (each.resolve(), each.resolve().parent)):
        try:
            found.add(str(json.loads(path.read_bytes())["scale"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # said where its tables would stand
    return found


def _table(name: str, table: dict[str, Any]) -> Table:
    if any("measures" in row for row in table["rows"]):
        return _measured(name, table)
    rows = tuple(_row(row, evaluation) for row in table["rows"] for evaluation in row["evaluations"])
    header = (
        "what",
        "labels a class",
        "top-1 %",
        "published %",
        "difference",
        "top-5 %",
        "published %",
        "interval over",
    )
    return Table(caption=f"{name}: {table['about']}", header=header, rows=rows)


def _measured(name: str, table: dict[str, Any]) -> Table:
    """Return a table of one line a number: of each row several, found by different evaluations."""
    rows = tuple(_measure(row, measure) for row in table["rows"] for measure in row["measures"])
    header = ("what", "number", "ours %", "published %", "difference", "interval over")
    return Table(caption=f"{name}: {table['about']}", header=header, rows=rows, texts=2)


def _measure(row: dict[str, Any], measure: dict[str, Any]) -> tuple[Cell, ...]:
    found = {str(each["name"]): each for each in row["evaluations"]}
    evaluation = found.get(str(measure["evaluation"]), {"results": [{"message": row.get("note")}]})
    key, published = str(measure["key"]), measure.get("published")
    ours = interval_of(evaluation.get(key), key)
    return (
        Cell(str(row["name"])),
        Cell(str(measure["name"])),
        _ours(ours, evaluation),
        _share(published),
        _difference(ours, published, _other(row, evaluation)),
        Cell(str(evaluation.get("interval_over", "–"))),
    )


def _row(row: dict[str, Any], evaluation: dict[str, Any]) -> tuple[Cell, ...]:
    published = row.get("published") or {}
    top1, top5 = (interval_of(evaluation.get(name)) for name in ("top1", "top5"))
    return (
        Cell(str(row["name"]), note=str(evaluation["name"])),
        Cell(str(row.get("samples_per_class", "–"))),
        _ours(top1, evaluation),
        _share(published.get("top1")),
        _difference(top1, published.get("top1"), _other(row, evaluation)),
        _ours(top5, evaluation) if top1 is not None else missing("–"),  # why not is said once
        _share(published.get("top5")),
        Cell(str(evaluation.get("interval_over", "–"))),
    )


def _ours(found: Interval | None, evaluation: dict[str, Any]) -> Cell:
    if found is not None:
        return number_of(found)
    states = sorted({str(each.get("message") or each.get("state")) for each in evaluation.get("results", [])})
    said = "; ".join(state.partition(". Build")[0].partition(". No other")[0] for state in states)
    return missing(DAMAGED if said == "done" else said or "not run")


def _share(value: Any) -> Cell:
    return Cell(percent(value)) if isinstance(value, float) else missing("–")


def _other(row: dict[str, Any], evaluation: dict[str, Any]) -> str:
    """Return why a number is no comparison with the published one; a record that does not tell is of other data."""
    judged = evaluation.get("judged")
    return published_table(str(row.get("source") or SOURCE)).other(judged) if judged else OTHER_DATA


def _difference(ours: Interval | None, theirs: Any, other: str) -> Cell:
    if ours is None or not isinstance(theirs, float):
        return missing("–")
    return Cell(signed(Interval(ours.mean - theirs, ours.half_width)), "other" if other else "", other)
