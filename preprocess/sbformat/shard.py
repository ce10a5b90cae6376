"""Read one shard: check it once, then take rows at plain file offsets, without libhdf5.

libhdf5 holds one lock for the whole process and reads a fancy index about 1,000 times slower than memory
(docs/benchmarks.md), so an uncompressed dataset is one read-only memory map, and sequential blocks come by
`os.preadv`. Compressed chunks are read at their offsets, checked and unpacked one by one.
"""

from __future__ import annotations

import errno
import importlib
import mmap
import os
import resource
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from sbformat.errors import ShardError
from sbformat.manifest import ChunkTable, Manifest, ShardRecord
from sbformat.schema import DatasetSpec

_BLOCK = 4 << 20  # bytes that `damage` reads at a time


class Shard:
    """One open shard, read-only. A context manager; may be shared by threads.

    Parameters
    ----------
    path : Path
    record : ShardRecord, the manifest's entry; one of no images has no file and cannot be opened
    datasets : dict of DatasetSpec, from `Manifest.datasets`

    Raises
    ------
    ShardError
        The file is missing or has another size than the manifest says.
    ValueError
        `record.count` is 0.
    """

    def __init__(self, path: Path, record: ShardRecord, datasets: dict[str, DatasetSpec]) -> None:
        if record.count == 0:
            raise ValueError(f"{path}: a shard of no images has no file; pass over records with count 0")
        self.path = path
        self.record = record
        self.datasets = datasets
        self.chunks: dict[str, ChunkTable] = {name: record.chunks(name) for name in datasets}
        self._map: mmap.mmap | None = None
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ShardError(f"{path}: missing, the manifest lists it. Rebuild it: {_repair(path)}") from None
        except OSError as error:
            remedy = _raise_limit(error) or f"Permit reading, or rebuild it: {_repair(path)}"
            raise ShardError(f"{path}: cannot be opened ({error.strerror}). {remedy}") from error
        found = os.fstat(self._file).st_size
        if found != record.bytes:
            os.close(self._file)
            raise ShardError(
                f"{path}: {found:,} bytes, the manifest says {record.bytes:,}. Rebuild it: {_repair(path)}"
            )

    def __len__(self) -> int:
        return self.record.count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Arrays that `array` gave stay valid: they keep its memory map until the last of them goes."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._map = None

    def array(self, dataset: str) -> NDArray[Any]:
        """Return the dataset, shape (count, *row shape), read-only.

        Where the chunks lie without gaps a view of the memory map: nothing is read until it is touched, and
        ``array[rows]`` gathers at memory speed. Else (compressed, an image chunk of no whole number of pages, a few
        unaligned rows) read into memory whole.

        Raises
        ------
        ShardError
            As `read`, or the file cannot be mapped.
        """
        spec, table = self.datasets[dataset], self.chunks[dataset]
        aligned = table.offset % spec.dtype.alignment == 0  # small datasets lie at any byte
        if table.compressed or table.stride != table.rows * spec.row_bytes or not aligned:
            rows = self.read(dataset, 0, len(self))
        else:
            shape = (len(self), *spec.row_shape)
            rows = np.ndarray(shape, spec.dtype, buffer=self._mapped(), offset=table.offset)
        rows.flags.writeable = False
        return rows

    def read(self, dataset: str, start: int, stop: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Read rows [start, stop) into `out`, or into a new array.

        Parameters
        ----------
        dataset : str
        start, stop : int in [0, count]
        out : C-contiguous array (stop - start, *row shape) of the dataset's dtype, optional

        Raises
        ------
        ShardError
            The file cannot be read or ended early, or a compressed chunk is damaged.
        IndexError
            `start` or `stop` outside the shard.
        ValueError
            `out` has another shape, dtype or layout; or the shard is closed.
        """
        spec, table = self.datasets[dataset], self.chunks[dataset]
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"{self.path}: rows [{start}, {stop}) of {len(self)}")
        shape = (stop - start, *spec.row_shape)
        if out is None:
            out = np.empty(shape, spec.dtype)
        elif out.shape != shape or out.dtype != spec.dtype or not out.flags.c_contiguous:
            raise ValueError(f"out is {out.dtype} {out.shape}, expected C-contiguous {spec.dtype} {shape}")
        flat = out.reshape(-1).view(np.uint8)
        position = start
        while position < stop:
            chunk, first = divmod(position, table.rows)
            until = min(stop, (chunk + 1) * table.rows)
            target = flat[(position - start) * spec.row_bytes : (until - start) * spec.row_bytes]
            self._read_chunk_part(dataset, chunk, first * spec.row_bytes, target)
            position = until
        return out

    def damage(self) -> list[str]:
        """Compare every byte with the manifest's checksums.

        Returns
        -------
        list of str
            One line for each damaged chunk, ``image chunk 3 (images 192 to 255)``; one line for damage outside the
            chunks; empty for a sound file.

        Raises
        ------
        ShardError
            The file cannot be read or was cut since it was opened.
        """
        # Read, not mapped: under a map an unreadable sector or a cut file kills the process.
        digest, buffer = xxhash.xxh3_128(), np.empty(min(_BLOCK, self.record.bytes), np.uint8)
        for offset in range(0, self.record.bytes, _BLOCK):
            block = buffer[: self.record.bytes - offset]
            self._pread(block, offset)
            digest.update(block.data)
        if digest.hexdigest() == self.record.xxh3_128:
            return []
        found = [line for dataset in self.datasets for line in self._damaged_chunks(dataset)]
        return found or ["HDF5 structure (outside every chunk; the images themselves are sound)"]

    def _mapped(self) -> mmap.mmap:
        self._check_open()
        if self._map is None:
            try:
                self._map = mmap.mmap(self._file, self.record.bytes, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                remedy = _raise_limit(error) or "Leave --cache mmap out, or copy the shards to a local disk"
                raise ShardError(f"{self.path}: cannot be mapped into memory ({error}). {remedy}") from error
        return self._map

    def _read_chunk_part(self, dataset: str, chunk: int, skip: int, target: NDArray[np.uint8]) -> None:
        spec, table = self.datasets[dataset], self.chunks[dataset]
        offset, size = table.extent(chunk, spec.row_bytes)
        if not table.compressed:
            self._pread(target, offset + skip)
            return
        packed = np.empty(size, np.uint8)
        self._pread(packed, offset)
        # zstd unpacks most flipped bits into other pixels without a word. Checking costs 1 % of unpacking.
        if xxhash.xxh3_64_hexdigest(packed.data) != table.checksum(chunk):
            raise ShardError(f"{self.path}: {dataset} chunk {chunk} is damaged. Rebuild it: {_repair(self.path)}")
        raw = _unpack(packed, table.rows * spec.row_bytes, self.path)
        target[:] = np.frombuffer(raw, np.uint8)[skip : skip + len(target)]

    def _pread(self, target: NDArray[np.uint8], offset: int) -> None:
        self._check_open()
        done = 0
        while done < len(target):
            try:
                count = os.preadv(self._file, [target.data[done:]], offset + done)
            except OSError as error:
                raise ShardError(
                    f"{self.path}: byte {offset + done:,} cannot be read ({error.strerror}). "
                    f"Check the disk, or rebuild it: {_repair(self.path)}"
                ) from error
            if count == 0:
                raise ShardError(f"{self.path}: ends at byte {offset + done:,}. Rebuild it: {_repair(self.path)}")
            done += count

    def _damaged_chunks(self, dataset: str) -> list[str]:
        table, row_bytes, lines = self.chunks[dataset], self.datasets[dataset].row_bytes, []
        for chunk in range(len(table)):
            offset, size = table.extent(chunk, row_bytes)
            content = np.empty(size, np.uint8)
            self._pread(content, offset)
            if xxhash.xxh3_64_hexdigest(content.data) != table.checksum(chunk):
                last = min((chunk + 1) * table.rows, len(self)) - 1
                lines.append(f"{dataset} chunk {chunk} (images {chunk * table.rows} to {last})")
        return lines

    def _check_open(self) -> None:
        if self._file < 0:
            raise ValueError(f"{self.path}: this shard is closed")


def open_shard(manifest: Manifest, split: str, shard: ShardRecord) -> Shard:
    """Open one shard of a manifest."""
    return Shard(manifest.shard_path(split, shard), shard, manifest.datasets(split))


def _unpack(packed: NDArray[np.uint8], size: int, path: Path) -> bytes:
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError as error:
        raise ShardError(f"{path} is compressed with zstd: pip install zstandard") from error
    raw: bytes = zstandard.ZstdDecompressor().decompress(packed, max_output_size=size)
    return raw


def _raise_limit(error: OSError | ValueError) -> str:
    """Return what to do where it is not the file that is at fault but how many of them a process may have."""
    number = getattr(error, "errno", None)
    if number in (errno.EMFILE, errno.ENFILE):
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"{allowed:,} open files are allowed, and a mapped shard takes two: raise the limit, ulimit -n 1048576"
    if number == errno.ENOMEM:
        return "A process may have so many maps only: raise the limit, sysctl vm.max_map_count=1048576"
    return ""


def _repair(path: Path) -> str:
    return f"sbprep verify --repair {path.parent.parent}"
