"""A classifier on a layer of another method's networks: for fine-tuning, and from scratch as the control.

The split-brain report puts one linear layer on both halves' output maps, 2 x 100 x 12 x 12 numbers; the original paper
(R. Zhang, P. Isola and A. Efros, CVPR 2017, section 4.1) on any layer, resized, behind a BatchNorm without weights.

Axes: B images, C channels of the layer (both halves side by side), h x w cells, D features, Q classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sbformat.errors import ConfigError
from sbformat.manifest import Manifest
from sbtrain.data import Batch
from sbtrain.methods.denoising import Denoising
from sbtrain.methods.split_brain import SplitBrain
from sbtrain.networks.pooling import PoolTo


class Encoder(nn.Module):
    """The networks of a method up to a layer, its maps averaged or as they are: what a classifier sees.

    Parameters
    ----------
    backbone : SplitBrain or Denoising
    manifest : Manifest
        Of the images to classify.
    layer : str, optional
        One of ``backbone.layers()``; the last, its output maps, by default.
    pool : int
        Average the layer to pool x pool cells, 1 for the global average; 0: take it as it is.

    Raises
    ------
    ConfigError
        There is no such layer, or it has fewer cells.
    """

    def __init__(
        self, backbone: SplitBrain | Denoising, manifest: Manifest, layer: str | None = None, pool: int = 0
    ) -> None:
        super().__init__()
        self.layer = layer or backbone.layers()[-1]
        if self.layer not in backbone.layers():
            raise ConfigError(f"layer {layer!r}, this run's network has {', '.join(backbone.layers())}")
        C, h, w = layer_shape(backbone, manifest, self.layer)
        if pool > min(h, w):
            raise ConfigError(f"pool {pool}, but {self.layer} has {h} x {w} cells. Use --pool {min(h, w)} or less")
        self.backbone = backbone
        self.pool: nn.Module = PoolTo(pool) if pool else nn.Identity()
        self.width = C * (pool * pool if pool else h * w)
        """Number of features D."""

    def forward(self, batch: Batch) -> Tensor:
        """Return features (B, D)."""
        maps: Tensor = self.pool(self.backbone.features(batch, self.layer))  # (B, C, h, w)
        return maps.flatten(1)


class Classifier(nn.Module):
    """One linear layer on a batch's ``feature``, (B, D) -> logits (B, Q).

    Parameters
    ----------
    width : int
        Number of features D.
    classes : int
    standardize : bool
        Bring each feature to mean 0 and variance 1 before the linear layer.
    """

    def __init__(self, width: int, classes: int, standardize: bool = False) -> None:
        super().__init__()
        self.norm: nn.Module = nn.BatchNorm1d(width, affine=False) if standardize else nn.Identity()
        self.linear = nn.Linear(width, classes)

    def classify(self, feature: Tensor) -> Tensor:
        """Return logits (B, Q) of features (B, D)."""
        logits: Tensor = self.linear(self.norm(feature))
        return logits

    def forward(self, batch: Batch) -> Tensor:
        """Return logits (B, Q)."""
        return self.classify(batch["feature"])


class Supervised(nn.Module):
    """Encoder and classifier, all of it trained: batch of images -> logits (B, Q)."""

    def __init__(self, encoder: Encoder, classifier: Classifier) -> None:
        super().__init__()
        self.encoder, self.classifier = encoder, classifier

    def forward(self, batch: Batch) -> Tensor:
        """Return logits (B, Q)."""
        return self.classifier.classify(self.encoder(batch))


def layer_shape(backbone: SplitBrain | Denoising, manifest: Manifest, layer: str) -> tuple[int, int, int]:
    """Return (C, h, w) of a layer for the images of `manifest`."""
    specs = manifest.datasets(next(iter(manifest.splits)))
    device = next(backbone.parameters()).device
    zeros = {
        name: torch.zeros((1, *specs[name].row_shape), dtype=torch.uint8, device=device)
        for name in backbone.inputs.datasets
    }
    mode = backbone.training
    backbone.eval()
    with torch.no_grad():
        maps = backbone.features(Batch(torch.zeros(1, dtype=torch.int64, device=device), zeros), layer)
    backbone.train(mode)
    return int(maps.shape[1]), int(maps.shape[2]), int(maps.shape[3])
