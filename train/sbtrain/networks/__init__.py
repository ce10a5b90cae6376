"""Networks of the reports, with exactly their sizes, and how to build one half by name.

A half maps (N, C, S, S) to logits (N, Q, t, t). It is an `nn.Sequential` of named stages, so that any of them can be
a feature layer.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from sbformat.errors import ConfigError
from sbtrain.networks.alexnet import fc_alexnet, split_alexnet
from sbtrain.networks.resnet import resnet18, resnet18_head
from sbtrain.networks.simplenet import simplenet

Half = Callable[[int, int, int], nn.Sequential]

#: Name -> builder of one half: (input channels, output classes, target cells along a side) -> stages.
HALVES: dict[str, Half] = {
    "simplenet": simplenet,
    "resnet18": resnet18,
    "resnet18-head": resnet18_head,
    "fc-alexnet": fc_alexnet,
    "split-alexnet": split_alexnet,
}


def build_half(name: str, channels: int, classes: int, cells: int) -> nn.Sequential:
    """Build one half of the network `name`.

    Raises
    ------
    ConfigError
        There is no such network.
    """
    if name not in HALVES:
        raise ConfigError(f"network {name!r}, expected one of {', '.join(HALVES)}")
    return HALVES[name](channels, classes, cells)


def parameter_count(module: nn.Module) -> int:
    """Return the number of trainable numbers of `module`."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
