"""What a run tells a person: a live line on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from typing import TextIO

from sbtrain.metrics import Line

LIVE_SECONDS = 1.0
LINE_SECONDS = 10.0
#: First steps are slow: a rate that has them in it says nothing of the time left.
STEADY_SECONDS = 20.0
BAR_WIDTH = 24
#: Value of a line that the monitor found -> its name for a person.
MONITORED = {"knn_top1": "kNN", "linear_top1": "linear"}


class ProgressPrinter:
    """Shows lines of a run, not too many; a context manager that ends the live line.

    Parameters
    ----------
    stream : text file, by default stderr
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._pause = LIVE_SECONDS if self._live else LINE_SECONDS
        self._last = time.monotonic()
        self._open_line = False
        self._rate = 0.0
        self._begun: float | None = None
        self._monitored: dict[str, float | None] = {}
        """What was found last: not every line has it."""

    def __enter__(self) -> ProgressPrinter:
        return self

    def __exit__(self, *_: object) -> None:
        self.say("")

    def due(self) -> bool:
        """Return True where the last line is old enough for another."""
        return time.monotonic() - self._last >= self._pause

    def show(self, line: Line) -> None:
        """Show `line`, unless another one was shown a moment ago."""
        self._monitored |= {name: value for name, value in line.values.items() if name in MONITORED}
        if not self.due() and line.step != line.steps:
            return
        self._last = time.monotonic()
        self._begun = self._begun or self._last
        steady = self._last - self._begun >= STEADY_SECONDS
        # Half old, half new: the time left should not jump with every line.
        rate = line.speed["images_per_s"]
        self._rate = (self._rate + rate) / 2 if self._rate and steady else rate
        values = line.values | self._monitored
        text = progress_text(replace(line, values=values), self._rate if steady else None, bar=self._live)
        self._write(f"\r\x1b[K{text}" if self._live else f"{text}\n")
        self._open_line = self._live

    def say(self, sentence: str) -> None:
        """Write a line of its own."""
        ending = "\n" if self._open_line else ""
        self._open_line = False
        self._write(ending + (f"{sentence}\n" if sentence else ""))

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # nobody reads any longer, a pager or a terminal that was closed: no reason to lose a run
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


class NoProgress:
    """Shows nothing: of several ranks the first one does."""

    def due(self) -> bool:
        """Return False."""
        return False

    def show(self, line: Line) -> None:
        """Show nothing."""


def progress_text(line: Line, rate: float | None, bar: bool = False) -> str:
    """Return one line: steps, loss, images/s, data wait, time left, and on CUDA TFLOP/s, MFU and memory.

    Parameters
    ----------
    line : Line
    rate : float, optional
        Images/s to work the time left out with; None: not known yet.
    bar : bool
    """
    share, speed, loss = line.step / line.steps, line.speed, line.values.get("loss")
    parts = [
        f"step {line.step:,}/{line.steps:,} {share:4.0%}",
        "loss ?" if loss is None else f"loss {loss:.4f}",
        *(f"{name} {value:.1%}" for key, name in MONITORED.items() if (value := line.values.get(key)) is not None),
        f"{speed['images_per_s']:,.0f} images/s",
        f"data wait {speed['data_wait']:.1%}",
    ]
    if "tflops" in speed:
        mfu = f" (MFU {speed['mfu']:.0%})" if "mfu" in speed else ""
        parts.append(f"{speed['tflops']:.1f} TFLOP/s{mfu}")
    if "peak_memory_gb" in speed:
        parts.append(f"{speed['peak_memory_gb']:.1f} GB")
    if line.values.get("skipped"):
        parts.append(f"{line.values['skipped']:.0f} steps not applied")
    if rate is not None:
        left = (line.steps - line.step) * line.batch_size / rate if rate > 0 else None
        parts.append("time left ?" if left is None else f"{duration_text(left)} left")
    text = " · ".join(parts)
    filled = round(share * BAR_WIDTH)
    return f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {text}" if bar else text


def duration_text(seconds: float) -> str:
    """Return 45 s, 12 min or 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def bytes_text(count: float) -> str:
    """Return 40 kB, 120 MB or 14.2 GB."""
    if count < 1e6:
        return f"{count / 1e3:,.0f} kB"
    return f"{count / 1e6:,.0f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"
