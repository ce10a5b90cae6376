"""A classifier on a layer of another method's networks: for fine-tuning, and from scratch as the control.

The split-brain report puts one linear layer on both halves' output maps, 2 x 100 x 12 x 12 numbers; the original paper
(R. Zhang, P. Isola and A. Efros, CVPR 2017, section 4.1) on any layer, resized, behind a BatchNorm without weights.

Axes: B images, C channels of the layer (both halves side by side), h x w cells, D features, Q classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from sbformat.errors import ConfigError
from sbformat.manifest import Manifest
from sbtrain.data import Batch
from sbtrain.methods import Method
from sbtrain.networks.pooling import PoolTo

#: Strength of the ridge. Built-in set, conv4 averaged, 10 draws, k = 16: top-1 72.0, 75.1, 77.7, 78.6 % at .003, .01, .03, .1.
RIDGE_PENALTY = 0.1
RIDGE_MOST = 8192
#: Least of the strength itself.
RIDGE_LEAST = 1e-30
#: Solved weights regress onto 0 and 1; times this they are logits from which gradient steps go on. Built-in set, 3 draws,
#: k = 4 and 16, end to end: top-1 59.7 and 89.0 % with 3, 56.9 and 85.7 % with 10.
SOLVED_SCALE = 3.0


class Encoder(nn.Module):
    """The networks of a method up to a layer, its maps averaged or as they are: what a classifier sees.

    Parameters
    ----------
    backbone : Method
    manifest : Manifest
        Of the images to classify.
    layer : str, optional
        One of ``backbone.layers()``; the last, of the halves their output maps, by default.
    pool : int
        Average the layer to pool x pool cells, 1 for the global average; 0: take it as it is.

    Raises
    ------
    ConfigError
        There is no such layer, or it has fewer cells.
    """

    def __init__(self, backbone: Method, manifest: Manifest, layer: str | None = None, pool: int = 0) -> None:
        super().__init__()
        self.layer = layer or backbone.layers()[-1]
        check_layers(backbone, [self.layer])
        C, h, w = layer_shape(backbone, manifest, self.layer)
        if pool > min(h, w):
            raise ConfigError(f"pool {pool}, but {self.layer} has {h} x {w} cells. Use --pool {min(h, w)} or less")
        self.backbone = backbone
        self.pool: nn.Module = PoolTo(pool) if pool else nn.Identity()
        self.width = C * (pool * pool if pool else h * w)
        """Number of features D."""

    def forward(self, batch: Batch) -> Tensor:
        """Return features (B, D)."""
        features = self.backbone.features(batch, self.layer)  # (B, C, h, w) or (B, D)
        return features if features.dim() == 2 else self.pool(features).flatten(1)


class ProbeEncoder(nn.Module):
    """A layer as the original paper's linear tests see it, and its mean over cells, side by side.

    Maps are resized bilinearly to the largest number of cells with which they are `dimensions` numbers or fewer; smaller
    maps stay as they are. With 9,600 the paper's sizes follow (table 7): 96 channels in 10 x 10 cells, 256 in 6 x 6, 384
    in 5 x 5.

    Parameters
    ----------
    backbone : Method
    manifest : Manifest
        Of the images to classify.
    layer : str
        One of ``backbone.layers()``.
    dimensions : int
    """

    def __init__(self, backbone: Method, manifest: Manifest, layer: str, dimensions: int) -> None:
        super().__init__()
        check_layers(backbone, [layer])
        self.layer, self.backbone = layer, backbone
        self.channels, side, _ = layer_shape(backbone, manifest, layer)
        """Number of means C, the first of the features."""
        self.cells = max(1, min(side, math.isqrt(dimensions // self.channels)))
        """Along a side, of the resized maps."""
        self.width = self.channels * (1 + self.cells**2)
        """Number of features D, means and resized maps together."""

    def forward(self, batch: Batch) -> Tensor:
        """Return features (B, D)."""
        maps = self.backbone.features(batch, self.layer).float()
        if maps.dim() == 2:
            return torch.cat([maps, maps], dim=1)
        means = maps.mean((2, 3))
        if maps.shape[2] != self.cells:
            maps = functional.interpolate(maps, size=(self.cells, self.cells), mode="bilinear", align_corners=False)
        return torch.cat([means, maps.flatten(1)], dim=1)


class Classifier(nn.Module):
    """One linear layer on a batch's ``feature``, (B, D) -> logits (B, Q).

    Parameters
    ----------
    width : int
        Number of features D.
    classes : int
    standardize : bool
        Bring each feature to mean 0 and variance 1 before the linear layer.
    normal : bool
        First weights of deviation 0.01 and no bias, instead of torch's.
    """

    def __init__(self, width: int, classes: int, standardize: bool = False, normal: bool = False) -> None:
        super().__init__()
        self.norm: nn.Module = nn.BatchNorm1d(width, affine=False) if standardize else nn.Identity()
        self.linear = nn.Linear(width, classes)
        if normal:
            nn.init.normal_(self.linear.weight, std=0.01)
            nn.init.zeros_(self.linear.bias)

    @property
    def classifier(self) -> Classifier:
        """Itself: of frozen features it is the whole model."""
        return self

    def features(self, batch: Batch) -> Tensor:
        """Return a batch's features (B, D)."""
        return batch["feature"]

    def classify(self, feature: Tensor) -> Tensor:
        """Return logits (B, Q) of features (B, D)."""
        logits: Tensor = self.linear(self.norm(feature))
        return logits

    def forward(self, batch: Batch) -> Tensor:
        """Return logits (B, Q)."""
        return self.classify(self.features(batch))

    @torch.no_grad()
    def solve(self, feature: Tensor, label: Tensor) -> None:
        """Become the ridge regression of the labels on `feature` (n, D), float32.

        `label` (n,) as one-hot rows; attributes (n, A) as -1 and 1, between which their logits turn.
        """
        mean, variance = feature.mean(0), feature.var(0, correction=0)
        targets = (
            2 * label.float() - 1
            if label.dim() == 2
            else functional.one_hot(label.long(), self.linear.out_features).float()
        )
        if isinstance(self.norm, nn.BatchNorm1d):
            self.norm.load_state_dict({**self.norm.state_dict(), "running_mean": mean, "running_var": variance})
            weight, bias = ridge((feature - mean) / (variance + self.norm.eps).sqrt(), targets)
        else:
            weight, bias = ridge(feature - mean, targets)
            bias = bias - weight @ mean
        self.linear.weight.copy_(SOLVED_SCALE * weight)
        self.linear.bias.copy_(SOLVED_SCALE * bias)


