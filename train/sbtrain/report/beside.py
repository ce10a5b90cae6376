"""Ours, theirs, the difference: the cells of one number, and the lines of clusterings and attributes.

Published numbers have no interval: that of a difference is ours.
"""

from __future__ import annotations

import math
from typing import Any

from sbtrain.evaluation.few_shot import Interval
from sbtrain.report.document import Cell, missing
from sbtrain.report.published import PublishedRow, PublishedTable, judged_of, published_tables
from sbtrain.report.runs import Run

DAMAGED = "damaged: see notes"
#: Scores that are 0 by chance, and less for clusters that agree with the classes less than that.
ABOVE_CHANCE = ("ami", "ari")
#: scikit-learn's NMI and AMI of the same partition twice exceed 1 by up to 1e-15.
ROUNDING = 1e-9
#: Kinds of tables that share a method -> how the names of their result files begin.
RESULTS = {"accuracy": "finetune", "attributes": "attributes"}


def percent(value: float) -> str:
    """Return a share in percent."""
    return f"{100 * value:.2f}"


def signed(interval: Interval) -> str:
    """Return a difference in points with its sign and interval."""
    half = "" if interval.half_width is None else f" ± {100 * interval.half_width:.2f}"
    return f"{100 * interval.mean:+.2f}{half}".replace("-", "−")


def interval_of(value: Any, metric: str = "") -> Interval | None:
    """Return a number of a result file, ``{"mean": …, "ci95": …}`` or the mean alone, or None where it cannot be."""
    mean, half = (value.get("mean"), value.get("ci95")) if isinstance(value, dict) else (value, None)
    least = -1 if metric in ABOVE_CHANCE else 0
    if isinstance(mean, bool) or not isinstance(mean, float | int) or not least <= mean <= 1 + ROUNDING:
        return None
    return Interval(float(mean), half if isinstance(half, float) and 0 <= half < math.inf else None)


def number_of(ours: Interval) -> Cell:
    """Return the cell of a number of ours."""
    return Cell(ours.text().replace("-", "−"), "ours")


def home_of(run: Run) -> PublishedTable | None:
    """Return the table of the preset that a run was begun from, where it is of one."""
    method = run.config.get("method")
    tables = [table for table in published_tables() if method in table.methods]
    return next((table for table in tables if run.preset.startswith(table.presets)), None)


def stands_in(table: PublishedTable, run: Run) -> bool:
    """Return whether a run is listed in a table of its method.

    That is the one of its preset, or else those of the kind of its results, or else all, as nothing tells them apart.
    """
    home = home_of(run)
    if home is not None or table.kind not in RESULTS:
        return home is None or home.id == table.id
    tables = [each for each in published_tables() if table.methods & each.methods]
    measured = {each.kind for each in tables if _has(run, each.kind)}
    return table.kind in measured or not measured


def _has(run: Run, kind: str) -> bool:
    found = {"accuracy": run.finetuned, "attributes": run.attributes}.get(kind)
    return bool(found) or any(name.startswith(RESULTS.get(kind, ())) for name in run.damaged)


def clustered(table: PublishedTable, row: PublishedRow, run: Run) -> list[tuple[Cell, ...]]:
    """Return a line for each clustering of a run, beside a published row."""
    lines = []
    for data in run.clusterings:
        config, scores = _object(data, "config"), _object(data, "scores")
        if config.get("from_scratch") or not scores:
            continue
        other = table.other(judged_of(data))
        how = {"classifier": "its own classes"}.get(str(config.get("method")), "k-means")
        cells = [cell for m in table.metrics for cell in three(row, m, interval_of(scores.get(m), m), other)]
        lines.append((Cell(run.name, note=f"{how}, {config.get('split')}"), *cells))
    return lines or [(Cell(run.name), *without(table, row, _why(run, "cluster")))]


def with_attributes(table: PublishedTable, row: PublishedRow, run: Run, scratch: bool) -> list[tuple[Cell, ...]]:
    """Return val and test side by side, of the results on most images that there are of each."""
    numbers: dict[str, tuple[Interval | None, str]] = {}
    for data in run.attributes:
        config, shots = _object(data, "config"), data.get("results")
        if (
            bool(config.get("from_scratch")) != scratch
            or not isinstance(shots, list)
            or not shots
            or not isinstance(shots[-1], dict)
        ):
            continue
        prefix = "val_" if config.get("eval_split") == "val" else ""
        other = table.other(judged_of(data))
        numbers |= {f"{prefix}{name}": (interval_of(value), other) for name, value in shots[-1].items()}
    if scratch and not numbers and not run.lost("attributes", scratch):
        return []
    why = _why(run, "attributes", scratch)
    cells = [cell for m in table.metrics for cell in three(row, m, *numbers.get(m, (None, "")), why)]
    return [(Cell(run.name), *cells)]


def without(table: PublishedTable, row: PublishedRow, reason: str) -> list[Cell]:
    """Return the cells of a line that has no number of ours, for a reason."""
    return [cell for m in table.metrics for cell in three(row, m, None, "", reason)]


def _why(run: Run, kind: str, scratch: bool = False) -> str:
    return DAMAGED if run.lost(kind, scratch) else "not measured"


def _object(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def three(
    row: PublishedRow, metric: str, ours: Interval | None, other: str, reason: str = "not measured"
) -> tuple[Cell, Cell, Cell]:
    """Return our number or the `reason` why there is none, the published one, and the difference: of `other` data or not."""
    theirs = share(row, metric)
    if ours is None:
        return missing(reason), theirs, missing("–")
    if metric not in row.values:
        return number_of(ours), theirs, missing("–")
    difference = Interval(ours.mean - row.values[metric], ours.half_width)
    return number_of(ours), theirs, Cell(signed(difference), "other" if other else "", other)


def share(row: PublishedRow, metric: str) -> Cell:
    """Return a published number."""
    return Cell(percent(row.values[metric])) if metric in row.values else missing("–")
