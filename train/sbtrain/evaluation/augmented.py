"""Images of a labeled split as an evaluation sees them: other views in every pass, or the center alone.

Views are made of the stored bytes and become bytes again, as they are where images come from files: so every network takes
them, whatever it does with bytes.

Axes: B images, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from sbtrain.augment.views import Augment, ViewSpec, plain_view, recipe
from sbtrain.data import Batch, Rows
from sbtrain.evaluation.labeled import Source
from sbtrain.methods import Method


@dataclass(frozen=True)
class Augmented:
    """Views of a source's images, and of them features where `encode` is there.

    Parameters
    ----------
    images : Source
    augment : Augment
        Of one view.
    encode : callable, optional
        Batch of images -> (B, D): batches then bring ``feature`` instead.
    """

    images: Source
    augment: nn.Module
    encode: Callable[[Batch], Tensor] | None = None

    def batch(self, rows: Rows, epoch: int) -> Batch:
        """Return the views of `rows` (B,) in a pass."""
        batch = self.images.batch(rows)
        view = self.augment(batch["image"], batch.index, epoch)[0]
        batch = _with_image(batch, view)
        if self.encode is None:
            return batch
        return replace(batch, fields={"feature": self.encode(batch).float(), "label": batch["label"]})


class Centered:
    """A source whose images are their center, brought to the size that the network sees.

    Parameters
    ----------
    images : Source
    size : int
        Pixels of a side.
    part : float
        Of the sides.
    """

    def __init__(self, images: Source, size: int, part: float) -> None:
        self.labels = images.labels
        self._images, self._view, self._part = images, _raw(ViewSpec(size=size)), part

    def batch(self, rows: Rows) -> Batch:
        """Return `rows` (B,)."""
        batch = self._images.batch(rows)
        return _with_image(batch, plain_view(batch["image"], self._view, self._part))


def views_of(name: str, size: int, seed: int) -> Augment:
    """Return what makes views of `size` pixels, values from 0 to 1, by a recipe of one view."""
    return Augment((_raw(recipe(name, size)[0]),), seed)


def seen_size(method: Method, stored: int) -> int:
    """Return the pixels of a side that a method's networks see of images of `stored` pixels."""
    sizes: tuple[int, ...] = getattr(method.inputs, "sizes", (stored,))
    return sizes[0]


def _raw(view: ViewSpec) -> ViewSpec:
    return replace(view, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def _with_image(batch: Batch, view: Tensor) -> Batch:
    return replace(batch, fields={**batch.fields, "image": (view * 255).round().byte()})
