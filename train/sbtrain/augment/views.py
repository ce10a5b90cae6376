"""On-device augmentation: batches of bytes in, views out, every random number keyed by sample.

    views = recipe("simsiam_cifar", 32)              # what is done: a ViewSpec a view
    augment = Augment(views, seed=0)                 # a module without parameters and without state
    x1, x2 = augment(images, index, epoch)           # uint8 (B, 3, S, S), int64 (B,), int or int64 () -> float32 views
    x = plain_view(images, views[0])                 # what an evaluation sees: nothing random

A view is a function of (seed, epoch, row number, number of the view), to the bit: of no batch, rank or restart. Nothing
waits for the device and shapes are fixed, so a CUDA graph can hold it. Every sum is over one image's pixels in one
order; there is no matrix product, so neither TF32 nor autocast reach it.

Axes: B images, S x S pixels stored, s x s pixels of a view.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sbformat.errors import ConfigError
from sbtrain.augment.color import JITTER_DRAWS, Jitter, drawn_jitter, grayed, jittered, slot_table, solarized
from sbtrain.augment.crop import CROP_DRAWS, Taps, blurring, crop_boxes, resampled, resampling, turned
from sbtrain.augment.recipes import RECIPES, ViewSpec, recipe
from sbtrain.keyed import uniform

__all__ = ["RECIPES", "Augment", "ViewSpec", "plain_view", "recipe"]

#: Streams of `uniform` that corruptions do not use: a view's is this and its number.
_STREAM = 1 << 16
_MIRRORED = CROP_DRAWS
_JITTER = slice(_MIRRORED + 1, _MIRRORED + 1 + JITTER_DRAWS)
_GRAYSCALE, _BLUR, _SIGMA, _SOLARIZE = range(_JITTER.stop, _JITTER.stop + 4)
_DRAWS = _SOLARIZE + 1
#: Values of a view at a time on a CPU: a pass over them stays in its cache. And images: fewer do not pay for the calls.
_CPU_VALUES, _CPU_IMAGES = 16 << 15, 16


class Augment(nn.Module):
    """Views of samples.

    Parameters
    ----------
    views : tuple of ViewSpec
    seed : int
    """

    def __init__(self, views: tuple[ViewSpec, ...], seed: int) -> None:
        super().__init__()
        self.views, self.seed = views, seed
        self.register_buffer("slots", slot_table(), persistent=False)
        for number, view in enumerate(views):
            self.register_buffer(f"colors{number}", _normalization(view), persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor, index: Tensor, epoch: int | Tensor) -> list[Tensor]:
        """Return a float32 (B, 3, s, s) for each view.

        Parameters
        ----------
        images : uint8 (B, 3, S, S)
            RGB.
        index : int64 (B,)
            Row numbers of the samples.
        epoch : int, or int64 () on the device

        Raises
        ------
        ConfigError
            Not bytes of three channels and square.
        """
        _check(images)
        return [self._view(number, images, index, epoch) for number in range(len(self.views))]

    def _view(self, number: int, images: Tensor, index: Tensor, epoch: int | Tensor) -> Tensor:
        spec, (shift, scale) = self.views[number], self.get_buffer(f"colors{number}")
        u = uniform(index, _DRAWS, self.seed, epoch, _STREAM + number)
        jitter = drawn_jitter(u[:, _JITTER], spec, self.get_buffer("slots"))
        parts = _partition(jitter.group, max(spec.size, images.shape[-1]))
        plan = _planned(u[parts.order], jitter[parts.order], spec, images.shape[-1])
        out = images.new_empty((len(images), 3, spec.size, spec.size), dtype=torch.float32)
        for k, ends in enumerate(parts.ends):
            some = slice(k * parts.size, (k + 1) * parts.size)
            views = out[some]
            _make(images[some], (parts.order - k * parts.size)[some], parts.place[some], plan[some], ends, spec, views)
            views.mul_(scale).add_(shift)
        return out


@dataclass(frozen=True)
class _Parts:
    """How a batch is cut: into consecutive parts, each sorted by `Jitter.group`."""

    size: int
    order: Tensor
    """int64 (B,): which image of the batch"""
    place: Tensor
    """int64 (B,): where in its sorted part image b is"""
    ends: list[list[int] | None]
    """As of `jittered`, for each part."""


def _partition(group: Tensor, size: int) -> _Parts:
    count = len(group)
    number = torch.arange(count, device=group.device)
    if group.device.type != "cpu":
        return _Parts(count, number, number, [None])
    at_once = max(_CPU_IMAGES, _CPU_VALUES // (3 * size**2))
    part = number // at_once
    order = torch.argsort(part * 5 + group, stable=True)
    ends = torch.bincount(part * 5 + group, minlength=5 * -(-count // at_once)).view(-1, 5).cumsum(1)
    return _Parts(at_once, order, torch.argsort(order) % at_once, ends.tolist())


@dataclass(frozen=True)
class _Plan:
    """What is drawn for each image."""

    rows: Taps
    columns: Taps
    jitter: Jitter
    grayscale: Tensor
    """float32 (B,): 1 or 0"""
    blur: Taps | None
    solarize: Tensor

    def __getitem__(self, some: slice) -> _Plan:
        blur = None if self.blur is None else self.blur[some]
        parts = self.rows[some], self.columns[some], self.jitter[some]
        return _Plan(*parts, self.grayscale[some], blur, self.solarize[some])


def _planned(u: Tensor, jitter: Jitter, spec: ViewSpec, size: int) -> _Plan:
    box = crop_boxes(u, size, spec.scale, spec.ratio)
    mirrored = _share(u[:, _MIRRORED], spec.flip)
    blur = None
    if spec.blur_probability:
        sigma = spec.sigma[0] + (spec.sigma[1] - spec.sigma[0]) * u[:, _SIGMA]
        blur = blurring(sigma, _share(u[:, _BLUR], spec.blur), size=spec.size, radius=spec.radius)
    return _Plan(
        rows=resampling(box.top, box.height, None, size, spec.size, spec.interpolation),
        columns=resampling(box.left, box.width, mirrored, size, spec.size, spec.interpolation),
        jitter=jitter,
        grayscale=_share(u[:, _GRAYSCALE], spec.grayscale),
        blur=blur,
        solarize=_share(u[:, _SOLARIZE], spec.solarize),
    )


def _make(
    images: Tensor, order: Tensor, place: Tensor, plan: _Plan, ends: list[int] | None, spec: ViewSpec, out: Tensor
) -> None:
    """Write a view of each image to `out`, float32 (B, 3, s, s), in [0, 1]."""
    x = resampled(images, order, plan.rows, plan.columns)
    if spec.jitter:
        jittered(x, plan.jitter, ends, spec.hue)
    if spec.grayscale:
        grayed(x, plan.grayscale)
    turned(x, place, plan.blur, out)
    if spec.solarize:
        solarized(out, plan.solarize[place])


def _share(u: Tensor, probability: float) -> Tensor:
    return (u < probability).float()


@torch.no_grad()
def plain_view(images: Tensor, view: ViewSpec, part: float = 1.0) -> Tensor:
    """Return float32 (B, 3, s, s): the images at the size of `view`, normalized as it is, nothing random.

    Parameters
    ----------
    images : uint8 (B, 3, S, S)
        RGB.
    view : ViewSpec
        Its size, interpolation, mean and std count.
    part : float
        Of the sides, the center: 224 / 256 for the usual "resize to 256, crop 224".

    Raises
    ------
    ConfigError
        Not bytes of three channels and square.
    """
    _check(images)
    size = images.shape[-1]
    side = images.new_full((len(images),), size * part, dtype=torch.float32)
    taps = resampling((size - side) / 2, side, None, size, view.size, view.interpolation, whole=True)
    order = torch.arange(len(images), device=images.device)
    out = images.new_empty((len(images), 3, view.size, view.size), dtype=torch.float32)
    turned(resampled(images, order, taps, taps), order, None, out)
    shift, scale = _normalization(view).to(images.device)
    return out.mul_(scale).add_(shift)


def _normalization(view: ViewSpec) -> Tensor:
    """Return shift and scale, float32 (2, 3, 1, 1): (x - mean) / std = shift + scale x."""
    mean, std = torch.tensor([view.mean, view.std], dtype=torch.float64)
    return torch.stack([-mean / std, 1 / std]).float().view(2, 3, 1, 1)


def _check(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ConfigError(
            f"images of {images.dtype}, {tuple(images.shape)}, expected bytes of RGB images, (B, 3, S, S). Build such "
            f"shards: sbprep build --colorspace rgb"
        )
