"""Split-brain autoencoder: R. Zhang, P. Isola and A. Efros, "Split-Brain Autoencoders", CVPR 2017, section 3.

Two disjoint networks: F1 sees the single channel X1 (L or R) and predicts the other two, F2 sees those, X2 (ab or GB),
and predicts the single one. Each has its own loss; no parameter and no gradient is shared.

Axes: B images, S x S pixels, t x t target cells, Q classes.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sbformat.schema import TargetSpec
from sbtrain.data import Batch
from sbtrain.inputs import Inputs
from sbtrain.networks import build_half

Loss = Literal["classification", "regression"]


class SplitBrain(nn.Module):
    """Both halves, their losses and their features.

    Parameters
    ----------
    network : str
        Name of the halves, `sbtrain.networks.HALVES`.
    target : TargetSpec
        Classes and cells of the target maps.
    inputs : Inputs
    loss : {"classification", "regression"}
        Cross-entropy of the bins in every cell (equation 4), or half the squared distance to the cell's mean in input
        units (equation 3).
    """

    def __init__(self, network: str, target: TargetSpec, inputs: Inputs, loss: Loss = "classification") -> None:
        super().__init__()
        self.inputs = inputs
        self.kind = loss
        self.cells = target.size
        of_dual, of_single = (target.dual_classes, target.single_classes) if loss == "classification" else (2, 1)
        self.F1 = build_half(network, 1, of_dual, target.size)
        self.F2 = build_half(network, 2, of_single, target.size)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Datasets that a batch must bring."""
        targets = ("target_single", "target_dual") if self.kind == "classification" else ()
        return (*self.inputs.datasets, *targets)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of both halves' losses, a scalar, and each of them."""
        x = self.inputs(batch)
        X1, X2 = x[:, :1], x[:, 1:]
        X2_hat, X1_hat = self.F1(X1), self.F2(X2)  # (B, Q, t, t)
        if self.kind == "classification":
            of_dual = _cell_cross_entropy(X2_hat, batch["target_dual"])
            of_single = _cell_cross_entropy(X1_hat, batch["target_single"])
        else:
            means = functional.adaptive_avg_pool2d(x, self.cells)
            of_dual = 0.5 * functional.mse_loss(X2_hat.float(), means[:, 1:])
            of_single = 0.5 * functional.mse_loss(X1_hat.float(), means[:, :1])
        return of_dual + of_single, {"loss_dual": of_dual.detach(), "loss_single": of_single.detach()}

    def features(self, batch: Batch, layer: str = "logits") -> Tensor:
        """Return the named stage's output of both halves side by side: (B, channels of both, h, w)."""
        x = self.inputs(batch)
        return torch.cat([_until(self.F1, layer, x[:, :1]), _until(self.F2, layer, x[:, 1:])], dim=1)

    def layers(self) -> list[str]:
        """Return the names that `features` takes, from input to output."""
        return [name for name, _ in self.F1.named_children()]


def _cell_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    # Cells as rows: on CUDA the loss over maps adds up in no fixed order, the one over rows does, and from channels-last
    # logits this is a view.
    rows = logits.float().permute(0, 2, 3, 1).reshape(-1, logits.shape[1])
    return functional.cross_entropy(rows, target.long().reshape(-1))


def _until(half: nn.Sequential, layer: str, x: Tensor) -> Tensor:
    for name, stage in half.named_children():
        x = stage(x)
        if name == layer:
            return x
    raise KeyError(f"layer {layer!r}, expected one of {', '.join(name for name, _ in half.named_children())}")