class Supervised(nn.Module):
    """Encoder and classifier, all of it trained: batch of images -> logits (B, Q)."""

    def __init__(self, encoder: Encoder, classifier: Classifier) -> None:
        super().__init__()
        self.encoder, self.classifier = encoder, classifier

    def features(self, batch: Batch) -> Tensor:
        """Return a batch's features (B, D)."""
        feature: Tensor = self.encoder(batch)
        return feature

    def forward(self, batch: Batch) -> Tensor:
        """Return logits (B, Q)."""
        return self.classifier.classify(self.features(batch))


def ridge(x: Tensor, y: Tensor, penalty: float = RIDGE_PENALTY) -> tuple[Tensor, Tensor]:
    """Solve ridge regression with an intercept, in float64.

    Parameters
    ----------
    x : float32 (n, D), each column of mean 0
    y : float32 (n, Q)
    penalty : float
        In units of the mean squared length of the rows of `x`.

    Returns
    -------
    weight : float32 (Q, D)
    mean : float32 (Q,)
        Of `y`: the intercept.

    Raises
    ------
    ConfigError
        Both n and D are too large for a dense system.
    """
    n, D = x.shape
    if min(n, D) > RIDGE_MOST:
        raise ConfigError(
            f"ridge regression of {n:,} images on {D:,} features: one of them has to be {RIDGE_MOST:,} or less. "
            f"Average the layer: --pool 1, or use --head random"
        )
    mean = y.mean(0)
    x, y = x.double(), (y - mean).double()
    # Above 0, or constant features would leave a singular system: so they get weights of 0, and the intercept says all.
    strength = (penalty * x.square().sum() / n).clamp(min=RIDGE_LEAST)
    if n <= D:
        weight = torch.linalg.solve(x @ x.T + strength * torch.eye(n, dtype=x.dtype, device=x.device), y).T @ x
    else:
        weight = torch.linalg.solve(x.T @ x + strength * torch.eye(D, dtype=x.dtype, device=x.device), x.T @ y).T
    return weight.float(), mean


def check_layers(backbone: Method, layers: Sequence[str]) -> None:
    """Refuse a layer that is not there.

    Raises
    ------
    ConfigError
        With those that are.
    """
    for layer in layers:
        if layer not in backbone.layers():
            raise ConfigError(f"layer {layer!r}, this run's network has {', '.join(backbone.layers())}")


def layer_shape(backbone: Method, manifest: Manifest, layer: str) -> tuple[int, int, int]:
    """Return (C, h, w) of a layer for the images of `manifest`; of D flat features (D, 1, 1)."""
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
    C, h, w = (*maps.shape[1:], 1, 1)[:3]
    return C, h, w
