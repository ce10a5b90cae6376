"""What a pretraining method makes of images, as colors: the columns of a picture, and numbers.

Axes: N images, S x S pixels, t x t target cells, 3 channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sbformat.errors import ConfigError
from sbformat.manifest import Manifest
from sbformat.schema import fixed_range, values_from_bins, values_from_image
from sbtrain.batch import Batch
from sbtrain.corrupt import corrupt
from sbtrain.methods import Denoising, SplitBrain
from sbtrain.pictures.decoding import (
    Decode,
    Values,
    color_difference,
    rgb_from_values,
    values_from_inputs,
    values_from_logits,
)
from sbtrain.pictures.picture_grid import Pixels
from sbtrain.runtime import RunError

DECODES: dict[Decode, str] = {"argmax": "arg-max", "expectation": "expectation"}


@dataclass(frozen=True)
class View:
    """What a method makes of N images."""

    columns: dict[str, Pixels]
    """Heading -> uint8 (N, h, w, 3)."""
    distorted: dict[str, Pixels] = field(default_factory=dict)
    """The same of re-scaled targets, decoded by the fixed range instead of each image's own."""
    scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Name -> one number an image, (N,)."""
    bins: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Target name -> classes that the images have, (N, t, t)."""


def datasets_of(method: Any, manifest: Manifest) -> tuple[str, ...]:
    """Return the datasets that `view` needs.

    Raises
    ------
    ConfigError
        The method reconstructs nothing.
    """
    if not isinstance(method, SplitBrain | Denoising):
        raise ConfigError(
            f"method {type(method).__name__} reconstructs nothing. Give a run of split_brain or denoising: --run DIR"
        )
    names = ["image", "source_index", *method.datasets]
    if manifest.colorspace == "rescaled_lab":
        names += ["image_range", "target_range"]
    return tuple(dict.fromkeys(names))


@torch.no_grad()
def view(method: SplitBrain | Denoising, manifest: Manifest, batch: Batch, decodes: Sequence[Decode]) -> View:
    """Run the method on a batch that has `datasets_of` it.

    Raises
    ------
    RunError
        The network's outputs are not finite.
    """
    ranges = batch["image_range"].cpu().numpy() if "image_range" in batch.fields else None
    original = values_from_image(batch["image"].cpu().numpy(), manifest.colorspace, ranges)
    if isinstance(method, Denoising):
        return _denoised(method, manifest, batch, original, ranges)
    if method.kind == "regression":
        return _regressed(method, manifest, batch, original, ranges)
    return _classified(method, manifest, batch, original, ranges, decodes)


def _classified(
    method: SplitBrain,
    manifest: Manifest,
    batch: Batch,
    original: Values,
    ranges: Values | None,
    decodes: Sequence[Decode],
) -> View:
    space, target = manifest.colorspace, manifest.target
    single, dual = _outputs(method, batch)
    bins = {name: batch[name].cpu().numpy() for name in ("target_single", "target_dual")}
    spans = {"stored": fixed_range(space)}
    if "target_range" in batch.fields:
        spans = {"stored": batch["target_range"].cpu().numpy(), "fixed": fixed_range(space)}
    columns: dict[str, dict[str, Pixels]] = {}
    scores = {}
    downsized = _downsized(method, manifest, batch, ranges)
    for kind, span in spans.items():
        wanted = values_from_bins(bins["target_single"], bins["target_dual"], span, target)
        columns[kind] = {
            "original": rgb_from_values(original, space),
            f"{target.size} × {target.size} means": rgb_from_values(downsized, space),
            f"{target.size} × {target.size} target": rgb_from_values(wanted, space),
        }
        for decode in decodes:
            found = values_from_logits(single, dual, span, target, decode)
            columns[kind][DECODES[decode]] = rgb_from_values(found, space)
            if kind == "stored":
                scores[f"delta_e_{decode}"] = color_difference(found, wanted, space).mean(axis=(1, 2))
    for name, logits in (("target_single", single), ("target_dual", dual)):
        right = logits.argmax(1).cpu().numpy() == bins[name]
        scores[f"right_{name.removeprefix('target_')}"] = right.mean(axis=(1, 2), dtype=np.float64)
    return View(columns["stored"], columns.get("fixed", {}), scores, bins)


def _regressed(method: SplitBrain, manifest: Manifest, batch: Batch, original: Values, ranges: Values | None) -> View:
    space, t = manifest.colorspace, manifest.target.size
    single, dual = _outputs(method, batch)
    wanted = _downsized(method, manifest, batch, ranges)
    found = values_from_inputs(torch.cat([single, dual], dim=1), method.inputs, manifest, ranges)
    columns = {
        "original": rgb_from_values(original, space),
        f"{t} × {t} means": rgb_from_values(wanted, space),
        "regression": rgb_from_values(found, space),
    }
    return View(columns, scores={"delta_e_regression": color_difference(found, wanted, space).mean(axis=(1, 2))})


def _denoised(method: Denoising, manifest: Manifest, batch: Batch, original: Values, ranges: Values | None) -> View:
    space = manifest.colorspace
    clean = method.inputs(batch)
    noisy = corrupt(clean, batch.index, method.noise, method.level, method.seed, 0)
    corrupted, found = (
        values_from_inputs(x, method.inputs, manifest, ranges)
        for x in (noisy, _finite(torch.sigmoid(method.network(noisy))))
    )
    columns = {
        "original": rgb_from_values(original, space),
        "corrupted": rgb_from_values(corrupted, space),
        "reconstructed": rgb_from_values(found, space),
    }
    scores = {
        f"delta_e_{name}": color_difference(values, original, space).mean(axis=(1, 2))
        for name, values in (("corrupted", corrupted), ("reconstructed", found))
    }
    return View(columns, scores=scores)


def _outputs(method: SplitBrain, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return what F2 says of the single channel and F1 of the dual ones: (N, Q, t, t) each."""
    x = method.inputs(batch)
    return _finite(method.F2(x[:, 1:])), _finite(method.F1(x[:, :1]))


def _finite(output: Tensor) -> Tensor:
    if not output.isfinite().all():
        raise RunError("the network's outputs are not finite: nothing to show. Train it again, at a lower --lr")
    return output.float()


def _downsized(method: SplitBrain, manifest: Manifest, batch: Batch, ranges: Values | None) -> Values:
    """Return the means of the cells of the target, before they are put into bins."""
    means = functional.adaptive_avg_pool2d(method.inputs(batch), manifest.target.size)
    return values_from_inputs(means, method.inputs, manifest, ranges)
