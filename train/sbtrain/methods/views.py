"""What SimSiam and Self-Classifier see: augmented views of color images, or the plain image.

Axes: B images, V views, s x s pixels of a view, D features.
"""

from __future__ import annotations

from itertools import groupby
from typing import ClassVar

import torch
from torch import Tensor, nn

from sbformat.errors import ConfigError
from sbformat.manifest import Manifest
from sbtrain.augment.views import Augment, plain_view, recipe
from sbtrain.data import Batch
from sbtrain.methods.seen import Seen
from sbtrain.networks.backbones import Backbone
from sbtrain.networks.dropout import DropoutKey, set_dropout_key

#: Views of an image that have keys of their own.
_MOST_VIEWS = 64


class Views(nn.Module):
    """A batch's augmented views, each a function of (seed, epoch, row, view).

    Parameters
    ----------
    manifest : Manifest
        Of color images, colorspace rgb.
    augmentation : str
        Name of a recipe, `sbtrain.augment.recipes.RECIPES`.
    size : int
        Pixels of a side of the global views; local ones keep their share of it. 0: of the stored images.
    seed : int

    Raises
    ------
    ConfigError
        The shards hold another color space, or there is no such recipe.
    """

    def __init__(self, manifest: Manifest, augmentation: str, size: int, seed: int) -> None:
        super().__init__()
        if manifest.colorspace != "rgb":
            raise ConfigError(
                f"{manifest.root} holds {manifest.colorspace}, whose channels are no colors to augment: simsiam and "
                f"self_classifier see rgb. Use --colorspace rgb, or build it: sbprep build --colorspace rgb"
            )
        specs = recipe(augmentation, size or manifest.image_size)
        self.augment, self._plain = Augment(specs, seed), specs[0]
        self.seed, self.augmentation = seed, augmentation
        self.sizes = tuple(dict.fromkeys(spec.size for spec in specs))
        """Sizes that occur, the global one first."""
        self.count = len(specs)
        """Number of views V."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """Datasets that a batch must bring."""
        return ("image",)

    def forward(self, batch: Batch) -> list[Tensor]:
        """Return V views, float32 (B, 3, s, s) each."""
        return self.augment(batch["image"], batch.index, batch.epoch)  # type: ignore[no-any-return]

    def plain(self, batch: Batch) -> Tensor:
        """Return the images at the size of the global views, nothing random, float32 (B, 3, s, s)."""
        return plain_view(batch["image"], self._plain)

    def embed(self, backbone: Backbone, views: list[Tensor], batch: Batch, first: int = 0) -> Tensor:
        """Return features (V B, D) of `views`, one after the other; those of one size take one pass together.

        `first` is the number of the first of them: of the keys of dropout.
        """
        found = []
        for _, group in groupby(views, key=lambda view: view.shape[-1]):
            together = list(group)
            keys = [batch.index * _MOST_VIEWS + first + i for i in range(len(together))]
            set_dropout_key(backbone, DropoutKey(torch.cat(keys), batch.epoch, self.seed))
            found.append(backbone(torch.cat(together)))
            first += len(together)
        set_dropout_key(backbone, None)
        return torch.cat(found)


class OnViews(nn.Module):
    """A method that learns from views: its backbone, and its features of plain images.

    Parameters
    ----------
    backbone : Backbone
    views : Views
    """

    projection: ClassVar[str]
    """Name of the module that makes of features what the loss compares."""

    def __init__(self, backbone: Backbone, views: Views) -> None:
        super().__init__()
        self.inputs, self.backbone = views, backbone
        self.seen: Seen | None = None

    @property
    def datasets(self) -> tuple[str, ...]:
        """Datasets that a batch must bring."""
        return self.inputs.datasets

    def features(self, batch: Batch, layer: str = "backbone") -> Tensor:
        """Return the named layer's output of the plain images: (B, D), or maps (B, C, h, w)."""
        x = self.inputs.plain(batch)
        if layer == "projection":
            projected: Tensor = self.get_submodule(self.projection)(self.backbone(x))
            return projected
        return self.backbone.until(x, layer)

    def layers(self) -> list[str]:
        """Return the names that `features` takes; the last one is what evaluation looks at."""
        return [*self.backbone.layers()[:-1], "projection", "backbone"]
