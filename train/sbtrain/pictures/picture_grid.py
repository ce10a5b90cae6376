"""Pictures side by side, a row an image: pixels repeated to one size, thin gaps, a heading over each column."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sbtrain.pictures.figures import new_figure

Pixels = NDArray[np.uint8]

#: Pixels a picture takes at least, so that each of 12 x 12 cells is easily seen.
TILE = 144
GAP = 4
HEADING = 26
_DPI = 100


def grid(columns: dict[str, Pixels]) -> Pixels:
    """Put pictures side by side.

    Parameters
    ----------
    columns : dict
        Heading -> uint8 (N, h, w, 3): N pictures, of any size in each column.

    Returns
    -------
    uint8 (H, W, 3), on white
    """
    stacks = list(columns.values())
    tile = _tile([stack.shape[1] for stack in stacks])
    step, rows = tile + GAP, len(stacks[0])
    sheet = np.full((rows * step, len(stacks) * step + GAP, 3), 255, np.uint8)
    for c, stack in enumerate(stacks):
        for r, picture in enumerate(stack):
            y, x = r * step, GAP + c * step
            sheet[y : y + tile, x : x + tile] = enlarged(picture, tile)
    return np.concatenate([_headings(list(columns), step, sheet.shape[1]), sheet])


def enlarged(picture: Pixels, size: int) -> Pixels:
    """Repeat the pixels of uint8 (h, w, 3) to size x size: every cell stays a square with edges."""
    height, width = picture.shape[:2]
    at = np.arange(size)
    repeated: Pixels = picture[at * height // size][:, at * width // size]
    return repeated


def _tile(sizes: Sequence[int]) -> int:
    # A multiple of the largest, so that its pixels stay of one size; of all of them where that is not far.
    common = int(np.lcm.reduce(list(sizes)))
    unit = common if common <= 2 * TILE else max(sizes)
    return unit * -(-TILE // unit)


def _headings(texts: list[str], step: int, width: int) -> Pixels:
    figure, (axes,) = new_figure(width / _DPI, HEADING / _DPI)
    axes.set_axis_off()
    for column, text in enumerate(texts):
        figure.text((GAP + column * step + step / 2) / width, 0.5, text, ha="center", va="center", fontsize=9)
    file = io.BytesIO()
    figure.savefig(file, format="rgba", dpi=_DPI, facecolor="white")
    return np.frombuffer(file.getvalue(), np.uint8).reshape(HEADING, width, 4)[..., :3]
