"""Rows of a split, wherever they wait: read from shards, handed out as batches of uint8 on the device.

Axes: B images of a batch, N images of the split, S x S pixels, t x t target cells.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbformat.errors import ConfigError, FormatError, ShardError
from sbformat.manifest import Manifest
from sbformat.schema import DatasetSpec
from sbformat.shard import Shard, open_shard

Cache = Literal["auto", "device", "host", "mmap"]
Rows = NDArray[np.int64]

#: `auto` takes device memory where the split fills no more than this share of what is free: the rest is for training.
DEVICE_SHARE = 0.6
#: `auto` takes host memory where the split fills no more than this share of it.
HOST_SHARE = 0.25


@dataclass(frozen=True)
class Batch:
    """Rows of one step, on the device."""

    index: Tensor
    """int64 (B,): row numbers in the split; the keys of augmentation and corruption"""
    fields: dict[str, Tensor]
    """Dataset name -> rows: ``image`` uint8 (B, 3, S, S), ``target_single`` and ``target_dual`` (B, t, t), ..."""
    epoch: int = 0
    """Epoch of the batch: with `index` the key of whatever is random about a sample."""
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


class SplitReader:
    """Every row of one split, over all its shards, by number.

    Parameters
    ----------
    manifest : Manifest
    split : str
    names : tuple of str
        Datasets to read.

    Raises
    ------
    FormatError
        No such split, no such dataset, no images, or a shard is missing or has a wrong size.
    """

    def __init__(self, manifest: Manifest, split: str, names: tuple[str, ...]) -> None:
        if split not in manifest.splits:
            raise FormatError(f"{manifest.root} has splits {', '.join(manifest.splits)}, no {split}. Use --split")
        self.specs: dict[str, DatasetSpec] = {}
        for name in names:
            if name not in manifest.datasets(split):
                raise FormatError(f"{manifest.root}: split {split} has no {name}: {_remedy(name)}")
            self.specs[name] = manifest.datasets(split)[name]
        records = [record for record in manifest.splits[split].shards if record.count]
        if not records:
            raise FormatError(f"{manifest.root}: split {split} has no images. Build it: sbprep build --{split} PATH")
        self.compressed = manifest.compression != "none"
        self._classes = {
            "target_single": manifest.target.single_classes,
            "target_dual": manifest.target.dual_classes,
        }
        self._shards: list[Shard] = [open_shard(manifest, split, record) for record in records]
        self._starts = np.concatenate([[0], np.cumsum([record.count for record in records])]).astype(np.int64)
        self._arrays: dict[str, list[NDArray[Any]]] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def bytes(self) -> int:
        """Bytes of all rows together."""
        return len(self) * sum(spec.row_bytes for spec in self.specs.values())

    def gather(self, rows: Rows, out: dict[str, NDArray[Any]]) -> None:
        """Copy `rows` (B,), in their order, into the arrays of `out`, (B, ...) each."""
        if not self._arrays:
            self._arrays = {name: [shard.array(name) for shard in self._shards] for name in self.specs}
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        inside = rows - self._starts[shards]
        places = list(zip(shards.tolist(), inside.tolist(), strict=True))
        for name, target in out.items():
            arrays = self._arrays[name]
            # A plain loop: 2 us a row of 27,648 bytes, 0.5 of them Python's; a fancy index per shard touches as many.
            for i, (shard, row) in enumerate(places):
                target[i] = arrays[shard][row]
            self.check(name, target, rows)

    def blocks(self, name: str) -> list[tuple[int, Shard]]:
        """Return (first row, shard) of every shard."""
        return list(zip(self._starts[:-1].tolist(), self._shards, strict=True))

    def check(self, name: str, values: NDArray[Any], rows: Rows) -> None:
        """Raise where a target is no class at all: a flipped byte must not reach the loss, where CUDA would only abort."""
        classes = self._classes.get(name)
        if classes is None or values.max(initial=0) < classes:
            return
        worst = int(values.reshape(len(values), -1).max(axis=1).argmax())
        row = int(rows[worst])
        shard = int(np.searchsorted(self._starts, row, side="right") - 1)
        path = self._shards[shard].path
        raise ShardError(
            f"{path}: image {row - int(self._starts[shard])}: {name} {int(values[worst].max())}, expected below {classes}: "
            f"damaged. Find all damage with --verify, rebuild: sbprep verify --repair {path.parent.parent}"
        )

    def damage(self) -> list[str]:
        """Return what differs from the manifest's checksums, one line a damaged chunk."""
        return [f"{shard.path}: {line}" for shard in self._shards for line in shard.damage()]

    def close(self) -> None:
        """Close every shard."""
        self._arrays.clear()
        for shard in self._shards:
            shard.close()


def _remedy(name: str) -> str:
    if name == "label":
        return "it has no labels. Choose a labeled split, or build one with sbprep build --train PATH"
    return "this color space does not store it"


