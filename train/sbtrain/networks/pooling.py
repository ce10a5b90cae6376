"""Maps brought to the size of the targets."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class PoolTo(nn.Module):
    """Average pooling to `cells` x `cells`, to the windows of adaptive pooling where the size does not divide.

    On CUDA the gradient of adaptive pooling adds up in no fixed order; that of plain pooling and that of products of
    matrices do.
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
        return _averaged(_averaged(x, self.cells).mT, self.cells).mT


def _averaged(x: Tensor, cells: int) -> Tensor:
    """Average the last axis: (..., size) -> (..., cells)."""
    size = x.shape[-1]
    # Made on the device each time, some ten small kernels: a copy from the host cannot be part of a CUDA graph.
    place, cell = torch.arange(size, device=x.device), torch.arange(cells, device=x.device)[:, None]
    first, beyond = cell * size // cells, ((cell + 1) * size + cells - 1) // cells
    windows = ((place >= first) & (place < beyond)).to(x.dtype)  # zeros and ones: exact in any precision of a product
    return x @ windows.T / windows.sum(1)
