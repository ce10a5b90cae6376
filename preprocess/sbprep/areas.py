"""Which source pixels a target cell covers, and how much of each: the arithmetic of area averaging.

Cell i of `target` covers the interval [i·source/target, (i+1)·source/target) of the source axis. Measured in units of
1/target of a source pixel every overlap is an integer, so nothing is rounded before the last step.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbprep._kernels import area_resize


@lru_cache(maxsize=1024)
def area_weights(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the first source pixel and the weights of every target cell along one axis.

    Parameters
    ----------
    source, target : int
        Lengths of the axis; ``1 <= target <= source``.

    Returns
    -------
    first : int64 (target,)
    weights : float32 (target, k)
        Cell i is ``sum(weights[i, j] * pixels[first[i] + j])``. Rows sum to 1 (to float32 rounding) and are padded with
        zeros; ``first + k`` never exceeds `source`. Read-only: all callers share these arrays.

    Raises
    ------
    ValueError
        Where `target` is not in 1...source.
    """
    first, overlaps = area_overlaps(source, target)
    # A quotient of two small integers is rounded the same way on every machine, and so is its float32.
    return first, _frozen((overlaps / source).astype(np.float32))


@lru_cache(maxsize=1024)
def area_overlaps(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return `area_weights` before the division by `source`: integers in 0...target, rows sum to `source`."""
    if not 1 <= target <= source:
        raise ValueError(f"area averaging from {source} to {target} pixels, expected 1 <= target <= source")
    start = np.arange(target, dtype=np.int64) * source
    k = int((-(-(start + source) // target) - start // target).max())
    first = np.minimum(start // target, source - k)
    pixel = (first[:, None] + np.arange(k)) * target
    overlaps = np.minimum(pixel + target, start[:, None] + source) - np.maximum(pixel, start[:, None])
    return _frozen(first), _frozen(np.maximum(overlaps, 0))


def area_average(image: NDArray[np.uint8], region: tuple[int, int, int, int], size: int) -> NDArray[np.uint8]:
    """Return the area averages of a region, rounded half up.

    Parameters
    ----------
    image : uint8 (H, W, 3)
    region : tuple of int
        Top, left, height and width; neither side shorter than `size`.
    size : int
        Side of the result in pixels.

    Returns
    -------
    uint8 (size, size, 3)
    """
    top, left, height, width = region
    rows, row_weights = area_overlaps(height, size)
    columns, column_weights = area_overlaps(width, size)
    area_resize(
        np.ascontiguousarray(image).reshape(len(image), -1),
        left,
        rows + top,
        row_weights.astype(np.float64),
        columns,
        column_weights.astype(np.float64),
        float(height * width),
        np.empty(width * 3, np.float64),
        out := np.empty((size, size, 3), np.uint8),
    )
    return out


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
