"""From outputs of a network back to colors: the inverse of target maps and of inputs.

Axes: N images, Q classes, t x t target cells, 3 channels.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sbformat.colorimetry import lab_from_rgb, rgb_from_lab
from sbformat.manifest import Manifest
from sbformat.schema import Colorspace, TargetSpec, values_from_bins, values_from_image
from sbtrain.inputs import Inputs

Decode = Literal["argmax", "expectation"]
Values = NDArray[np.float32]

_UNIT_RANGE = np.array([[0.0, 1.0]] * 3, np.float32)


def values_from_logits(
    single: Tensor, dual: Tensor, value_range: Values, target: TargetSpec, decode: Decode = "argmax"
) -> Values:
    """Turn what both halves say of each cell into one color.

    Parameters
    ----------
    single : float32 (N, Q of the single channel, t, t)
        Logits of F2.
    dual : float32 (N, Q of the dual channels, t, t)
        Logits of F1.
    value_range : float32 (3, 2) or (N, 3, 2)
        What the bins span.
    target : TargetSpec
    decode : {"argmax", "expectation"}
        The center of the most likely bin, or the mean of all centers, weighted by their probabilities (softmax).

    Returns
    -------
    float32 (N, 3, t, t), in the units of the color space
    """
    if decode == "argmax":
        return values_from_bins(_numpy(single.argmax(1)), _numpy(dual.argmax(1)), value_range, target)
    single_centers, dual_centers = unit_centers(target)
    first = np.einsum("nqij,q->nij", _numpy(single.softmax(1)), single_centers)
    others = np.einsum("nqij,qc->ncij", _numpy(dual.softmax(1)), dual_centers)
    means: Values = np.concatenate([first[:, None], others], axis=1).astype(np.float32)
    if target.bins == "zhang":  # their centers are Lab already
        return means
    low, high = value_range[..., 0, None, None], value_range[..., 1, None, None]
    decoded: Values = low + means * (high - low)
    return decoded


def unit_centers(target: TargetSpec) -> tuple[Values, Values]:
    """Return the center of every class: (Q,) of the single channel, (Q, 2) of the dual ones.

    Where a range of [0, 1] is cut into uniform bins; in Lab for ``zhang``, whose bins have no range.
    """
    single, dual = np.arange(target.single_classes)[None, None], np.arange(target.dual_classes)[None, None]
    of_single = values_from_bins(single, np.zeros_like(single), _UNIT_RANGE, target)[0, 0, 0]
    of_dual = values_from_bins(np.zeros_like(dual), dual, _UNIT_RANGE, target)[0, 1:, 0]
    return of_single, of_dual.T


def values_from_inputs(x: Tensor, inputs: Inputs, manifest: Manifest, image_range: Values | None) -> Values:
    """Undo `inputs`: what a network sees or predicts of it, or means of that, in the units of the color space.

    Parameters
    ----------
    x : float32 (N, 3, h, w)
    inputs : Inputs
    manifest : Manifest
        Of the shards that `inputs` reads.
    image_range : float32 (N, 3, 2), needed by `rescaled_lab` alone

    Returns
    -------
    float32 (N, 3, h, w)
    """
    levels = _numpy((x.float() - inputs.get_buffer("shift")) / inputs.get_buffer("scale"))
    return levels if inputs.by_range else values_from_image(levels, manifest.colorspace, image_range)


def rgb_from_values(values: Values, colorspace: Colorspace) -> NDArray[np.uint8]:
    """Return values (N, 3, h, w) as sRGB pixels, uint8 (N, h, w, 3); what lies outside the gamut is clipped."""
    pixels = values.transpose(0, 2, 3, 1).astype(np.float64)
    if colorspace != "rgb":
        return rgb_from_lab(pixels)
    return np.floor(np.clip(pixels, 0, 255) + 0.5).astype(np.uint8)


def color_difference(a: Values, b: Values, colorspace: Colorspace) -> NDArray[np.float64]:
    """Return the distance of the colors of two stacks (N, 3, h, w) in Lab, CIE 1976 (delta E*ab): float64 (N, h, w).

    Lab values outside the gamut stay where they are.
    """
    first, second = (_lab(values, colorspace) for values in (a, b))
    distance: NDArray[np.float64] = np.sqrt(((first - second) ** 2).sum(axis=-1))
    return distance


def _lab(values: Values, colorspace: Colorspace) -> NDArray[np.float64]:
    pixels = values.transpose(0, 2, 3, 1).astype(np.float64)
    return lab_from_rgb(np.clip(pixels, 0, 255)) if colorspace == "rgb" else pixels


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().to(device="cpu").numpy()
    return array
