"""A classifier on a layer of another method's networks: for fine-tuning, and from scratch as the control.

The split-brain report puts one linear layer on both halves' output maps, 2 x 100 x 12 x 12 numbers; the original paper
(R. Zhang, P. Isola and A. Efros, CVPR 2017, section 4.1) on any layer, resized, behind a BatchNorm without weights.

Axes: B images, C channels of the layer (both halves side by side), h x w cells, D features, Q classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sbformat.errors import ConfigError
from sbformat.manifest import Manifest
from sbtrain.data import Batch
from sbtrain.methods.denoising import Denoising
from sbtrain.methods.split_brain import SplitBrain


class Supervised(nn.Module):
    """The networks of `backbone` up to a layer, and a linear classifier.

    Parameters
    ----------
    backbone : SplitBrain or Denoising
    manifest : Manifest
        Of the images to classify.
    classes : int
    layer : str, optional
        One of ``backbone.layers()``; the last, its output maps, by default.
    pool : int
        Average the layer to pool x pool cells, 1 for the global average; 0: take it as it is.
    standardize : bool
        Bring each feature to mean 0 and variance 1 before the linear layer.

    Raises
    ------
    ConfigError
        There is no such layer, or it has fewer cells.
    """

    def __init__(
        self,
        backbone: SplitBrain | Denoising,
        manifest: Manifest,
        classes: int,
        layer: str | None = None,
        pool: int = 0,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, self.pool = backbone, pool
        self.layer = layer or backbone.layers()[-1]
        if self.layer not in backbone.layers():
            raise ConfigError(f"layer {layer!r}, expected one of {', '.join(backbone.layers())}")
        C, h, w = layer_shape(backbone, manifest, self.layer)
        if pool > min(h, w):
            raise ConfigError(f"pool {pool}, but {self.layer} has {h} x {w} cells. Use --pool {min(h, w)} or less")
        self.head = linear_head(C * (pool * pool if pool else h * w), classes, standardize)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Datasets that a batch must bring."""
        return (*self.backbone.inputs.datasets, "label")

    def features(self, batch: Batch) -> Tensor:
        """Return what the classifier sees: (B, D)."""
        maps = self.backbone.features(batch, self.layer)  # (B, C, h, w)
        if self.pool:
            maps = functional.adaptive_avg_pool2d(maps, self.pool)
        return maps.flatten(1)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits (B, Q)."""
        logits: Tensor = self.head(self.features(batch))
        return logits

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy of the labels, a scalar."""
        return functional.cross_entropy(self(batch).float(), batch["label"].long()), {}


def linear_head(features: int, classes: int, standardize: bool) -> nn.Sequential:
    """Build the classifier of (B, features)."""
    linear = nn.Linear(features, classes)
    return nn.Sequential(nn.BatchNorm1d(features, affine=False), linear) if standardize else nn.Sequential(linear)


def layer_shape(backbone: SplitBrain | Denoising, manifest: Manifest, layer: str) -> tuple[int, int, int]:
    """Return (C, h, w) of a layer for the images of `manifest`."""
    names = backbone.inputs.datasets
    specs = next(manifest.datasets(split) for split in manifest.splits)
    device = next(backbone.parameters()).device
    zeros = {name: torch.zeros((1, *specs[name].row_shape), dtype=torch.uint8, device=device) for name in names}
    mode = backbone.training
    backbone.eval()
    with torch.no_grad():
        maps = backbone.features(Batch(torch.zeros(1, dtype=torch.int64, device=device), zeros), layer)
    backbone.train(mode)
    return int(maps.shape[1]), int(maps.shape[2]), int(maps.shape[3])
