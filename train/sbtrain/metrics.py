"""What a run writes down: one JSON line every so many steps, with sums kept on the device in between."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sbtrain.data import Waiting
from sbtrain.events import NAME, EventFile

#: Lines without an alarm after which it is over: a collapsing run is not below every threshold in every batch.
CALM = 5


@dataclass(frozen=True)
class Alarm:
    """Something that is wrong with a run."""

    kind: str
    text: str


@dataclass(frozen=True)
class Line:
    """One line of metrics.jsonl."""

    step: int
    steps: int
    batch_size: int
    values: dict[str, float | None]
    """The same in any two runs of one config: mean losses, learning rate, epoch, steps not applied."""
    speed: dict[str, float]
    """Seconds, images/s, share of the time spent waiting for data; on CUDA TFLOP/s, MFU and peak memory as well.

    MFU is of the dense bfloat16 peak, in float32 of the TF32 peak. ``data_wait`` is the time that the host waited for a
    gathered batch. On CUDA it does not see copies to the device, for which the device's stream waits and not the host: a
    run that is slow with ``host`` and fast with ``device`` waits for them.
    """
    alarms: tuple[Alarm, ...] | None = None
    """None where nobody looked."""

    def to_json(self) -> dict[str, Any]:
        """Return one flat object, the speed in an object of its own."""
        alarms = {} if self.alarms is None else {"alarms": [asdict(alarm) for alarm in self.alarms]}
        return {"step": self.step, **self.values, **alarms, "speed": self.speed}


class Totals:
    """Sums over all steps applied so far, on the device: loss, its parts, steps applied, steps not applied.

    Means of any stretch are differences of two readings.
    """

    def __init__(self, device: torch.device) -> None:
        self.names: list[str] = []
        self._device = device
        self._sums: Tensor | None = None
        self.recent: list[list[float]] = [[], []]
        """Readings at the last two calls of `recent_means` that had enough steps."""

    def add(self, names: list[str], losses: Tensor, finite: Tensor) -> None:
        """Add the losses (n,) of one step; one that is not `finite` only counts."""
        if self._sums is None or names != self.names:  # none yet, or the run was begun by a version that logged others
            skipped = 0.0 if self._sums is None else self._sums[-1]
            self.names = names
            self._sums = torch.zeros(len(names) + 2, dtype=torch.float64, device=self._device)
            self._sums[-1] = skipped
        flags = torch.stack([finite, ~finite])
        self._sums += torch.cat([torch.where(finite & torch.isfinite(losses), losses, 0.0), flags])

    def read(self) -> list[float]:
        """Return the sums: waits for the device."""
        return [] if self._sums is None else [float(value) for value in self._sums.tolist()]

    def load(self, names: list[str], sums: list[float], recent: list[list[float]] | None = None) -> None:
        """Go on from a reading."""
        self.names, self.recent = names, recent or [[], []]
        self._sums = torch.tensor(sums, dtype=torch.float64, device=self._device) if sums else None

    def means_since(self, mark: list[float]) -> dict[str, float | None]:
        """Return the mean of each loss over the steps applied since the reading `mark`; None where there was none."""
        since = self._since(mark)
        if not since[-2]:
            return dict.fromkeys(self.names)
        return {name: since[i] / since[-2] for i, name in enumerate(self.names)}

    def recent_means(self, enough: int) -> tuple[dict[str, float | None], float]:
        """Return the means over the last steps applied, `enough` of them unless the run is younger, and how many.

        They are those since the last call that had so many, or where these are fewer, since the one before it.
        """
        whole = self.applied_since(self.recent[1]) >= enough
        mark = self.recent[whole]
        found = self.means_since(mark), self.applied_since(mark)
        if whole:
            self.recent = [self.recent[1], self.read()]
        return found

    @property
    def skipped(self) -> float:
        """Steps not applied: waits for the device."""
        return self.skipped_since([])

    def skipped_since(self, mark: list[float]) -> float:
        """Return the steps not applied since the reading `mark`: waits for the device."""
        return max(0.0, self._since(mark)[-1])

    def applied_since(self, mark: list[float]) -> float:
        """Return the steps applied since the reading `mark`: waits for the device."""
        return max(0.0, self._since(mark)[-2])

    def _since(self, mark: list[float]) -> list[float]:
        """Return what has been added since the reading `mark`; since the beginning, where other names were logged then."""
        now = self.read() or [0.0, 0.0]
        before = mark if len(mark) == len(now) else [0.0] * len(now)
        return [a - b for a, b in zip(now, before, strict=True)]


class Stopwatch:
    """Speed since the last line.

    Parameters
    ----------
    images : int
        Of one step.
    waiting : Waiting
        The loader's.
    device : torch.device
    flops : float, optional
        Of one image; with `peak`, FLOP/s of the device, for MFU.
    """

    def __init__(
        self, images: int, waiting: Waiting, device: torch.device, flops: float | None = None, peak: float | None = None
    ) -> None:
        self._images, self._waiting, self._device = images, waiting, device
        self._flops, self._peak = flops, peak
        self._steps = 0
        self.restart()

    def restart(self) -> None:
        """Begin a new stretch."""
        self._begun, self._waited, self._steps = time.perf_counter(), self._waiting.seconds, 0

    def tick(self) -> None:
        """Count one step."""
        self._steps += 1

    def read(self) -> dict[str, float]:
        """Return the speed of the stretch so far."""
        seconds = max(time.perf_counter() - self._begun, 1e-9)
        rate = self._steps * self._images / seconds
        speed = {
            "seconds": seconds,
            "images_per_s": rate,
            "data_wait": (self._waiting.seconds - self._waited) / seconds,
        }
        if self._device.type == "cuda":
            speed["peak_memory_gb"] = torch.cuda.max_memory_allocated(self._device) / 1e9
            if self._flops:
                speed["tflops"] = rate * self._flops / 1e12
                if self._peak:
                    speed["mfu"] = rate * self._flops / self._peak
        return speed


class MetricsFile:
    """metrics.jsonl and its TensorBoard twin.

    Cut back to the checkpoint that a run goes on from, so that no step is written twice. A full disk does not end a run:
    lines wait until there is room.

    Parameters
    ----------
    folder : Path
    after : int
        Keep the lines up to this step.
    say : callable
        Takes one sentence about trouble.
    """

    def __init__(self, folder: Path, after: int, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder, say
        self._file = os.open(folder / "metrics.jsonl", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._size = 0
        self._waiting = b""
        self._events: EventFile | None = None
        self.cut(after)

    def cut(self, after: int) -> None:
        """Drop lines of steps beyond `after`, and a torn last line."""
        lines, self._size = [], 0
        with (self._folder / "metrics.jsonl").open("rb") as file:
            for text in file:
                line = _parsed(text)
                if line is None or line["step"] > after:
                    break
                lines.append(line)
                self._size += len(text)
        os.ftruncate(self._file, self._size)
        self._waiting = b""
        self._begin_events(lines)

    def append(self, line: Line) -> None:
        """Write one line."""
        content = json.dumps(line.to_json(), allow_nan=False).encode() + b"\n"
        self._waiting += content
        try:
            if os.pwrite(self._file, self._waiting, self._size) != len(self._waiting):
                raise OSError("no room for the whole line")
            self._size += len(self._waiting)
            self._waiting = b""
        except OSError as error:
            os.ftruncate(self._file, self._size)
            self._say(f"{self._folder / 'metrics.jsonl'}: {error}. Its lines wait in memory; make room")
        self._append_event(line)

    def sync(self) -> None:
        """Make every line durable: before a checkpoint says that its steps are done."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the files."""
        os.close(self._file)
        if self._events is not None:
            self._events.close()

    def _begin_events(self, lines: list[dict[str, Any]]) -> None:
        if self._events is not None:
            self._events.close()
        try:
            self._events = EventFile(self._folder / NAME)
            for line in lines:
                self._events.append(line)
        except OSError as error:
            self._stop_events(error)

    def _append_event(self, line: Line) -> None:
        try:
            if self._events is not None:
                self._events.append(line.to_json())
        except OSError as error:
            self._stop_events(error)

    def _stop_events(self, error: OSError) -> None:
        self._events = None
        self._say(f"{self._folder / NAME}: {error}. No more of them in this session; the next one writes them all anew")


class NoMetrics:
    """Stands where `MetricsFile` would on ranks that write nothing."""

    def cut(self, after: int) -> None:
        """Drop nothing."""

    def append(self, line: Line) -> None:
        """Write nothing."""

    def sync(self) -> None:
        """Wait for nothing."""

    def close(self) -> None:
        """Close nothing."""


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text) if text.endswith(b"\n") else None
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None
