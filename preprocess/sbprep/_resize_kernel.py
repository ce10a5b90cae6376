"""Kernel of area resizing. No checks, no allocation: `decode.fit` is its door."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(nogil=True, cache=True, error_model="numpy")
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

    `rows` (h,) holds the first source row of each cell, `columns` (w,) its first column counted from pixel `left`; `total`
    (region width · 3) is the scratch row. Weights are integers kept as float64, and `area` is the sum of the products
    of one cell.

    Every sum is of integers below 2**53, hence exact: neither the order of additions nor a fused multiply-add can change a
    byte, and a tie is a tie. Costs 10 % over float32 scratch, which would round.
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
