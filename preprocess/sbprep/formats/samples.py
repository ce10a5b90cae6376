"""Pixels as files hold them, laid on white and rounded to 8 bits: exact integer arithmetic, strip by strip.

A strip at a time the whole of a 16-bit image with alpha takes 3 bytes a pixel besides itself; at once it took 70.

Axes: H, W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Pixels that are computed with at a time.
STRIP_PIXELS = 2**16


class Samples(NamedTuple):
    """Pixels before they are 8-bit RGB: `color` (H, W, 1 or 3) in 0...`top`, `alpha` (H, W, 1) or None likewise."""

    color: NDArray[Any]
    alpha: NDArray[Any] | None
    top: int
    premultiplied: bool = False


def strips_of(samples: Samples) -> Iterator[Samples]:
    """Cut an image into strips of about `STRIP_PIXELS`: what is computed from one stays in the cache."""
    rows = max(1, STRIP_PIXELS // samples.color.shape[1])
    for top in range(0, len(samples.color), rows):
        alpha = None if samples.alpha is None else samples.alpha[top : top + rows]
        yield samples._replace(color=samples.color[top : top + rows], alpha=alpha)


def on_white(strips: Iterable[Samples], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Put the strips of an image together, each laid on white and rounded to 8 bits."""
    image, top = np.empty((*size, 3), np.uint8), 0
    for strip in strips:
        image[top : top + len(strip.color)] = flattened(strip)
        top += len(strip.color)
    return image


def flattened(samples: Samples) -> NDArray[Any]:
    """Lay on white and round to 0...255, in integers: 255 (color alpha + top (top - alpha)) / top^2, half up."""
    color, alpha, top, premultiplied = samples
    unit = top if alpha is None or premultiplied else top * top
    if unit == 255 and alpha is None:
        return color
    exact = np.uint64 if unit > 2**24 else np.uint32  # holds 255 times the unit and half of it
    value = color.astype(exact)
    if alpha is not None:
        alpha = alpha.astype(exact)
        value = np.minimum(value + (top - alpha), top) if premultiplied else value * alpha + top * (top - alpha)
    return (value * 255 + unit // 2) // unit


def palette_on_white(palette: bytes, transparency: bytes) -> bytes:
    """Return a PNG palette laid on white, as its transparency chunk says."""
    if not transparency or len(palette) % 3:
        return palette
    color = np.frombuffer(palette, np.uint8).reshape(-1, 1, 3)
    alpha = np.full((len(color), 1, 1), 255, np.uint8)
    known = transparency[: len(color)]
    alpha[: len(known), 0, 0] = np.frombuffer(known, np.uint8)
    return flattened(Samples(color, alpha, 255)).astype(np.uint8).tobytes()
