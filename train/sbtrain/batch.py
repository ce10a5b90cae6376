"""Rows of one step, on the device.

Axes: B images of a batch, S x S pixels, t x t target cells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Rows of one step, on the device."""

    index: Tensor
    """int64 (B,): row numbers in the split; the keys of augmentation and corruption"""
    fields: dict[str, Tensor]
    """Dataset name -> rows: ``image`` uint8 (B, 3, S, S), ``target_single`` and ``target_dual`` (B, t, t), ..."""
    epoch: int | Tensor = 0
    """Epoch of the batch, in a CUDA graph int64 () on the device: with `index` the key of what is random about a sample."""
    copied: torch.cuda.Event | None = None
    """On CUDA: when the copy from the host is done."""

    def __getitem__(self, name: str) -> Tensor:
        return self.fields[name]

    def __len__(self) -> int:
        return len(self.index)

    def parts(self, count: int) -> list[Batch]:
        """Return `count` micro-batches of equal size, in order."""
        if count == 1:
            return [self]
        size = len(self) // count
        cuts = [slice(k * size, (k + 1) * size) for k in range(count)]
        return [Batch(self.index[c], {name: rows[c] for name, rows in self.fields.items()}, self.epoch) for c in cuts]

    def arrived(self) -> Batch:
        """Make the device's current stream wait for the copy; the host does not wait."""
        if self.copied is None:
            return self
        stream = torch.cuda.current_stream(self.index.device)
        stream.wait_event(self.copied)
        for tensor in (self.index, *self.fields.values()):
            tensor.record_stream(stream)
        return replace(self, copied=None)
