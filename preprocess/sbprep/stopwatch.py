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
    """Run every contestant once without counting, then `repeats` times, in turns."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(repeats + 1):
        for name in list(contestants)[:: 1 if number % 2 else -1]:
            rate = contestants[name]()
            if number:
                rates[name].append(rate)
    return Rounds(rates=rates)


def sampled(work: Callable[[], object], amount: float) -> Contestant:
    """Return a contestant that repeats `work`, worth `amount`, for at least `SAMPLE_SECONDS`."""

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
