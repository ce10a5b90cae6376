"""Numba kernels: sRGB to Lab, extremes, area means, planar uint8. The only module that imports Numba.

A kernel gets every array it reads or writes, checks nothing, allocates nothing and has no defaults; `convert` and
`decode` do that. Loops run over contiguous rows without a reduction inside, so that LLVM
vectorizes them without fast-math: sums keep one order and nothing is fused, hence every x86-64 or Arm build gives
the same bytes. ``error_model="numpy"`` matters: Python's check for division by zero is a branch that stops the
vectorizer (98 -> 12 us an image of 96 x 96, docs/benchmarks.md).

Axes: S x S pixels, t x t target cells, 3 channels. Each kernel has a plain twin in tests/naive.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sbformat.colorimetry import D65_WHITE, EPSILON, KAPPA, XYZ_FROM_RGB

F = TypeVar("F", bound=Callable[..., Any])
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
# Constants of another module are compiled in, but Numba's cache is renewed when this file changes: names carry them.
_CONSTANTS = hashlib.sha256(np.concatenate([XYZ_FROM_RGB, D65_WHITE, EPSILON, KAPPA], axis=None).tobytes()).hexdigest()


def _kernel(function: F) -> F:
    function.__qualname__ += f"_{_CONSTANTS[:8]}"
    try:
        return cast(F, njit(nogil=True, error_model="numpy", cache=True)(function))
    except RuntimeError:  # no folder may be written for the cache (read-only image, no home): compile at each start
        return cast(F, njit(nogil=True, error_model="numpy")(function))


_f4 = np.float32
# Rows of the matrix divided by the white, so that a kernel gets X/Xn, Y/Yn, Z/Zn at once.
_T = (XYZ_FROM_RGB / D65_WHITE[:, None]).astype(np.float32)
_XR, _XG, _XB = _T[0]
_YR, _YG, _YB = _T[1]
_ZR, _ZG, _ZB = _T[2]
_EPSILON = _f4(EPSILON)
_KAPPA_116 = _f4(KAPPA / 116)
_OFFSET_116 = _f4(16 / 116)
# Bits of a float are nearly its logarithm, so a third of them plus this starts a cube root 3.5 % off at most.
_CBRT_BITS = _f4(709921077.0)
_THIRD = _f4(1 / 3)


@_kernel
def _lab_f(t: Any) -> Any:
    """CIE 15:2004, equation 8.6: cube root above EPSILON, linear below. Float32, relative error under 2.3e-7."""
    u = t if t > _EPSILON else _EPSILON  # also keeps denormals, which cost 100 cycles each, out of the root
    y = np.int32(_f4(np.float32(u).view(np.int32)) * _THIRD + _CBRT_BITS).view(np.float32)
    y3 = y * y * y
    y = y * (y3 + u + u) / (y3 + y3 + u)  # Halley: the number of right digits triples
    y3 = y * y * y
    y = y * (y3 + u + u) / (y3 + y3 + u)
    return y if t > _EPSILON else _KAPPA_116 * t + _OFFSET_116


@_kernel
def lab_from_rgb(rgb: Bytes, linear_from_srgb: Floats, lab: Floats) -> None:
    """Rgb (H, W, 3) -> lab (3, H, W); linear_from_srgb (256,) in [0, 1]."""
    rows, columns = lab.shape[1], lab.shape[2]
    for y in range(rows):
        L, a, b = lab[0, y], lab[1, y], lab[2, y]
        # Two loops: table look-ups do not vectorize, the arithmetic does.
        for x in range(columns):
            L[x] = linear_from_srgb[rgb[y, x, 0]]
            a[x] = linear_from_srgb[rgb[y, x, 1]]
            b[x] = linear_from_srgb[rgb[y, x, 2]]
        for x in range(columns):
            red, green, blue = L[x], a[x], b[x]
            fx = _lab_f(_XR * red + _XG * green + _XB * blue)
            fy = _lab_f(_YR * red + _YG * green + _YB * blue)
            fz = _lab_f(_ZR * red + _ZG * green + _ZB * blue)
            L[x] = _f4(116) * fy - _f4(16)
            a[x] = _f4(500) * (fx - fy)
            b[x] = _f4(200) * (fy - fz)


@_kernel
def planes_from_rgb(rgb: Bytes, planes: Floats) -> None:
    """Rgb (H, W, 3) -> planes (3, H, W)."""
    for y in range(rgb.shape[0]):
        for x in range(rgb.shape[1]):
            planes[0, y, x] = rgb[y, x, 0]
            planes[1, y, x] = rgb[y, x, 1]
            planes[2, y, x] = rgb[y, x, 2]


@_kernel
def extremes(channel: Floats, lowest: Floats, highest: Floats) -> tuple[Any, Any]:
    """Channel (S, S) -> its minimum and maximum; lowest, highest (S,) are scratch."""
    rows, columns = channel.shape
    for x in range(columns):
        lowest[x] = channel[0, x]
        highest[x] = channel[0, x]
    for y in range(1, rows):
        for x in range(columns):
            lowest[x] = min(lowest[x], channel[y, x])
            highest[x] = max(highest[x], channel[y, x])
    low, high = lowest[0], highest[0]
    for x in range(1, columns):
        low = min(low, lowest[x])
        high = max(high, highest[x])
    return low, high


@_kernel
def area_mean(channel: Floats, first: NDArray[np.int64], weights: Floats, scratch: Floats, mean: Floats) -> None:
    """Channel (S, S) -> mean (t, t): cell i covers rows first[i] ... with weights[i] (t, k); scratch (S,)."""
    cells, k = weights.shape
    columns = channel.shape[1]
    for i in range(cells):
        for x in range(columns):
            scratch[x] = _f4(0)
        for d in range(k):
            weight, y = weights[i, d], first[i] + d
            for x in range(columns):
                scratch[x] += weight * channel[y, x]
        for j in range(cells):
            total = _f4(0)
            for d in range(k):
                total += weights[j, d] * scratch[first[j] + d]
            mean[i, j] = total


@_kernel
def encode(channel: Floats, low: Any, scale: Any, stored: Bytes) -> tuple[int, int]:
    """Channel (S, S) -> stored (S, S) = round((value - low) * scale); returns the sum and sum of squares of stored."""
    total, squares = 0, 0
    for y in range(channel.shape[0]):
        for x in range(channel.shape[1]):
            level = np.int32((channel[y, x] - low) * scale + _f4(0.5))
            stored[y, x] = level
            total += int(level)
            squares += int(level * level)
    return total, squares


@_kernel
def uniform_bins(
    means: Floats, ranges: Floats, single: int, dual: int, target_single: NDArray[Any], target_dual: NDArray[Any]
) -> None:
    """Means (N, 3, t, t), ranges (N or 1, 3, 2) -> target_single, target_dual (N, t, t), u1 or u2."""
    for n in range(means.shape[0]):
        r = n if ranges.shape[0] > 1 else 0
        for i in range(means.shape[2]):
            for j in range(means.shape[3]):
                target_single[n, i, j] = _bin(means[n, 0, i, j], ranges[r, 0, 0], ranges[r, 0, 1], single)
                first = _bin(means[n, 1, i, j], ranges[r, 1, 0], ranges[r, 1, 1], dual)
                second = _bin(means[n, 2, i, j], ranges[r, 2, 0], ranges[r, 2, 1], dual)
                target_dual[n, i, j] = first * dual + second


@_kernel
def _bin(value: Any, low: Any, high: Any, count: int) -> int:
    """Equal bins of low...high, in the order of operations of `sbformat.schema.bins_from_values`."""
    if not (high > low and value > low):
        return 0
    return min(int((value - low) / (high - low) * _f4(count)), count - 1)


@_kernel
def convert_fixed(
    rgb: Bytes,
    linear_from_srgb: Floats,
    is_lab: bool,
    low: Floats,
    scale: Floats,
    first: NDArray[np.int64],
    weights: Floats,
    planes: Floats,
    scratch: Floats,
    stored: Bytes,
    means: Floats,
    sums: NDArray[np.int64],
) -> None:
    """Rgb (N, S, S, 3) -> stored (N, 3, S, S) by low, scale (3,); means (N, 3, t, t); sums (3, 2) are added to.

    planes (3, S, S) and scratch (2, S) are overwritten for every image and stay in the second-level cache.
    """
    for n in range(rgb.shape[0]):
        if is_lab:
            lab_from_rgb(rgb[n], linear_from_srgb, planes)
        else:
            planes_from_rgb(rgb[n], planes)
        for c in range(3):
            area_mean(planes[c], first, weights, scratch[0], means[n, c])
            total, squares = encode(planes[c], low[c], scale[c], stored[n, c])
            sums[c, 0] += total
            sums[c, 1] += squares


@_kernel
def convert_rescaled(
    rgb: Bytes,
    linear_from_srgb: Floats,
    constant_span: Any,
    first: NDArray[np.int64],
    weights: Floats,
    planes: Floats,
    scratch: Floats,
    stored: Bytes,
    ranges: Floats,
    means: Floats,
    sums: NDArray[np.int64],
) -> None:
    """Rgb (N, S, S, 3) -> stored (N, 3, S, S), each channel stretched from its extremes, ranges (N, 3, 2).

    A channel that spans less than constant_span is constant: stored 0, range (lowest, lowest). Else as above.
    """
    for n in range(rgb.shape[0]):
        lab_from_rgb(rgb[n], linear_from_srgb, planes)
        for c in range(3):
            area_mean(planes[c], first, weights, scratch[0], means[n, c])
            low, high = extremes(planes[c], scratch[0], scratch[1])
            scale = _f4(0)
            if high - low < constant_span:
                high = low
            else:
                scale = _f4(255) / (high - low)
            ranges[n, c, 0] = low
            ranges[n, c, 1] = high
            total, squares = encode(planes[c], low, scale, stored[n, c])
            sums[c, 0] += total
            sums[c, 1] += squares


@_kernel
def area_resize(
    source: NDArray[np.uint8],
    left: int,
    rows: NDArray[np.int64],
    row_weights: NDArray[np.float64],
    columns: NDArray[np.int64],
    column_weights: NDArray[np.float64],
    area: float,
    total: NDArray[np.float64],
    out: NDArray[np.uint8],
) -> None:
    """Average rectangles of `source` (H, W·3) into `out` (h, w, 3), rounded half up.

    `rows` (h,) holds the first source row of each cell, `columns` (w,) its first column counted from pixel `left`;
    `total` (region width · 3) is the scratch row. Weights are integers kept as float64, and `area` is the sum of the
    products of one cell.

    Every sum is of integers below 2**53, hence exact: neither the order of additions nor a fused multiply-add can
    change a byte, and a tie is a tie. Costs 10 % over float32 scratch, which would round.
    """
    for i in range(out.shape[0]):
        total[:] = 0
        for k in range(row_weights.shape[1]):
            weight = row_weights[i, k]
            line = source[rows[i] + k, 3 * left : 3 * left + total.size]
            for x in range(total.size):
                total[x] += weight * line[x]
        for j in range(out.shape[1]):
            red = green = blue = 0.0
            for k in range(column_weights.shape[1]):
                x = 3 * (columns[j] + k)
                share = column_weights[j, k]
                red += share * total[x]
                green += share * total[x + 1]
                blue += share * total[x + 2]
            out[i, j, 0] = int(red / area + 0.5)
            out[i, j, 1] = int(green / area + 0.5)
            out[i, j, 2] = int(blue / area + 0.5)
