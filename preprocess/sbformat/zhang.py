"""The 313 classes of color of Zhang, Isola and Efros, "Colorful Image Colorization" (ECCV 2016)."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

#: In-gamut ab cells of R. Zhang, P. Isola and A. Efros, "Colorful Image Colorization" (ECCV 2016), section 2: centers
#: on a grid of step 10. For a = -90, -80 ... 100 the lowest and highest b; 313 cells, numbered by a, then by b.
ZHANG_STEP = 10
_ZHANG_B_SPAN = (
    (50, 90), (20, 90), (0, 90), (-20, 90), (-30, 100), (-40, 100), (-50, 100), (-50, 100), (-60, 100), (-70, 100),
    (-80, 90), (-80, 90), (-90, 90), (-100, 90), (-100, 80), (-110, 80), (-110, 80), (-110, 70), (-110, 70), (-90, 0),
)  # fmt: skip
ZHANG_DUAL_BINS = 313
ZHANG_SINGLE_BINS = 50


@cache
def zhang_centers() -> NDArray[np.float32]:
    """Centers of the 313 in-gamut ab bins: float32 (313, 2), a and b, read-only."""
    centers = [
        (-90 + ZHANG_STEP * i, b)
        for i, (lowest, highest) in enumerate(_ZHANG_B_SPAN)
        for b in range(lowest, highest + 1, ZHANG_STEP)
    ]
    table = np.array(centers, dtype=np.float32)
    table.flags.writeable = False
    return table


@cache
def _zhang_grid() -> NDArray[np.int64]:
    # Grid cell (a / 10 + 12, b / 10 + 12) -> bin. A cell outside the list goes to its nearest member, of several as
    # near to the first: the mean of in-gamut colors can leave the gamut where that is not convex.
    side = np.arange(-120, 121, ZHANG_STEP)
    cells = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1)
    distance = ((cells[:, :, None, :] - zhang_centers().astype(np.int64)) ** 2).sum(axis=-1)
    grid: NDArray[np.int64] = distance.argmin(axis=-1)
    return grid


def zhang_from_ab(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the class of each pair of a and b: the grid point they round to, or the nearest class to that."""
    row, column = (
        np.clip(np.floor(v / np.float32(ZHANG_STEP) + np.float32(0.5)), -12, 12).astype(np.int64) + 12 for v in (a, b)
    )
    bins: NDArray[np.int64] = _zhang_grid()[row, column]
    return bins
