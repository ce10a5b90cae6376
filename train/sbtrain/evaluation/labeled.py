"""Labeled images of a split, and their features computed once: what a classifier learns from and is judged by.

Axes: B images of a batch, N images of the split, D features, A attributes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbformat.errors import ConfigError, ShardError
from sbformat.manifest import Manifest
from sbtrain.data import Batch, Cache, Rows, SplitReader, reside
from sbtrain.progress import bytes_text
from sbtrain.reader import read_checked
from sbtrain.residence import DEVICE_SHARE, host_memory
from sbtrain.runtime import RunError, Runtime

#: Images that are evaluated, or turned into features, at a time. SimpleNet, one core, images/s: 960 at 32, 976 at 64, 934
#: at 128, 793 at 256.
BLOCK = 128
#: Features may fill this share of host memory: nothing else of size is there while classifiers are fitted.
FEATURE_SHARE = 0.5


def check_finite(features: Tensor, whose: str = "features") -> None:
    """Refuse features that are not finite.

    Raises
    ------
    RunError
        Naming them.
    """
    if not bool(torch.isfinite(features).all()):
        raise RunError(
            f"{whose} are not finite: the run's weights fell apart. Look at the losses in its metrics.jsonl, and pretrain "
            f"anew with a lower --lr"
        )


class Source(Protocol):
    """Rows with a label each, handed out as batches on the device."""

    labels: NDArray[Any]
    """Class of every row of the split, int32 (N,), or its attributes, uint8 (N, A), 0 or 1."""

    def batch(self, rows: Rows) -> Batch:
        """Return `rows` (B,)."""


class Labeled:
    """A split whose images belong to one class each, or have attributes: uint8, where memory has room for them.

    Parameters
    ----------
    manifest : Manifest
    split : str
    datasets : tuple of str
        What a batch brings beside ``label``.
    device : torch.device
    cache : {"auto", "device", "host", "mmap"}
        Where the images wait; ``mmap`` of compressed shards: in host memory.
    attributes : bool
        Attributes are welcome too.

    Raises
    ------
    FormatError
        There is no such split, it has no labels, or a label is no class or no attribute.
    ConfigError
        Its labels are attributes, which are not welcome.
    """

    def __init__(
        self,
        manifest: Manifest,
        split: str,
        datasets: tuple[str, ...],
        device: torch.device,
        cache: Cache = "auto",
        attributes: bool = False,
    ) -> None:
        self._reader = SplitReader(manifest, split, (*datasets, "label"))
        if manifest.splits[split].label_kind != "class" and not attributes:
            self._reader.close()
            raise ConfigError(
                f"{manifest.root}: split {split} has {len(manifest.label_names)} attributes an image, expected one "
                f"class. Use sbtrain finetune, which knows attributes, or shards with class labels"
            )
        self.labels = self._read_labels(manifest, split)
        self._residence = reside("host" if cache == "mmap" and self._reader.compressed else cache, self._reader, device)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Rows) -> Batch:
        """Return the images of `rows` (B,) on the device, and their labels."""
        return self._residence.fetch(rows).arrived()

    def close(self) -> None:
        """Close the shards."""
        self._reader.close()

    def _read_labels(self, manifest: Manifest, split: str) -> NDArray[Any]:
        parts, spec = [], manifest.datasets(split)["label"]
        classes = 2 if spec.row_shape else len(manifest.label_names)
        for _, shard in self._reader.blocks("label"):
            labels = np.empty((len(shard), *spec.row_shape), spec.dtype)
            read_checked(shard, "label", labels)
            wrong = np.argwhere((labels < 0) | (labels >= classes))
            if wrong.size:
                value = labels[tuple(wrong[0])]
                what = (
                    f"attribute {manifest.label_names[wrong[0][1]]} {value}, expected 0 or 1"
                    if spec.row_shape
                    else f"label {value}, the manifest names {classes} classes"
                )
                raise ShardError(
                    f"{shard.path}: image {wrong[0][0]}: {what}: damaged. Rebuild it: sbprep verify --repair "
                    f"{manifest.root}"
                )
            parts.append(labels)
        return np.concatenate(parts)


class Features:
    """Features of some rows of a split, computed once: batches of ``feature``, float32 (B, D), and ``label``.

    Parameters
    ----------
    images : Source
    rows : int64 (n,)
        The rows that will be asked for, in any order.
    encode : callable
        Batch of images -> (B, D).
    runtime : Runtime

    Raises
    ------
    ConfigError
        They do not fit into memory.
    """

    def __init__(self, images: Source, rows: Rows, encode: Callable[[Batch], Tensor], runtime: Runtime) -> None:
        self.labels = images.labels
        self._rows, self._device = np.unique(rows), runtime.device
        self._features = torch.empty(0)
        for start, batch in blocks(images, self._rows):
            with torch.no_grad(), runtime.autocast():
                found = encode(batch).float()
            if not start:
                self._features = _room_for(len(self._rows), found.shape[1], runtime.device)
            self._features[start : start + len(found)].copy_(found)

    def columns(self, first: int, beyond: int) -> Features:
        """Return the same rows with features [first, beyond) alone; nothing is copied."""
        part = copy.copy(self)
        part._features = self._features[:, first:beyond]
        return part

    def table(self, rows: Rows) -> Tensor:
        """Return the features of `rows` (n,), float32 (n, D) of their own, on the device."""
        places = torch.from_numpy(np.searchsorted(self._rows, rows)).to(self._features.device)
        return self._features.index_select(0, places).to(self._device)

    def batch(self, rows: Rows) -> Batch:
        """Return the features of `rows` (B,) on the device, and their labels."""
        # From pageable memory, which waits for the device: features lie in host memory only where they do not fit on the
        # device, and a step on them is one linear layer, so nobody would gain from pinning.
        feature = self.table(rows)
        label = torch.from_numpy(self.labels[rows]).to(self._device)
        return Batch(torch.from_numpy(rows).to(self._device), {"feature": feature, "label": label})


def blocks(source: Source, rows: Rows) -> Iterator[tuple[int, Batch]]:
    """Yield (place, batch) of `rows` (n,), about equally many a time and `BLOCK` at most."""
    start = 0
    for part in np.array_split(rows, -(-len(rows) // BLOCK)):
        yield start, source.batch(part)
        start += len(part)


def _room_for(rows: int, features: int, device: torch.device) -> Tensor:
    size = rows * features * 4
    if device.type == "cuda" and size <= DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return torch.empty((rows, features), device=device)
    if size > FEATURE_SHARE * host_memory():
        raise ConfigError(
            f"{features:,} features of {rows:,} images are {bytes_text(size)}, {bytes_text(host_memory())} of memory are "
            f"there. Take fewer: --pool 1 or another small number, in sbtrain probe a smaller --dimensions"
        )
    return torch.empty((rows, features))
