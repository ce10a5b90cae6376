"""metrics.jsonl as curves: numbers by step, what is no number, and what a monitor complained about.

S lines of the file, one for every so many steps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbtrain.metrics import CALM

NAME = "metrics.jsonl"
#: Points of a drawn curve; more are averaged.
POINTS = 300
#: Beginning of alarms of a collapse, `sbtrain.alarms`.
COLLAPSE = "collapse: "
_ALARMS = ("alarm", "alarms", "warning", "warnings")


@dataclass(frozen=True)
class Alarm:
    """Something that a monitor saw at a step."""

    step: int
    text: str
    until: int
    """Step of the last line that says it."""
    on: bool = False
    """Whether it was not over at the last line."""


@dataclass(frozen=True)
class Series:
    """Every line of a metrics file that can be read, and a sentence on each thing that cannot."""

    lines: tuple[dict[str, Any], ...]
    problems: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Every number that a line has, in the order of first appearance; speeds as ``speed.images_per_s``."""
        found: dict[str, None] = {}
        for line in self.lines:
            for name, value in _flat(line).items():
                if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
                    found[name] = None
        return [name for name in found if name != "step"]

    def curve(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return steps and values (n,), n <= `POINTS`: means of neighbors; NaN where there was no number."""
        pairs = [(line["step"], _flat(line).get(name, ...)) for line in self.lines]
        steps = np.array([step for step, value in pairs if value is not ...], float)
        values = np.array([_number(value) for _, value in pairs if value is not ...], float)
        groups = max(1, -(-len(steps) // POINTS))
        pieces = [slice(i, i + groups) for i in range(0, len(steps), groups)]
        if groups == 1:
            return steps, values
        return np.array([steps[piece].mean() for piece in pieces]), np.array([values[piece].mean() for piece in pieces])

    def last(self, name: str) -> float | None:
        """Return the newest value of `name` that is a number."""
        values = [_number(_flat(line)[name]) for line in self.lines if name in _flat(line)]
        finite = [value for value in values if math.isfinite(value)]
        return finite[-1] if finite else None

    def mean(self, name: str) -> float | None:
        """Return the mean of a speed, weighted by the seconds of each line."""
        flat = [_flat(line) for line in self.lines]
        pairs = [(_number(line.get(name)), _number(line.get("speed.seconds", 1.0))) for line in flat]
        pairs = [(value, weight) for value, weight in pairs if math.isfinite(value) and math.isfinite(weight)]
        weight = sum(weight for _, weight in pairs)
        return sum(value * weight for value, weight in pairs) / weight if weight > 0 else None

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """What a monitor said, each kind once for as long as it went on: up to `CALM` lines without it."""
        found: list[Alarm] = []
        newest: dict[str, tuple[int, int]] = {}  # kind -> number of its last line, place in `found`
        for number, line in enumerate(self.lines):
            for name in _ALARMS:
                said = line.get(name) or []
                for one in said if isinstance(said, list) else [said]:
                    kind = _alarm_kind(one)
                    before, place = newest.get(kind, (-CALM - 1, -1))
                    if number - before <= CALM:
                        found[place] = replace(found[place], until=line["step"])
                    else:
                        place = len(found)
                        found.append(Alarm(line["step"], _alarm_text(one), line["step"]))
                    newest[kind] = number, place
        for number, place in newest.values():
            if len(self.lines) - 1 - number < CALM:
                found[place] = replace(found[place], on=True)
        return tuple(found)

    @property
    def collapsed(self) -> str:
        """Words for the collapse that the run ended in, empty where it did not."""
        on = [alarm for alarm in self.alarms if alarm.on and alarm.text.startswith(COLLAPSE)]
        said = "; ".join(alarm.text.removeprefix(COLLAPSE) for alarm in on)
        return f"collapsed: {said}, since step {min(alarm.step for alarm in on):,}" if on else ""


def read_series(folder: Path) -> Series:
    """Read the metrics file of a run; what is wrong with it is said, not raised."""
    path = folder / NAME
    try:
        texts = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return Series((), (f"{NAME} is missing: no curve, no speed",))
    except OSError as error:
        return Series((), (f"{NAME} cannot be read ({error.strerror}): no curve, no speed",))
    problems, lines = [], []
    if texts[-1]:
        problems.append(f"the last line of {NAME} is torn: left out")
    for number, text in enumerate(texts[:-1], 1):
        line = _parsed(text)
        if line is None:
            problems.append(f"line {number} of {NAME} is damaged: left out")
        else:
            lines.append(line)
    if not lines and not problems:
        problems.append(f"{NAME} is empty: no step was logged")
    series = Series(tuple(lines), tuple(_shortened(problems)))
    return Series(series.lines, (*series.problems, *_bad_losses(series)))


def _bad_losses(series: Series) -> list[str]:
    bad = [line["step"] for line in series.lines if "loss" in line and not math.isfinite(_number(line["loss"]))]
    if not bad:
        return []
    where = f"at step {bad[0]:,}" if len(bad) == 1 else f"in {len(bad)} lines from step {bad[0]:,} on"
    return [f"the loss is not a number {where}: the curve has a gap there"]


def _shortened(problems: Sequence[str], most: int = 3) -> list[str]:
    if len(problems) <= most + 1:
        return list(problems)
    return [*problems[:most], f"{len(problems) - most} more lines of {NAME} are damaged: left out"]


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and type(line.get("step")) is int else None


def _flat(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line with nested objects as ``outer.inner``."""
    flat: dict[str, Any] = {}
    for name, value in line.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": one for inner, one in value.items()}
        else:
            flat[name] = value
    return flat


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _alarm_kind(alarm: Any) -> str:
    return str(alarm["kind"]) if isinstance(alarm, dict) and "kind" in alarm else _alarm_text(alarm)


def _alarm_text(alarm: Any) -> str:
    if isinstance(alarm, dict):
        return str(alarm.get("text") or alarm.get("message") or alarm.get("kind") or alarm)
    return str(alarm)
