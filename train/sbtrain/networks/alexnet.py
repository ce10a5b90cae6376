"""AlexNets: the report's fully convolutional one, full width in each half, and the original paper's half-width one."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from sbtrain.networks.pooling import PoolTo


def fc_alexnet(channels: int, classes: int, cells: int) -> nn.Sequential:
    """Build one half of the report's FC-AlexNet: (N, channels, 96, 96) -> (N, classes, 12, 12).

    Full width in each half, no groups; 144,642,440 parameters in both, of which the dilated 7 x 7 convolution to 4,096
    channels holds 51.4 million in each.
    """
    stages: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Sequential(_conv(channels, 96, 10, stride=2, padding=1), nn.MaxPool2d(3, 2, 1)),
        conv2=nn.Sequential(_conv(96, 256, 5, padding=2), nn.MaxPool2d(3, 2, 1)),
        conv3=_conv(256, 384, 3, padding=1),
        conv4=_conv(384, 384, 3, padding=1),
        conv5=nn.Sequential(_conv(384, 256, 3, padding=1), nn.MaxPool2d(3, 1, 1)),
        fc6=_conv(256, 4096, 7, padding=6, dilation=2),
        fc7=_conv(4096, 4096, 1),
        logits=nn.Sequential(nn.Conv2d(4096, classes, 1), PoolTo(cells)),
    )
    return nn.Sequential(stages)


def split_alexnet(channels: int, classes: int, cells: int) -> nn.Sequential:
    """Build one half of Zhang et al. 2017, table 6: half of AlexNet's channels in each: (N, C, 180, 180) -> 12 x 12.

    Its stride of 4 is for 180 pixels; smaller images are brought to the target's size by adaptive pooling at the end.
    """
    stages: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Sequential(_conv(channels, 48, 11, stride=4, padding=5), nn.MaxPool2d(3, 2, 1)),
        conv2=nn.Sequential(_conv(48, 128, 5, padding=2), nn.MaxPool2d(3, 2, 1)),
        conv3=_conv(128, 192, 3, padding=1),
        conv4=_conv(192, 192, 3, padding=1),
        conv5=nn.Sequential(_conv(192, 128, 3, padding=1), nn.MaxPool2d(3, 1, 1)),
        fc6=_conv(128, 2048, 6, padding=5, dilation=2),
        fc7=_conv(2048, 2048, 1),
        logits=nn.Sequential(nn.Conv2d(2048, classes, 1), PoolTo(cells)),
    )
    return nn.Sequential(stages)


def _conv(before: int, after: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, padding, dilation), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )
