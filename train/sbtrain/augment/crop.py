"""Where a view is cut out, and weighted sums of few pixels: resampling, mirroring and blur.

Both directions of a resampling are the same thing: each output row is a sum of T input rows, with indices and weights
of its own. `embedding_bag` is that sum in one pass: at 96 x 96 three times as fast as products with (s, S) matrices,
transpositions included (docs/benchmarks.md), and each row is summed by itself, in order, so no bit depends on the batch
around it. Between the two directions the image is transposed.

Axes: B images, S x S pixels stored, s x s pixels of a view, T taps of a sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sbtrain.augment.recipes import Interpolation

TRIES = 10
#: Random numbers of a crop: area and ratio of each try, and its place.
CROP_DRAWS = 2 * TRIES + 2
#: Pixels that a filter reaches to each side when it enlarges.
SUPPORT = {"bilinear": 1, "bicubic": 2}


@dataclass(frozen=True)
class Boxes:
    """Crops, in pixels of the stored image: float32 (B,) each."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


@dataclass(frozen=True)
class Taps:
    """Sums of T rows: output row i is the sum over t of weight[b, i, t] * row index[b, i, t]."""

    index: Tensor
    """int64 (B, s, T)"""
    weight: Tensor
    """float32 (B, s, T)"""

    def __getitem__(self, some: slice) -> Taps:
        return Taps(self.index[some], self.weight[some])


def crop_boxes(u: Tensor, size: int, scale: tuple[float, float], ratio: tuple[float, float]) -> Boxes:
    """Return the boxes of random resized crops, torchvision's algorithm with all its tries drawn at once.

    The first of ten tries that fits the image counts; if none does, the largest central box of an allowed ratio.

    Parameters
    ----------
    u : float32 (B, 22 or more)
        In (0, 1): areas and ratios of the tries, top, left.
    size : int
        Pixels of a side of the stored image.
    scale, ratio
        Of `ViewSpec`.
    """
    area = (scale[0] + (scale[1] - scale[0]) * u[:, :TRIES]) * size**2
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * u[:, TRIES : 2 * TRIES])
    width, height = torch.round(torch.sqrt(area * aspect)), torch.round(torch.sqrt(area / aspect))
    fits = (width > 0) & (width <= size) & (height > 0) & (height <= size)
    first = (fits.cumsum(1) == 1) & fits
    none = ~fits.any(1)
    within = min(max(1.0, ratio[0]), ratio[1])
    width = (width * first).sum(1) + none * round(size * min(within, 1))
    height = (height * first).sum(1) + none * round(size / max(within, 1))
    top, left = (torch.floor(u[:, k] * (size - side + 1)) for k, side in ((2 * TRIES, height), (2 * TRIES + 1, width)))
    central_top, central_left = torch.floor((size - height) / 2), torch.floor((size - width) / 2)
    return Boxes(torch.where(none, central_top, top), torch.where(none, central_left, left), height, width)


def resampling(
    start: Tensor,
    length: Tensor,
    mirrored: Tensor | None,
    size: int,
    view: int,
    interpolation: Interpolation,
    whole: bool = False,
) -> Taps:
    """Return the sums that bring pixels [start, start + length) of a row of `size` to `view` pixels.

    The filter is as wide as an output pixel where it shrinks (antialiased), and pixels outside the box count nothing,
    as in PIL and in torchvision's `resized_crop`.

    Parameters
    ----------
    start, length : float32 (B,)
    mirrored : float32 (B,), optional
        1 or 0; none: 0.
    size, view : int
        S and s.
    interpolation : {"bilinear", "bicubic"}
        The cubic with a = -0.5, PIL's.
    whole : bool
        Pixels outside the box, but inside the image, count too: a crop out of a resized image.
    """
    j = torch.arange(view, device=start.device, dtype=torch.float32)
    if mirrored is not None:
        j = j + mirrored[:, None] * (view - 1 - 2 * j)
    step = (length / view)[:, None]  # (B, 1)
    wide = step.clamp(min=1)
    begin, end = (start * 0, start * 0 + size) if whole else (start, start + length)
    center = start[:, None] + (j + 0.5) * step  # (B, s)
    first = torch.floor(center - SUPPORT[interpolation] * wide + 0.5)
    count = math.ceil(2 * SUPPORT[interpolation] * max(1.0, size / view))
    pixel = first[..., None] + torch.arange(count, device=start.device)  # (B, s, T)
    begin, end = begin[:, None, None], end[:, None, None]
    weight = _filter((pixel + 0.5 - center[..., None]) / wide[..., None], interpolation)
    weight = weight * ((pixel >= begin) & (pixel < end))
    return Taps(pixel.maximum(begin).minimum(end - 1).long(), weight / weight.sum(2, keepdim=True))


def _filter(x: Tensor, interpolation: Interpolation) -> Tensor:
    x = x.abs()
    if interpolation == "bilinear":
        return (1 - x).clamp(min=0)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, far * (x < 2))


def blurring(sigma: Tensor, applied: Tensor, *, size: int, radius: int) -> Taps:
    """Return the sums of a Gaussian blur, mirrored at the borders without repeating them, as torchvision's.

    Parameters
    ----------
    sigma : float32 (B,)
        In pixels.
    applied : float32 (B,)
        1 or 0: a sum of one pixel, itself.
    size, radius : int
        Pixels of a row, and to each side.
    """
    offset = torch.arange(-radius, radius + 1, device=sigma.device)
    bell = torch.exp(-0.5 * (offset / sigma[:, None]) ** 2)
    bell = bell / bell.sum(1, keepdim=True) * applied[:, None] + (offset == 0) * (1 - applied[:, None])
    place = (torch.arange(size, device=sigma.device)[:, None] + offset).abs()
    place = size - 1 - (size - 1 - place).abs()
    count = len(sigma)
    return Taps(place.expand(count, -1, -1), bell[:, None].expand(-1, size, -1))


def resampled(images: Tensor, order: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Return float32 (3, B, s, s) in [0, 1], planes transposed: the last axis counts the view's rows.

    Parameters
    ----------
    images : uint8 (B, 3, S, S)
    order : int64 (B,)
        Image b of the result is image order[b].
    rows, columns : Taps
        Of the result.
    """
    count, _, size, _ = images.shape
    x = images.reshape(-1, size).float()  # (B 3 S, S)
    planes = torch.arange(3, device=x.device)[:, None] + order * 3  # (3, B)
    x = _sums(x, planes[..., None, None] * size + rows.index, rows.weight * (1 / 255))  # (3 B s, S)
    x = x.t().contiguous().view(size * 3 * count, -1)  # (S 3 B, s)
    x = _sums(x, columns.index * (3 * count) + _numbers(3, count, x), columns.weight)  # (3 B s, s)
    return x.clamp_(0, 1).view(3, count, columns.index.shape[1], -1)


def turned(x: Tensor, place: Tensor, blur: Taps | None, out: Tensor) -> None:
    """Write planes the right way round, blurred along both axes, each image where it belongs.

    Parameters
    ----------
    x : float32 (3, B, s, s)
        Of `resampled`.
    place : int64 (B,)
        Image b of `out` is image place[b].
    blur : Taps, optional
        In the order of x; the same for each row.
    out : float32 (B, 3, s, s)
    """
    _, count, size, _ = x.shape
    if blur is not None:
        x = _sums(x.view(-1, size), _numbers(3, count, x) * size + blur.index, blur.weight)
    x = x.view(-1, size).t().contiguous().view(-1, size)  # (s 3 B, s)
    planes = torch.arange(3, device=x.device) * count + place[:, None]  # (B, 3)
    if blur is None:
        every = torch.arange(size, device=x.device) * (3 * count)
        torch.index_select(x, 0, (planes[..., None] + every).flatten(), out=out.view(-1, size))
    else:
        index = blur.index[:1, None] * (3 * count) + planes[..., None, None]  # (B, 3, s, T)
        out.view(-1, size).copy_(_sums(x, index, blur.weight[place, None]))


def _numbers(first: int, second: int, x: Tensor) -> Tensor:
    """Return 0, 1, ... as int64 (first, second, 1, 1) on the device of x."""
    return torch.arange(first * second, device=x.device).view(first, second, 1, 1)


def _sums(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Return (n, D): sums of rows of `table` (rows, D), by n times T indices and weights that extend to them."""
    taps = index.shape[-1]
    weight = weight.expand(index.shape).reshape(-1, taps)
    return functional.embedding_bag(index.reshape(-1, taps), table, mode="sum", per_sample_weights=weight)
