"""SimpleNet of the split-brain report: five convolutions, 779,072 parameters in both halves."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from sbtrain.networks.pooling import PoolTo


def simplenet(channels: int, classes: int, cells: int) -> nn.Sequential:
    """Build one half: (N, channels, S, S) -> (N, classes, S/4 - 12, S/4 - 12), which is 12 x 12 for S = 96.

    Two convolutions 4 x 4 of stride 2, two 5 x 5 and a last 5 x 5 to the logits, none of the 5 x 5 padded; BatchNorm and
    ReLU after all but the last. A head of adaptive average pooling follows where `cells` asks for another size.
    """
    stages: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=_stage(channels, 12, 4, stride=2, padding=1),
        conv2=_stage(12, 24, 4, stride=2, padding=1),
        conv3=_stage(24, 48, 5),
        conv4=_stage(48, 96, 5),
        logits=nn.Sequential(nn.Conv2d(96, classes, 5), PoolTo(cells)),
    )
    return nn.Sequential(stages)


def _stage(before: int, after: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, padding), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )
