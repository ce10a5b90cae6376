"""Fair comparisons on a machine that others use too: interleaved rounds, ratios within a round, warm processes.

Load from elsewhere slows whatever runs at that moment, so two sides are never timed one after the other: each round runs
every contestant once, every other round in reverse order, and a ratio is taken within a round. Median and extremes of
these ratios are the result; rates are shown for orientation only.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from statistics import median
from typing import Any, Self

from sbformat.errors import BuildError

#: Runs once, returns its rate (images/s, GB/s, ...).
Contestant = Callable[[], float]

SAMPLE_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Our rate over another's: the median of all rounds and the extremes."""

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """Rate of every contestant in every round."""

    rates: dict[str, list[float]]

    def rate(self, name: str) -> float:
        """Return the median rate of one contestant."""
        return median(self.rates[name])

    def ratio(self, ours: str, theirs: str) -> Ratio:
        """Compare two contestants round by round."""
        ratios = [a / b for a, b in zip(self.rates[ours], self.rates[theirs], strict=True)]
        return Ratio(median=median(ratios), lowest=min(ratios), highest=max(ratios))


def rounds(contestants: dict[str, Contestant], repeats: int) -> Rounds:
    """Run every contestant `repeats` times, in turns. They have to be warm."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(repeats):
        for name in list(contestants)[:: -1 if number % 2 else 1]:
            rates[name].append(contestants[name]())
    return Rounds(rates=rates)


@dataclass(frozen=True)
class Bar:
    """What a ratio has to reach, and what it would be good to reach."""

    least: float
    stretch: float

    def verdict(self, ratio: float) -> str:
        """Return ``bar 8: ok, stretch 20: short``."""
        return f"bar {self.least:g}: {ok(ratio >= self.least)}, stretch {self.stretch:g}: {ok(ratio >= self.stretch)}"


def ok(reached: bool) -> str:
    """Return the word for a bar that is, or is not, reached."""
    return "ok" if reached else "short"


def comparison(
    result: Rounds, ours: str, theirs: str, label: str, bar: Bar | None = None, lacking: Sequence[str] = ()
) -> str:
    """Return the line of one comparison; where the other side could not run, `lacking` are the distributions it needs."""
    if theirs not in result.rates:
        return f"  {label:<44} not measured: pip install {' '.join(lacking)}"
    ratio = result.ratio(ours, theirs)
    middle, lowest, highest = (
        f"{value:.2f}" if value < 100 else f"{value:,.0f}" for value in (ratio.median, ratio.lowest, ratio.highest)
    )
    return (
        f"  {label:<44}{middle:>7}x {f'({lowest} to {highest})':<18}"
        f"{f'{result.rate(ours):,.0f} : {result.rate(theirs):,.0f}':>18} images/s"
        + ("" if bar is None else f"   {bar.verdict(ratio.median)}")
    )


def sampled(work: Callable[[], object], amount: float) -> Contestant:
    """Run `work` once, and return a contestant that repeats it for `SAMPLE_SECONDS`; each time is worth `amount`."""
    work()

    def run() -> float:
        done, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < SAMPLE_SECONDS:
            work()
            done += 1
        return done * amount / elapsed

    return run


class Crew:
    """Processes that stay: every contestant runs in the same ones, so none pays for start-up. A context manager."""

    def __init__(self, size: int) -> None:
        context = multiprocessing.get_context("spawn")  # as loky does: no state of this process is inherited
        self._members = [ProcessPoolExecutor(1, mp_context=context) for _ in range(size)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self._members:
            member.shutdown()

    def __len__(self) -> int:
        return len(self._members)

    def map(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call `function` (of a module) in one process for each of `arguments`, at the same time."""
        return [result for _, _, result in self._run(function, arguments)]

    def seconds(self, members: int, function: Callable[..., Any], *arguments: Any) -> float:
        """Make the same call in `members` processes at once; return the time from the first start to the last end."""
        spans = self._run(function, [arguments] * members)
        return max(end for _, end, _ in spans) - min(start for start, _, _ in spans)

    def _run(
        self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]
    ) -> list[tuple[float, float, Any]]:
        calls = [
            member.submit(_timed, function, given)
            for member, given in zip(self._members[: len(arguments)], arguments, strict=True)
        ]
        try:
            return [call.result() for call in calls]
        except BrokenProcessPool as error:
            raise BuildError(
                f"a measuring process died in {function.__name__}: killed, or out of memory. Try fewer --workers"
            ) from error


def _timed(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[float, float, Any]:
    # perf_counter is the machine's monotonic clock: its values compare across processes.
    start = time.perf_counter()
    result = function(*arguments)
    return start, time.perf_counter(), result
