"""Networks that see whole color images and end in one row of features: ResNet-18, AlexNet, the split-brain halves.

A trunk maps (N, 3, S, S) to features (N, D). It is an `nn.Sequential` of named stages, so that any of them can be a
feature layer.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from sbtrain.networks import build_half
from sbtrain.networks.dropout import KeyedDropout
from sbtrain.networks.pooling import PoolTo
from sbtrain.networks.resnet import BasicBlock, initialized

Stem = Literal["imagenet", "cifar", "report"]


class GlobalAverage(nn.Module):
    """Means over the cells of maps: (N, C, h, w) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C)."""
        return x.mean((2, 3))


def resnet18(stem: Stem, zero_init: bool = False) -> nn.Sequential:
    """Build ResNet-18 without its classifier: (N, 3, S, S) -> (N, 512).

    Parameters
    ----------
    stem : {"imagenet", "cifar", "report"}
        ``imagenet``: convolution 7 x 7 of stride 2 and max pooling (He et al., CVPR 2016, table 1; 11,176,512 parameters).
        ``cifar``: 3 x 3 of stride 1, no pooling, for images of 32 x 32 (11,168,832 parameters). ``report``: 3 x 3 of
        stride 1 and max pooling kept, as the SimSiam report's code has it: its last map of 32 x 32 images is 2 x 2.
    zero_init : bool
        Scale the last BatchNorm of every block by 0 at first, so that blocks begin as identities (P. Goyal et al.,
        arXiv 1706.02677, section 5.1).
    """
    first = nn.Conv2d(3, 64, 7, 2, 3, bias=False) if stem == "imagenet" else nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    layers: list[nn.Module] = [first, nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    if stem != "cifar":
        layers.append(nn.MaxPool2d(3, 2, 1))
    stages: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(*layers))
    widths = (64, 64, 128, 256, 512)
    for i in range(1, 5):
        stride = 1 if i == 1 else 2
        stages[f"layer{i}"] = nn.Sequential(
            BasicBlock(widths[i - 1], widths[i], stride), BasicBlock(widths[i], widths[i])
        )
    stages["pool"] = GlobalAverage()
    network = initialized(nn.Sequential(stages))
    if zero_init:
        for module in network.modules():
            if isinstance(module, BasicBlock):
                nn.init.zeros_(module.norm2.weight)
    return network


def alexnet(hidden: int = 4096) -> nn.Sequential:
    """Build the one-column AlexNet of torchvision's shape: (N, 3, S, S) -> (N, 1000), S of 63 or more.

    A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", arXiv 1404.5997, section 5;
    61,100,840 parameters. The Self-Classifier report takes the 1,000 outputs of its classifier as features, behind the
    dropout of both hidden layers, of `hidden` units each.
    """
    stages: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Sequential(_conv(3, 64, 11, 4, 2), nn.MaxPool2d(3, 2)),
        conv2=nn.Sequential(_conv(64, 192, 5, 1, 2), nn.MaxPool2d(3, 2)),
        conv3=_conv(192, 384, 3, 1, 1),
        conv4=_conv(384, 256, 3, 1, 1),
        conv5=nn.Sequential(_conv(256, 256, 3, 1, 1), nn.MaxPool2d(3, 2)),
        fc6=nn.Sequential(
            PoolTo(6), nn.Flatten(), KeyedDropout(0.5, stream=0), nn.Linear(256 * 36, hidden), nn.ReLU(inplace=True)
        ),
        fc7=nn.Sequential(KeyedDropout(0.5, stream=1), nn.Linear(hidden, hidden), nn.ReLU(inplace=True)),
        fc8=nn.Linear(hidden, 1000),
    )
    return nn.Sequential(stages)


def half(name: str) -> nn.Sequential:
    """Build a half of the split-brain report on three channels, its logits left out: (N, 3, S, S) -> (N, D).

    Features are the averages of its last maps: 96 of ``simplenet``, 100 of ``resnet18``, 4,096 of ``fc-alexnet``.

    Raises
    ------
    ConfigError
        There is no such network.
    """
    # The report's ResNet ends in as many channels as there are classes: 100.
    stages = OrderedDict(build_half(name, 3, 100, 1).named_children())
    del stages["logits"]
    stages["pool"] = GlobalAverage()
    return nn.Sequential(stages)


def _conv(before: int, after: int, kernel: int, stride: int, padding: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, kernel, stride, padding), nn.ReLU(inplace=True))
