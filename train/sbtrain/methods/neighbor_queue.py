"""A queue of embeddings for Self-Classifier's nearest neighbors, held in buffers: part of every checkpoint.

E. Amrani et al., ECCV 2022, section 3.4: an image's embedding is replaced by its nearest neighbor among earlier images'.

Axes: B images, L places of the queue, E numbers an embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class NeighborQueue(nn.Module):
    """The last L embeddings, first in, first out.

    Parameters
    ----------
    length : int
        Number of places L.
    width : int
        Numbers an embedding E.
    """

    rows: Tensor
    index: Tensor
    pushed: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.length = length
        self.register_buffer("rows", torch.zeros(length, width))
        self.register_buffer("index", torch.full((length,), -1))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    @property
    def full(self) -> Tensor:
        """Boolean () on the device: every place is taken."""
        return self.pushed >= self.length

    @torch.no_grad()
    def nearest(self, z: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return each embedding's nearest neighbor of another image, (B, E), and the mean of their cosines.

        Parameters
        ----------
        z : float32 (B, E)
            Of length 1.
        index : int64 (B,)
            Whose they are.
        """
        cosine = (z @ self.rows.T).masked_fill(index[:, None] == self.index, -2.0)
        best, place = cosine.max(1)
        return self.rows[place], best.mean()

    @torch.no_grad()
    def push(self, z: Tensor, index: Tensor) -> None:
        """Put embeddings (B, E) in the places of the oldest; of more than L the last L.

        One that is not finite leaves its place as it was: a bad step is not applied, and must not stay here either.
        """
        z, index = z[-self.length :], index[-self.length :]
        # On CUDA, in exact mode, torch looks on the host whether places written by index exist, scatter_'s as well: that
        # waits for the device, and cannot be part of a CUDA graph.
        everywhere = z.is_cuda and torch.are_deterministic_algorithms_enabled()
        (self._write_everywhere if everywhere else self._write)(z, index, torch.isfinite(z).all(1))
        self.pushed.add_(len(z))

    def _write(self, z: Tensor, index: Tensor, finite: Tensor) -> None:
        """Write the places of the rows that come, B at most L of them, and no other.

        Of 1,000, 65,536 or 262,144 places 256 rows of 128 numbers take 0.1 ms of a CPU's thread so; to write all takes
        0.18, 23 and 134 ms.
        """
        places = (torch.arange(len(z), device=z.device) + self.pushed) % self.length
        rows = torch.where(finite[:, None], z, self.rows[places])
        self.rows.scatter_(0, places[:, None].expand_as(rows), rows)
        self.index.scatter_(0, places, torch.where(finite, index, self.index[places]))

    def _write_everywhere(self, z: Tensor, index: Tensor, finite: Tensor) -> None:
        """Write all L places, each that no row comes to as it was: the same bits."""
        coming = (torch.arange(self.length, device=z.device) - self.pushed) % self.length
        row = coming.clamp(max=len(z) - 1)
        taken = (coming < len(z)) & finite[row]
        torch.where(taken[:, None], z[row], self.rows, out=self.rows)
        torch.where(taken, index[row], self.index, out=self.index)
