"""SimSiam: X. Chen and K. He, "Exploring Simple Siamese Representation Learning", CVPR 2021, sections 3 and D.

Two views of an image go through one network f; the predictor h is to tell the other view's projection from each::

    z = f(x),  p = h(z),  L = D(p1, stopgrad(z2)) / 2 + D(p2, stopgrad(z1)) / 2,  D(p, z) = -cos(p, z)

L lies in [-1, 1]. Without the stop-gradient it falls to -1, and every image has the same z: the collapse. As BatchNorm
ends the projector, it begins as one line, on which every z lies with either sign.

Axes: B images, D features, P projections.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sbformat.errors import ConfigError
from sbtrain.data import Batch
from sbtrain.methods.seen import Seen
from sbtrain.methods.views import OnViews, Views
from sbtrain.networks.backbones import Backbone

Projector = Literal["three-layer", "two-layer", "report"]


class SimSiam(OnViews):
    """Backbone, projector and predictor, their loss and their features.

    Parameters
    ----------
    backbone : Backbone
    views : Views
        Two an image.
    projector : {"three-layer", "two-layer", "report"}
        See `build_projector`.
    stop_gradient : bool
        False: for showing the collapse.
    constant_predictor_lr : bool
        The predictor keeps the peak learning rate (section 4.2, "fixed lr").

    Raises
    ------
    ConfigError
        Another number of views than two.
    """

    projection = "projector"

    def __init__(
        self,
        backbone: Backbone,
        views: Views,
        projector: Projector = "three-layer",
        stop_gradient: bool = True,
        constant_predictor_lr: bool = True,
    ) -> None:
        self.check_views(views)
        super().__init__(backbone, views)
        self.stop_gradient = stop_gradient
        self.projector, P = build_projector(projector, backbone.width)
        self.predictor = Predictor(P, constant_predictor_lr)

    @staticmethod
    def check_views(views: Views) -> None:
        """Refuse another number of views than two; before a backbone is built for their sizes."""
        if views.count != 2:
            raise ConfigError(
                f"an augmentation of {views.count} views, but simsiam compares 2. Use --augmentation simsiam_imagenet"
            )

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss in [-1, 1], and numbers that tell a collapse.

        ``feature_std``: 1 for projections all around the sphere, 0 for one point. ``alignment``: mean cosine of the two
        projections of an image. ``overlap``: see `overlap`.
        """
        # One view after the other, as in the published code: BatchNorm's statistics are of one view.
        h, z = [], []
        for i, x in enumerate(self.inputs(batch)):
            h.append(self.inputs.embed(self.backbone, [x], batch, i))
            z.append(self.projector(h[-1]))
        z1, z2 = z
        self.seen = Seen(h[0].detach(), z1.detach())
        p1, p2 = self.predictor(z1), self.predictor(z2)
        t1, t2 = (z1.detach(), z2.detach()) if self.stop_gradient else (z1, z2)
        loss = (negative_cosine(p1, t2) + negative_cosine(p2, t1)) / 2
        with torch.no_grad():
            alignment = functional.cosine_similarity(z1.float(), z2.float(), dim=1).mean()
            return loss, {"feature_std": spread(z1), "alignment": alignment, "overlap": overlap(z1)}


class Predictor(nn.Sequential):
    """The predictor h: P - P/4 - P, a bottleneck, the last layer with a bias and without BatchNorm (section 3)."""

    def __init__(self, P: int, constant_lr: bool) -> None:
        super().__init__(
            nn.Linear(P, P // 4, bias=False), nn.BatchNorm1d(P // 4), nn.ReLU(inplace=True), nn.Linear(P // 4, P)
        )
        self.constant_lr = constant_lr
        """See `sbtrain.optim.parameter_groups`."""


def build_projector(kind: Projector, D: int) -> tuple[nn.Sequential, int]:
    """Return the layers that make z of features, and the number of projections P.

    three-layer
        The published code for ImageNet: D - D - D - 2048 without biases, BatchNorm and ReLU between, and BatchNorm
        without weights at the end.
    two-layer
        The same with one hidden layer: CIFAR-10 (appendix D).
    report
        The SimSiam report's code: D - 1024 - 1024 - 1024 with biases, BatchNorm with weights at the end.
    """
    bias, P = kind == "report", 1024 if kind == "report" else 2048
    hidden = {"three-layer": [D, D], "two-layer": [P], "report": [P, P]}[kind]
    layers: list[nn.Module] = []
    for before, after in zip([D, *hidden], hidden, strict=False):
        layers += [nn.Linear(before, after, bias=bias), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
    layers += [nn.Linear(hidden[-1], P, bias=bias), nn.BatchNorm1d(P, affine=kind == "report")]
    return nn.Sequential(*layers), P


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """Return -cos(p, z), the mean over rows of (B, P), in float32."""
    return -functional.cosine_similarity(p.float(), z.float(), dim=1).mean()


def spread(z: Tensor) -> Tensor:
    """Return the deviation of normalized rows (B, P), times the root of P (section 4.1): 1 healthy, 0 collapsed."""
    return functional.normalize(z.float(), dim=1).std(0, correction=0).mean() * math.sqrt(z.shape[1])


def overlap(z: Tensor) -> Tensor:
    """Return the mean squared cosine of different rows (B, P): 1 / P for directions at random, 1 for one line, 0 if B is 1."""
    B = len(z)
    unit = functional.normalize(z.float(), dim=1)
    return ((unit @ unit.T).float().square().sum() - B) / max(1, B * (B - 1))
