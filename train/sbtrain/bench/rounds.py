"""Fair comparisons on a machine that others use too: interleaved rounds, ratios within a round.

Load from elsewhere slows whatever runs at that moment, so each round runs every contestant once, every other round in
reverse order. Median and extremes of the ratios are the result; rates are shown for orientation only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

#: Runs for a moment, returns its rate in images/s.
Contestant = Callable[[], float]


@dataclass(frozen=True)
class Bar:
    """What a ratio has to reach; None: only the stretch counts."""

    least: float | None
    stretch: float | None = None

    def verdict(self, ratio: float) -> str:
        """Return ``bar 10: ok, stretch 20: short``."""
        named = {"bar": self.least, "stretch": self.stretch}
        return ", ".join(
            f"{name} {value:g}: {ok(ratio >= value)}" for name, value in named.items() if value is not None
        )


def ok(reached: bool) -> str:
    """Return the word for a bar that is, or is not, reached."""
    return "ok" if reached else "short"


def sampled(batches: Iterator[int], seconds: float) -> Contestant:
    """Return a contestant that takes batches, given by their sizes, for `seconds`. They are warm after one batch here."""
    next(batches)

    def run() -> float:
        images, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            images += next(batches)
        return images / elapsed

    return run


def rounds(contestants: dict[str, Contestant], repeats: int) -> dict[str, list[float]]:
    """Run every contestant `repeats` times, in turns; return the rates of each."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(repeats):
        for name in list(contestants)[:: -1 if number % 2 else 1]:
            rates[name].append(contestants[name]())
    return rates


def comparison(
    rates: dict[str, list[float]], ours: str, theirs: str, bar: Bar | None = None, lacking: Sequence[str] = ()
) -> str:
    """Return the line of one comparison; where the other side could not run, `lacking` says what is missing."""
    label = f"{ours} / {theirs}"
    if theirs not in rates:
        return f"  {label:<40} not measured: {'; '.join(lacking)}"
    ratios = [a / b for a, b in zip(rates[ours], rates[theirs], strict=True)]
    middle, lowest, highest = (
        f"{value:.2f}" if value < 100 else f"{value:,.0f}" for value in (median(ratios), min(ratios), max(ratios))
    )
    both = f"{median(rates[ours]):,.0f} : {median(rates[theirs]):,.0f}"
    judged = "" if bar is None else f"   {bar.verdict(median(ratios))}"
    return f"  {label:<40}{middle:>7}x {f'({lowest} to {highest})':<18}{both:>20} images/s{judged}"
