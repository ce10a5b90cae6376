"""Every row of a split, over all its shards, by number: from memory maps, around libhdf5.

Axes: B rows asked for.
"""

from __future__ import annotations

import resource
import threading
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from sbformat.errors import FormatError, ShardError
from sbformat.manifest import Manifest
from sbformat.records import ShardRecord
from sbformat.schema import DatasetSpec
from sbformat.shard import Shard, open_shard

Rows = NDArray[np.int64]

#: Datasets of smaller rows are read whole: all of them together are 1 % of the images, and a row of 144 bytes costs
#: 0.6 us by itself, 0.03 us among others.
SMALL_ROW = 1024
#: Files that are open beside the shards: libraries, logs, sockets of ranks.
OTHER_FILES = 512


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
            raise FormatError(f"{manifest.root} has splits {', '.join(manifest.splits)}, no {split}. Use one of them")
        self.specs: dict[str, DatasetSpec] = {}
        for name in names:
            if name not in manifest.datasets(split):
                raise FormatError(f"{manifest.root}: split {split} has no {_remedy(name)}")
            self.specs[name] = manifest.datasets(split)[name]
        records = [record for record in manifest.splits[split].shards if record.count]
        if not records:
            raise FormatError(f"{manifest.root}: split {split} has no images. Build it: sbprep build --{split} PATH")
        self.root = manifest.root
        self.compressed = manifest.compression != "none"
        self._classes = {
            "target_single": manifest.target.single_classes,
            "target_dual": manifest.target.dual_classes,
        }
        _allow_files(2 * len(records))
        self._shards: list[Shard] = [open_shard(manifest, split, record) for record in records]
        self._starts = np.concatenate([[0], np.cumsum([record.count for record in records])]).astype(np.int64)
        self._maps: dict[str, list[NDArray[Any]]] = {}
        self._whole: dict[str, NDArray[Any]] = {}
        self._retired: list[Shard] = []
        self._changing = threading.Lock()

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def bytes(self) -> int:
        """Bytes of all rows together."""
        return len(self) * sum(spec.row_bytes for spec in self.specs.values())

    def gather(self, rows: Rows, out: dict[str, NDArray[Any]]) -> None:
        """Copy `rows` (B,), in their order, into the arrays of `out`, (B, ...) each and C-contiguous."""
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        places = list(zip(shards.tolist(), (rows - self._starts[shards]).tolist(), strict=True))
        for name, target in out.items():
            if self.specs[name].row_bytes < SMALL_ROW:
                np.take(self._whole_of(name), rows, axis=0, out=target, mode="clip")
                continue
            arrays, flat = self._maps_of(name), target.reshape(len(rows), -1)
            # A plain loop: 2 us a row of 27,648 bytes, 0.5 of them Python's; a fancy index per shard touches as many.
            for i, (shard, row) in enumerate(places):
                flat[i] = arrays[shard][row]
            self._check(name, target, rows)

    def read(self, name: str) -> NDArray[Any]:
        """Read a whole dataset into memory, checked.

        Raises
        ------
        ShardError
            A shard cannot be read or is damaged.
        """
        spec = self.specs[name]
        whole = np.empty((len(self), *spec.row_shape), spec.dtype)
        for start, shard in self.blocks(name):
            read_checked(shard, name, whole[start : start + len(shard)])
        return whole

    @property
    def records(self) -> list[ShardRecord]:
        """The manifest's entries of the shards."""
        return [shard.record for shard in self._shards]

    def replace(self, number: int, path: Path) -> None:
        """Read shard `number` from `path`, a copy of it, from now on; any thread may be reading meanwhile.

        Raises
        ------
        ShardError
            It cannot be opened, or has another size.
        """
        old = self._shards[number]
        new = Shard(path, old.record, old.datasets)
        with self._changing:
            self._retired.append(old)  # a thread may be reading it
            self._shards[number] = new
            for name, arrays in self._maps.items():
                arrays[number] = new.array(name).reshape(len(new), -1)

    def blocks(self, name: str) -> list[tuple[int, Shard]]:
        """Return (first row, shard) of every shard."""
        return list(zip(self._starts[:-1].tolist(), self._shards, strict=True))

    def damage(self) -> list[str]:
        """Return what differs from the manifest's checksums, one line a damaged chunk."""
        return [f"{shard.path}: {line}" for shard in self._shards for line in shard.damage()]

    def close(self) -> None:
        """Close every shard."""
        self._maps.clear()
        self._whole.clear()
        for shard in (*self._shards, *self._retired):
            shard.close()

    def _maps_of(self, name: str) -> list[NDArray[Any]]:
        if name not in self._maps:
            with self._changing:
                self._maps[name] = [shard.array(name).reshape(len(shard), -1) for shard in self._shards]
        return self._maps[name]

    def _whole_of(self, name: str) -> NDArray[Any]:
        if name not in self._whole:
            self._whole[name] = self.read(name)
        return self._whole[name]

    def _check(self, name: str, values: NDArray[Any], rows: Rows) -> None:
        # Of mapped rows nothing else is checked: one that is no class must not reach the loss, where CUDA would only abort.
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


def read_checked(shard: Shard, name: str, out: NDArray[Any]) -> None:
    """Read a dataset of one shard, every chunk compared with its checksum while the processor's cache still holds it.

    From the page cache that takes 1.12 times as long as reading alone (5.5 against 6.2 GB/s, one core).

    Parameters
    ----------
    shard : Shard
    name : str
    out : (count, *row shape), of the dataset's dtype, C-contiguous

    Raises
    ------
    ShardError
        The shard cannot be read, or a chunk is damaged.
    """
    table, count = shard.chunks[name], len(shard)
    for chunk in range(len(table)):
        start, stop = chunk * table.rows, min((chunk + 1) * table.rows, count)
        rows = shard.read(name, start, stop, out[start:stop])
        if table.compressed:  # checked before it was unpacked
            continue
        digest = xxhash.xxh3_64(rows.reshape(-1).view(np.uint8).data)
        digest.update(bytes((start + table.rows - stop) * shard.datasets[name].row_bytes))  # zeros fill the last chunk
        if digest.hexdigest() != table.checksum(chunk):
            raise ShardError(
                f"{shard.path}: {name} chunk {chunk} (images {start} to {stop - 1}): its checksum is not the manifest's: "
                f"damaged. Find all damage with --verify, rebuild: sbprep verify --repair {shard.path.parent.parent}"
            )


def _remedy(name: str) -> str:
    if name == "label":
        return "labels. Choose a labeled split, or build one with sbprep build --train PATH"
    return f"{name}: this color space does not store it"


def _allow_files(count: int) -> None:
    """Let this process open so many files, as far as the system permits: 1,024 is the usual limit and soon too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
