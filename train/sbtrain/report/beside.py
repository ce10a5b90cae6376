"""Ours, theirs, the difference: the cells of one number, and the lines of clusterings and attributes.

Published numbers have no interval: that of a difference is ours.
"""

from __future__ import annotations

from typing import Any

from sbtrain.evaluation.few_shot import Interval
from sbtrain.report.document import Cell, missing
from sbtrain.report.published import PublishedRow, PublishedTable, judged_of
from sbtrain.report.runs import Run

DAMAGED = "damaged: see notes"


def percent(value: float) -> str:
    """Return a share in percent."""
    return f"{100 * value:.2f}"


def signed(interval: Interval) -> str:
    """Return a difference in points with its sign and interval."""
    half = "" if interval.half_width is None else f" ± {100 * interval.half_width:.2f}"
    return f"{100 * interval.mean:+.2f}{half}".replace("-", "−")


def clustered(table: PublishedTable, row: PublishedRow, run: Run) -> list[tuple[Cell, ...]]:
    """Return a line for each clustering of a run, beside a published row."""
    lines = []
    for data in run.clusterings:
        config, scores = _object(data, "config"), _object(data, "scores")
        if config.get("from_scratch") or not scores:
            continue
        other = table.other(judged_of(data))
        how = {"classifier": "its own classes"}.get(str(config.get("method")), "k-means")
        cells = [cell for m in table.metrics for cell in three(row, m, _score(scores.get(m)), other)]
        lines.append((Cell(run.name, note=f"{how}, {config.get('split')}"), missing("–"), *cells))
    return lines or [(Cell(run.name), missing("–"), *without(table, row, _why(run, "cluster")))]


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
        numbers |= {f"{prefix}{name}": (_score(value), other) for name, value in shots[-1].items()}
    if scratch and not numbers and not run.lost("attributes", scratch):
        return []
    why = _why(run, "attributes", scratch)
    cells = [cell for m in table.metrics for cell in three(row, m, *numbers.get(m, (None, "")), why)]
    return [(Cell(run.name), missing("–"), *cells)]


def without(table: PublishedTable, row: PublishedRow, reason: str) -> list[Cell]:
    """Return the cells of a line that has no number of ours, for a reason."""
    return [cell for m in table.metrics for cell in three(row, m, None, "", reason)]


def _why(run: Run, kind: str, scratch: bool = False) -> str:
    return DAMAGED if run.lost(kind, scratch) else "not measured"


def _object(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def _score(value: Any) -> Interval | None:
    mean, half = (value.get("mean"), value.get("ci95")) if isinstance(value, dict) else (value, None)
    if not isinstance(mean, int | float) or not -1 <= mean <= 1:  # AMI and ARI may be below 0
        return None
    return Interval(float(mean), float(half) if isinstance(half, int | float) else None)


def three(
    row: PublishedRow, metric: str, ours: Interval | None, other: str, reason: str = "not measured"
) -> tuple[Cell, Cell, Cell]:
    """Return our number or the `reason` why there is none, the published one, and the difference: of `other` data or not."""
    theirs = share(row, metric)
    if ours is None:
        return missing(reason), theirs, missing("–")
    if metric not in row.values:
        return Cell(ours.text(), "ours"), theirs, missing("–")
    difference = Interval(ours.mean - row.values[metric], ours.half_width)
    return Cell(ours.text(), "ours"), theirs, Cell(signed(difference), "other" if other else "", other)


def share(row: PublishedRow, metric: str) -> Cell:
    """Return a published number."""
    return Cell(percent(row.values[metric])) if metric in row.values else missing("–")
