"""Maps brought to the size of the targets."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class PoolTo(nn.Module):
    """Average pooling to `cells` x `cells`: adaptive where the size does not divide.

    On CUDA the gradient of adaptive pooling adds up in no fixed order, that of plain pooling does.
    """

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, cells, cells)."""
        height, width = x.shape[-2:]
        if (height, width) == (self.cells, self.cells):
            return x
        if height % self.cells == 0 and width % self.cells == 0:
            return functional.avg_pool2d(x, (height // self.cells, width // self.cells))
        return functional.adaptive_avg_pool2d(x, self.cells)