class Residence:
    """Rows held somewhere, handed out as batches on the device: `fetch` is all that a loader needs."""

    name = "?"

    def __init__(self, reader: SplitReader, device: torch.device) -> None:
        self.device = device
        self.rows = len(reader)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call, unused-ignore]

    def fetch(self, rows: Rows) -> Batch:
        """Return the batch of `rows` (B,)."""
        raise NotImplementedError

    def _buffer(self, rows: int, like: DatasetSpec) -> Tensor:
        return torch.empty((rows, *like.row_shape), dtype=_torch_dtype(like), pin_memory=self._stream is not None)

    def _send(self, rows: Rows, fields: dict[str, Tensor]) -> Batch:
        index = torch.from_numpy(rows)
        if self._stream is None:
            return Batch(index.to(self.device), {name: rows.to(self.device) for name, rows in fields.items()})
        # A stream of its own: the copy runs beside the step before.
        with torch.cuda.stream(self._stream):
            sent = {name: rows.to(self.device, non_blocking=True) for name, rows in fields.items()}
            there = index.to(self.device, non_blocking=True)
            return Batch(there, sent, copied=self._stream.record_event())


class DeviceResidence(Residence):
    """The whole split in device memory: no host traffic after the first copy, which goes shard by shard."""

    name = "device"

    def __init__(self, reader: SplitReader, device: torch.device) -> None:
        super().__init__(reader, device)
        self._tensors = _read_all(reader, device)

    def fetch(self, rows: Rows) -> Batch:
        """Gather on the device."""
        index = torch.from_numpy(rows).to(self.device, non_blocking=True)
        return Batch(index, {name: _select(tensor, index) for name, tensor in self._tensors.items()})


class HostResidence(Residence):
    """The whole split in host memory, gathered there and copied batch by batch."""

    name = "host"

    def __init__(self, reader: SplitReader, device: torch.device) -> None:
        super().__init__(reader, device)
        self._specs = reader.specs
        self._tensors = _read_all(reader, torch.device("cpu"))

    def fetch(self, rows: Rows) -> Batch:
        """Gather into pinned buffers, copy without waiting."""
        index = torch.from_numpy(rows)
        fields = {}
        for name, tensor in self._tensors.items():
            fields[name] = self._buffer(len(rows), self._specs[name])
            _select(tensor, index, out=fields[name])
        return self._send(rows, fields)


class MappedResidence(Residence):
    """Rows stay in the files' memory maps: only what a batch needs is read."""

    name = "mmap"

    def __init__(self, reader: SplitReader, device: torch.device) -> None:
        super().__init__(reader, device)
        self._reader = reader

    def fetch(self, rows: Rows) -> Batch:
        """Gather from the maps into pinned buffers, copy without waiting."""
        fields = {name: self._buffer(len(rows), spec) for name, spec in self._reader.specs.items()}
        self._reader.gather(rows, {name: buffer.numpy() for name, buffer in fields.items()})
        return self._send(rows, fields)


def reside(cache: Cache, reader: SplitReader, device: torch.device) -> Residence:
    """Put the rows where `cache` says; `auto`: the nearest place that has room for them.

    Raises
    ------
    ConfigError
        ``mmap`` of compressed shards.
    ShardError
        A shard cannot be read, or holds a target that is no class.
    """
    if cache == "mmap" and reader.compressed:
        raise ConfigError("cache mmap, but the shards are compressed. Use --cache host, or build them uncompressed")
    if cache == "auto":
        cache = _nearest(reader, device)
    kinds: dict[str, type[Residence]] = {"device": DeviceResidence, "host": HostResidence, "mmap": MappedResidence}
    return kinds[cache](reader, device)


def _nearest(reader: SplitReader, device: torch.device) -> Cache:
    if device.type == "cuda" and reader.bytes <= DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return "device"
    return "host" if reader.compressed or reader.bytes <= HOST_SHARE * host_memory() else "mmap"


def host_memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or its control group's."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(name)
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            found.append(int(text))
    return min(found)


def _read_all(reader: SplitReader, device: torch.device) -> dict[str, Tensor]:
    result = {}
    for name, spec in reader.specs.items():
        whole = torch.empty((len(reader), *spec.row_shape), dtype=_torch_dtype(spec), device=device)
        for start, shard in reader.blocks(name):
            rows = shard.read(name, 0, len(shard))
            reader.check(name, rows, np.arange(start, start + len(shard)))
            whole[start : start + len(shard)].copy_(torch.from_numpy(rows))
        result[name] = whole
    return result


def _select(tensor: Tensor, index: Tensor, out: Tensor | None = None) -> Tensor:
    # torch gathers no uint16: the same bytes as int16.
    if tensor.dtype == torch.uint16:
        place = None if out is None else out.view(torch.int16)
        return torch.index_select(tensor.view(torch.int16), 0, index, out=place).view(torch.uint16)
    return torch.index_select(tensor, 0, index, out=out)


def _torch_dtype(spec: DatasetSpec) -> torch.dtype:
    return torch.from_numpy(np.empty(0, spec.dtype)).dtype
