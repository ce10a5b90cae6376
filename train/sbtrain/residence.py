"""Where the rows of a split wait: device memory, host memory or their files; handed out as batches on the device.

Axes: B images of a batch.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sbformat.errors import ConfigError
from sbformat.schema import DatasetSpec
from sbtrain.batch import Batch
from sbtrain.reader import Rows, SplitReader, read_checked

Cache = Literal["auto", "device", "host", "mmap"]

#: `auto` takes device memory where the split fills no more than this share of what is free: the rest is for training.
DEVICE_SHARE = 0.6
#: `auto` takes host memory where the split fills no more than this share of it.
HOST_SHARE = 0.25


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

    def _buffer(self, rows: int, spec: DatasetSpec) -> Tensor:
        shape = (rows, *spec.row_shape)
        if self._stream is None:  # lending old buffers again was no faster (0.93)
            return torch.from_numpy(np.empty(shape, spec.dtype))
        return torch.empty(shape, dtype=_torch_dtype(spec), pin_memory=True)

    def _send(self, rows: Rows, fields: dict[str, Tensor]) -> Batch:
        index = self._pinned(torch.from_numpy(rows))
        if self._stream is None:
            return Batch(index, fields)
        # A stream of its own: the copy runs beside the step before. torch hands pinned memory out again only when the
        # copies from it are done.
        with torch.cuda.stream(self._stream):
            sent = {name: rows.to(self.device, non_blocking=True) for name, rows in fields.items()}
            there = index.to(self.device, non_blocking=True)
            return Batch(there, sent, copied=self._stream.record_event())

    def _pinned(self, tensor: Tensor) -> Tensor:
        # From pageable memory a copy may wait for everything before it in its stream.
        return tensor if self._stream is None else tensor.pin_memory()


class DeviceResidence(Residence):
    """The whole split in device memory: no host traffic after the first copy, which goes shard by shard."""

    name = "device"

    def __init__(self, reader: SplitReader, device: torch.device) -> None:
        super().__init__(reader, device)
        self._tensors = {name: _on_device(reader, name, device) for name in reader.specs}

    def fetch(self, rows: Rows) -> Batch:
        """Gather on the device."""
        index = self._pinned(torch.from_numpy(rows)).to(self.device, non_blocking=True)
        return Batch(index, {name: _select(tensor, index) for name, tensor in self._tensors.items()})


class HostResidence(Residence):
    """The whole split in host memory, gathered there and copied batch by batch."""

    name = "host"

    def __init__(self, reader: SplitReader, device: torch.device) -> None:
        super().__init__(reader, device)
        self._specs = reader.specs
        # NumPy asks for huge pages, torch does not: gathering from them is 1.1 times as fast.
        self._arrays = {name: reader.read(name) for name in reader.specs}

    def fetch(self, rows: Rows) -> Batch:
        """Gather into pinned buffers, copy without waiting."""
        fields = {name: self._buffer(len(rows), spec) for name, spec in self._specs.items()}
        for name, array in self._arrays.items():
            np.take(array, rows, axis=0, out=fields[name].numpy(), mode="clip")  # "raise" would go through a copy
        return self._send(rows, fields)


class MappedResidence(Residence):
    """Images stay in the files' memory maps: only what a batch needs is read."""

    name = "mmap"

    def __init__(self, reader: SplitReader, device: torch.device) -> None:
        super().__init__(reader, device)
        self._reader = reader

    def fetch(self, rows: Rows) -> Batch:
        """Gather from the maps into pinned buffers, copy without waiting."""
        fields = {name: self._buffer(len(rows), spec) for name, spec in self._reader.specs.items()}
        self._reader.gather(rows, {name: field.numpy() for name, field in fields.items()})
        return self._send(rows, fields)


def reside(cache: Cache, reader: SplitReader, device: torch.device, sharing: int = 1) -> Residence:
    """Put the rows where `cache` says; `auto`: the nearest place that has room for them, `sharing` times in host memory.

    Raises
    ------
    ConfigError
        ``mmap`` of compressed shards.
    ShardError
        A shard cannot be read, or differs from the manifest's checksums; mapped images are compared by ``--verify`` alone.
    """
    if cache == "mmap" and reader.compressed:
        raise ConfigError("cache mmap, but the shards are compressed. Use --cache host, or build them uncompressed")
    if cache == "auto":
        cache = nearest(reader, device, sharing)
    kinds: dict[str, type[Residence]] = {"device": DeviceResidence, "host": HostResidence, "mmap": MappedResidence}
    return kinds[cache](reader, device)


def nearest(reader: SplitReader, device: torch.device, sharing: int = 1) -> Cache:
    """Return where ``auto`` puts the rows; `sharing` processes of this machine each do."""
    if device.type == "cuda" and reader.bytes <= DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return "device"
    return "host" if reader.compressed or sharing * reader.bytes <= HOST_SHARE * host_memory() else "mmap"


def host_memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or its control group's."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(name)
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            found.append(int(text))
    return min(found)


def _on_device(reader: SplitReader, name: str, device: torch.device) -> Tensor:
    spec, dtype = reader.specs[name], _torch_dtype(reader.specs[name])
    whole = torch.empty((len(reader), *spec.row_shape), dtype=dtype, device=device)
    blocks = reader.blocks(name)
    most = max(len(shard) for _, shard in blocks)
    staged = torch.empty((most, *spec.row_shape), dtype=dtype, pin_memory=device.type == "cuda")
    for start, shard in blocks:
        part = staged[: len(shard)]
        read_checked(shard, name, part.numpy())
        whole[start : start + len(shard)].copy_(part)
    return whole


def _select(tensor: Tensor, index: Tensor) -> Tensor:
    # torch gathers no uint16: the same bytes as int16.
    if tensor.dtype == torch.uint16:
        return torch.index_select(tensor.view(torch.int16), 0, index).view(torch.uint16)
    return torch.index_select(tensor, 0, index)


def _torch_dtype(spec: DatasetSpec) -> torch.dtype:
    return torch.from_numpy(np.empty(0, spec.dtype)).dtype
