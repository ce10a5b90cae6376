"""How training went: losses, accuracies on the way, speed, memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sbtrain.report.charts import Line, curves_chart
from sbtrain.report.document import Block, Cell, Fold, Gallery, Picture, Section, Table, Text, missing
from sbtrain.report.runs import Run
from sbtrain.report.series import Alarm

#: What a line of metrics.jsonl says beside losses and accuracies.
_OTHER = ("lr", "epoch", "skipped")
_SHARES = ("feature_std", "embedding_std", "alignment", "overlap", "class_entropy")
#: Unit of a picture -> its title: what is of different units has different axes.
_UNITS = {
    "loss": "loss", "%": "accuracy on the way, %", "share": "signs of a collapse, 0 to 1",
    "rank": "effective rank, 64 at most", "classes": "classes in use", "monitor": "monitor",
}  # fmt: skip
#: Values that their axes have, whatever is measured.
_SHOWN = {"share": (-0.03, 1.03), "rank": (0.0, 64.0), "classes": (0.0, 1.0)}
_ACCURACY = ("top1", "top5", "knn", "acc")
#: Curves in one picture, and runs of a page whose curves are not folded.
MOST = 8


def training_section(runs: Sequence[Run]) -> Section:
    """Return loss and accuracy curves, with alarms."""
    drawn = [run for run in runs if run.series.lines]
    pictures = [picture for run in drawn for picture in _pictures(run)]
    blocks: list[Block] = []
    if pictures:
        blocks.append(Text("Means over the steps between two lines of metrics.jsonl. Vertical dashes are alarms."))
        curves = Gallery(tuple(pictures))
        blocks.append(curves if len(drawn) <= MOST else Fold(f"Curves of {len(drawn)} runs", (curves,)))
    alarms = [(run, alarm) for run in drawn for alarm in run.series.alarms]
    if alarms:
        rows = tuple((Cell(run.name), Cell(alarm.text), Cell(_steps(alarm))) for run, alarm in alarms[:50])
        left = f"; {len(alarms) - 50} more are in metrics.jsonl" if len(alarms) > 50 else ""
        blocks.append(Table(caption=f"Alarms{left}", header=("run", "what", "step"), rows=rows, texts=2))
    for run in runs:
        if not run.series.lines:
            why = "; ".join(run.series.problems)
            blocks.append(
                Text(f"{run.name}: no curve: {why or 'its weights were given, epochs 0'}.", warning=bool(why))
            )
    return Section("Training", "training", tuple(blocks))


def speed_section(runs: Sequence[Run]) -> Section:
    """Return throughput, MFU, memory and the share of time spent waiting for data."""
    header = ("run", "device", "images/s", "data wait %", "TFLOP/s", "MFU %", "peak memory GB", "minutes", "parameters")
    table = Table(
        caption="Pretraining, over all sessions; weighted by time",
        header=header,
        rows=tuple(_speed(run) for run in runs),
        texts=2,
    )
    notes: list[Block] = [table]
    if not any(run.series.last("speed.mfu") is not None for run in runs):
        notes.append(Text("MFU, TFLOP/s and peak memory are measured on CUDA alone."))
    pictures = tuple(picture for run in runs for picture in _speed_curve(run))
    if pictures:
        notes.append(Fold("Throughput over the steps", (Gallery(pictures),)))
    return Section("Speed and memory", "speed", tuple(notes))


def number(value: Any, text: str, reason: str = "–") -> Cell:
    """Return `value` as `text` formats it, or why it is not there."""
    if isinstance(value, int | float) and math.isfinite(value):
        return Cell(text.format(value))
    return missing(reason)


def _pictures(run: Run) -> list[Picture]:
    names = [name for name in run.series.names if not name.startswith("speed.") and name not in _OTHER]
    groups: dict[str, list[str]] = {unit: [] for unit in _UNITS}
    for name in names:
        groups[_unit(name)].append(name)
    return [_picture(run, unit, group[:MOST]) for unit, group in groups.items() if group]


def _unit(name: str) -> str:
    if any(part in name.lower() for part in _ACCURACY):
        return "%"
    if "loss" in name:
        return "loss"
    if name in _SHARES:
        return "share"
    return "rank" if name.endswith("_rank") else "classes" if name == "classes_used" else "monitor"


def _picture(run: Run, unit: str, names: list[str]) -> Picture:
    lines, scale = [], 100.0 if unit == "%" else 1.0
    for number_, name in enumerate(names):
        steps, values = run.series.curve(name)
        lines.append(Line(name=name, x=steps, y=values * scale, color=number_))
    alarms = [alarm.step for alarm in run.series.alarms]
    ends = [f"{name} ends at {last * scale:.4g}" for name in names if (last := run.series.last(name)) is not None]
    alt = f"{run.name}, {unit} over steps: " + ("; ".join(ends) or "no value is a number")
    alt += f"; {len(alarms)} alarms" if alarms else ""
    title = _UNITS[unit] + (f"; one point, step {run.series.lines[0]['step']:,}" if len(run.series.lines) == 1 else "")
    gaps = [problem for problem in run.series.problems if "not a number" in problem] if unit == "loss" else []
    caption = "; ".join([f"{run.name}: {title}", *gaps])
    shown = _SHOWN.get(unit, ())
    return Picture(svg=curves_chart(lines, "step", unit, alt, alarms, shown=shown), alt=alt, caption=caption)


def _steps(alarm: Alarm) -> str:
    return f"{alarm.step:,}" if alarm.until == alarm.step else f"{alarm.step:,} to {alarm.until:,}"


def _speed(run: Run) -> tuple[Cell, ...]:
    summary, series = run.summary or {}, run.series
    reason = "not logged" if not series.lines else "–"
    seconds = summary.get("seconds", sum(_seconds(line) for line in series.lines) or None)
    wait, mfu = series.mean("speed.data_wait"), series.mean("speed.mfu")
    memory = [value for line in series.lines if (value := _speeds(line).get("peak_memory_gb")) is not None]
    return (
        Cell(run.name),
        Cell(f"{summary.get('device', 'not finished')} {summary.get('precision', '')}".strip()),
        number(series.mean("speed.images_per_s"), "{:,.0f}", reason),
        number(None if wait is None else 100 * wait, "{:.3f}", reason),
        number(series.mean("speed.tflops"), "{:.1f}"),
        number(None if mfu is None else 100 * mfu, "{:.1f}"),
        number(max(memory, default=None), "{:.2f}"),
        number(seconds / 60 if isinstance(seconds, int | float) else None, "{:,.1f}", reason),
        number(summary.get("parameters"), "{:,}"),
    )


def _speeds(line: dict[str, Any]) -> dict[str, Any]:
    speed = line.get("speed")
    return {k: v for k, v in speed.items() if isinstance(v, int | float)} if isinstance(speed, dict) else {}


def _seconds(line: dict[str, Any]) -> float:
    return float(_speeds(line).get("seconds", 0.0))


def _speed_curve(run: Run) -> list[Picture]:
    steps, values = run.series.curve("speed.images_per_s")
    if len(steps) < 2:
        return []
    alt = f"{run.name}: images a second over steps, {run.series.mean('speed.images_per_s') or 0:,.0f} in the mean"
    svg = curves_chart([Line(name="images/s", x=steps, y=values)], "step", "images/s", alt)
    return [Picture(svg=svg, alt=alt, caption=f"{run.name}: images/s")]
