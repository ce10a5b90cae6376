"""The recipe, pure: sRGB images in, the arrays of a shard out. No file is touched here.

Axes: N images, S x S pixels, t x t target cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbformat.colorimetry import linear_from_srgb
from sbformat.schema import (
    STORED_OFFSET,
    STORED_SCALE,
    Colorspace,
    TargetSpec,
    bins_from_values,
    class_dtype,
    fixed_range,
)
from sbprep import _kernels
from sbprep.areas import area_weights

#: Lab units. A channel of an image that spans less is constant. The grays of the color convention spread over 0.0025 in
#: a and 0.0047 in b; one 8-bit code away from a gray moves both by at least 0.26 (docs/color.md).
CONSTANT_SPAN = 0.02


@dataclass(frozen=True, kw_only=True)
class Block:
    """N converted images, in the arrays that a shard stores (docs/format.md), and sums for the statistics."""

    image: NDArray[np.uint8]
    """(N, 3, S, S)"""
    target_single: NDArray[Any]
    """u1 or u2 (N, t, t)"""
    target_dual: NDArray[Any]
    """u1 or u2 (N, t, t)"""
    image_range: NDArray[np.float32] | None = None
    """(N, 3, 2); `rescaled_lab` only"""
    target_range: NDArray[np.float32] | None = None
    """(N, 3, 2); `rescaled_lab` only"""
    sums: NDArray[np.int64]
    """(3, 2): sum and sum of squares of the stored values of each channel"""


def convert(
    rgb: NDArray[np.uint8], colorspace: Colorspace, target: TargetSpec, out: NDArray[np.uint8] | None = None
) -> Block:
    """Convert a block of images to one color space, with its target maps.

    Parameters
    ----------
    rgb : uint8 (N, S, S, 3), sRGB, C-contiguous
    colorspace : {"rgb", "lab", "rescaled_lab"}
    target : TargetSpec
    out : uint8 (N, 3, S, S), optional
        Where the block's `image` goes. A caller that reuses it spares the page faults of fresh memory, 8 us an image.

    Returns
    -------
    Block

    Raises
    ------
    ValueError
        `rgb` or `out` has another shape or dtype.
    """
    if rgb.ndim != 4 or rgb.shape[1] != rgb.shape[2] or rgb.shape[3] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"rgb is {rgb.dtype} {rgb.shape}, expected uint8 (N, S, S, 3)")
    images, size, t = rgb.shape[0], rgb.shape[1], target.size
    first, weights = area_weights(size, t)
    planes, scratch = np.empty((3, size, size), np.float32), np.empty((2, size), np.float32)
    stored = np.empty((images, 3, size, size), np.uint8) if out is None else out
    if stored.shape != (images, 3, size, size) or stored.dtype != np.uint8:
        raise ValueError(f"out is {stored.dtype} {stored.shape}, expected uint8 {(images, 3, size, size)}")
    means = np.empty((images, 3, t, t), np.float32)
    sums = np.zeros((3, 2), np.int64)
    if colorspace != "rescaled_lab":
        low, scale = _fixed_encoding(colorspace)
        is_lab = colorspace == "lab"
        _kernels.convert_fixed(
            rgb, _linear_table(), is_lab, low, scale, first, weights, planes, scratch, stored, means, sums
        )
        single, dual = _targets(means, fixed_range(colorspace), target)
        return Block(image=stored, target_single=single, target_dual=dual, sums=sums)
    ranges = np.empty((images, 3, 2), np.float32)
    span = np.float32(CONSTANT_SPAN)
    _kernels.convert_rescaled(rgb, _linear_table(), span, first, weights, planes, scratch, stored, ranges, means, sums)
    target_range = _target_range(means, target)
    single, dual = _targets(means, target_range, target)
    return Block(
        image=stored, target_single=single, target_dual=dual, image_range=ranges, target_range=target_range, sums=sums
    )


def _targets(
    means: NDArray[np.float32], ranges: NDArray[np.float32], target: TargetSpec
) -> tuple[NDArray[Any], NDArray[Any]]:
    if target.bins == "zhang":
        return bins_from_values(means, ranges, target)
    shape = (len(means), target.size, target.size)
    single = np.empty(shape, class_dtype(target.single_classes))
    dual = np.empty(shape, class_dtype(target.dual_classes))
    _kernels.uniform_bins(means, ranges.reshape(-1, 3, 2), target.single, target.dual, single, dual)
    return single, dual


def _target_range(means: NDArray[np.float32], target: TargetSpec) -> NDArray[np.float32]:
    """Range that each image's bins span: its own target map's, or the fixed one of L under ``rescale ab``."""
    span = np.stack([means.min(axis=(2, 3)), means.max(axis=(2, 3))], axis=-1)
    constant = span[..., 1] - span[..., 0] < np.float32(CONSTANT_SPAN)
    span[..., 1] = np.where(constant, span[..., 0], span[..., 1])
    if target.rescale == "ab":
        span[:, 0] = fixed_range("rescaled_lab")[0]
    return span


@cache
def _linear_table() -> NDArray[np.float32]:
    return linear_from_srgb(np.arange(256) / 255).astype(np.float32)


@cache
def _fixed_encoding(colorspace: Colorspace) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    # stored = value * scale + offset = (value - low) * scale
    scale, offset = np.array(STORED_SCALE[colorspace]), np.array(STORED_OFFSET[colorspace])
    return (-offset / scale).astype(np.float32), scale.astype(np.float32)
