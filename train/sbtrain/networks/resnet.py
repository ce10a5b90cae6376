"""ResNet18 of the split-brain report: every stage at stride 1, the last one narrow; 6,610,160 parameters in both halves.

The report's code has no classifier: its logits are the last block's ReLU output, averaged to the target's size, hence
never negative. `resnet18_head` puts an unconstrained 1 x 1 convolution behind a stage of 128 channels instead
(7,124,616 parameters in both halves).
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from sbtrain.networks.pooling import PoolTo


def resnet18(channels: int, classes: int, cells: int) -> nn.Sequential:
    """Build one half as the report's code has it: (N, channels, S, S) -> (N, classes, cells, cells), all >= 0."""
    stages = _trunk(channels, classes)
    stages["logits"] = PoolTo(cells)
    return initialized(nn.Sequential(stages))


def resnet18_head(channels: int, classes: int, cells: int) -> nn.Sequential:
    """Build one half with a 1 x 1 head: (N, channels, S, S) -> (N, classes, cells, cells)."""
    stages = _trunk(channels, 128)
    stages["logits"] = nn.Sequential(PoolTo(cells), nn.Conv2d(128, classes, 1))
    return initialized(nn.Sequential(stages))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut: He et al., "Deep Residual Learning", CVPR 2016, figure 5 left."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if before != after or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, after, H / stride, W / stride), rounded up."""
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        y = y + self.shortcut(x)
        result: Tensor = self.relu(y)
        return result


def _trunk(channels: int, last: int) -> OrderedDict[str, nn.Module]:
    widths = (64, 64, 128, 256, last)
    stages: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Sequential(
            nn.Conv2d(channels, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
    )
    for i in range(1, 5):
        stages[f"layer{i}"] = nn.Sequential(BasicBlock(widths[i - 1], widths[i]), BasicBlock(widths[i], widths[i]))
    return stages


def initialized(network: nn.Sequential) -> nn.Sequential:
    """Give every convolution the weights of K. He et al., ICCV 2015, by its outputs; return the network."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
