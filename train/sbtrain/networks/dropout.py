"""Dropout whose masks belong to samples, so that a resumed run draws the same ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sbtrain.keyed import uniform

#: Streams of `sbtrain.keyed.uniform` from here on belong to dropout.
_STREAMS = 1 << 20


@dataclass(frozen=True)
class DropoutKey:
    """What the masks of a forward pass are a function of."""

    index: Tensor
    """int64 (N,): one number a row of the pass, another for each view of an image."""
    epoch: int | Tensor
    seed: int


class KeyedDropout(nn.Module):
    """Sets a share `p` of numbers to 0 in training and scales the rest by 1 / (1 - p).

    With a `key`, which `set_dropout_key` gives for one forward pass, masks are a pure function of it; without one, as in
    fine-tuning, they come from torch's random generator.

    Parameters
    ----------
    p : float
    stream : int
        Another one for each layer of a network.
    """

    def __init__(self, p: float, stream: int) -> None:
        super().__init__()
        self.p, self.stream = p, stream
        self.key: DropoutKey | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        if not self.training or self.key is None:
            return functional.dropout(x, self.p, self.training)
        u = uniform(self.key.index, x.shape[1], self.key.seed, self.key.epoch, _STREAMS + self.stream)
        return torch.where(u < self.p, 0.0, x / (1 - self.p)).to(x.dtype)


def set_dropout_key(model: nn.Module, key: DropoutKey | None) -> None:
    """Let the masks of the passes to come be a function of `key`, or of torch's random generator again."""
    for module in model.modules():
        if isinstance(module, KeyedDropout):
            module.key = key
