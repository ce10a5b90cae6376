"""Few-shot subsets and what is said of them: draws keyed by number, and Student's intervals over draws.

A draw is a pure function of (seed, draw): the same rows on any machine, whatever else a run does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sbformat.errors import ConfigError
from sbformat.permutation import permute
from sbtrain.data import Rows

Protocol = Literal["balanced", "report"]

ALL = 0
"""Samples per class that stand for every image of the split."""
#: Keys of initial weights: those of the networks, and those of the classifier, the same whatever it sits on.
NETWORKS, CLASSIFIER = 0, 1


def draw_rows(
    labels: NDArray[Any], names: Sequence[str], samples: int, protocol: Protocol, seed: int, draw: int
) -> Rows:
    """Choose the labeled images of one draw.

    Parameters
    ----------
    labels : int32 (N,), or uint8 (N, A)
        Class of every row of the split, or its attributes.
    names : sequence of str
        Of the classes; a class without a row counts as well.
    samples : int
        Images for each class, or of attributes, which part nothing into classes, images in all; 0: every row.
    protocol : {"balanced", "report"}
        Exactly `samples` of each class, or, as the report's code has it, samples x classes rows at random whatever
        their classes: at 1 for each of 1,000 classes about 365 of these have no image at all.
    seed, draw : int

    Returns
    -------
    int64 (n,)
        Rows in an order of their own; a smaller number of samples gives the beginning of a larger one's rows.

    Raises
    ------
    ConfigError
        A class, or the split, has fewer rows than that.
    """
    if samples == ALL:
        return np.arange(len(labels), dtype=np.int64)
    if labels.ndim == 2:
        return _draw_images(len(labels), samples, seed, draw)
    count = samples * len(names)
    if protocol == "report":
        if count > len(labels):
            raise ConfigError(
                f"{samples} samples for each of {len(names)} classes are {count} images, the split has {len(labels)}. "
                f"Use at most {len(labels) // len(names)}, or all"
            )
        return permute(np.arange(count), len(labels), seed, draw)
    rows = [np.flatnonzero(labels == c) for c in range(len(names))]
    for name, mine in zip(names, rows, strict=True):
        if len(mine) < samples:
            most = min(map(len, rows))
            raise ConfigError(
                f"{samples} samples per class, class {name} has {len(mine)} images. "
                + (f"Use at most {most}, or all" if most else "Use all, or --protocol report")
            )
    # One row per class comes first, then the second of each: any whole number of samples is a beginning.
    chosen = [mine[permute(np.arange(samples), len(mine), seed, draw, c)] for c, mine in enumerate(rows)]
    return np.stack(chosen, axis=1).reshape(count)


def _draw_images(images: int, samples: int, seed: int, draw: int) -> Rows:
    if samples > images:
        raise ConfigError(f"{samples} labeled images, the split has {images}. Use at most that many, or all")
    return permute(np.arange(samples), images, seed, draw)


def weights_seed(seed: int, draw: int, kind: int) -> int:
    """Return the seed of a draw's initial weights; `kind`: NETWORKS or CLASSIFIER."""
    return permute(draw, 1 << 62, seed, kind)


def hold_out(rows: Rows, labels: NDArray[Any], share: float) -> tuple[Rows, Rows]:
    """Part drawn rows into those to learn from and those to stop by: of each class the last `share`, rounded down.

    Images with attributes count as one class. Both together are the labels that a result claims to use.
    """
    held = np.zeros(len(rows), dtype=bool)
    labels = labels if labels.ndim == 1 else np.zeros(len(labels), np.int32)
    for c in np.unique(labels[rows]):
        places = np.flatnonzero(labels[rows] == c)
        held[places[len(places) - held_count(len(places), share) :]] = True
    return rows[~held], rows[held]


def held_count(count: int, share: float) -> int:
    """Return how many of a class's `count` rows are held out: `share` of them, rounded down."""
    # The sum keeps shares such as 0.3 of 10 from falling short of the whole number they mean.
    return int(count * share + 1e-9)


@dataclass(frozen=True)
class Interval:
    """Mean of independent draws and the half-width of its 95 % confidence interval."""

    mean: float
    half_width: float | None
    """None of a single draw."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"mean": self.mean, "ci95": self.half_width}

    def text(self) -> str:
        """Return ``14.04 ± 0.31``, in percent."""
        half = "" if self.half_width is None else f" ± {self.half_width * 100:.2f}"
        return f"{self.mean * 100:.2f}{half}"


def interval(values: Sequence[float]) -> Interval:
    """Return mean and 95 % confidence interval by Student's t over n - 1 degrees of freedom."""
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return Interval(mean, None)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return Interval(mean, student_quantile(n - 1) * deviation / math.sqrt(n))


def gain(ours: Sequence[float], control: Sequence[float]) -> Interval:
    """Return the interval of the differences, draw by draw; an only one of ours stands beside every draw of the control."""
    ours = list(ours) * len(control) if len(ours) == 1 else ours
    return interval([a - b for a, b in zip(ours, control, strict=True)])


def student_quantile(freedom: int, confidence: float = 0.95) -> float:
    """Return t with P(-t < T < t) = `confidence`, T of Student's distribution with `freedom` degrees of freedom."""
    low, high = 0.0, math.pi / 2
    for _ in range(80):  # bisection in the angle atan(t / sqrt(freedom))
        middle = (low + high) / 2
        low, high = (middle, high) if _student_within(middle, freedom) < confidence else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


def _student_within(angle: float, freedom: int) -> float:
    """P(-t < T < t) in closed form: M. Abramowitz and I. Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = total = 0.0
    if freedom > 1:
        term = total = cosine if odd else 1.0
    for i in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine * cosine * (i - 1) / i
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
