"""Read one shard: check it once, then take rows at plain file offsets, without libhdf5.

libhdf5 holds one lock for the whole process and reads a fancy index about 1,000 times slower than memory
(docs/benchmarks.md), so an uncompressed dataset is one read-only memory map, and sequential blocks come by
`os.preadv`. Compressed chunks are read at their offsets and unpacked one by one.
"""

from __future__ import annotations

import importlib
import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from sbformat.errors import ShardError
from sbformat.manifest import ChunkTable, Manifest, ShardRecord
from sbformat.schema import DatasetSpec


class Shard:
    """One open shard, read-only. A context manager; may be shared by threads; not by forked processes.

    Parameters
    ----------
    path : Path
    record : ShardRecord, the manifest's entry
    datasets : dict of DatasetSpec, from `Manifest.datasets`

    Raises
    ------
    ShardError
        The file is missing or has another size than the manifest says.
    """

    def __init__(self, path: Path, record: ShardRecord, datasets: dict[str, DatasetSpec]) -> None:
        self.path = path
        self.record = record
        self.datasets = datasets
        self.chunks: dict[str, ChunkTable] = {name: record.chunks(name) for name in datasets}
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ShardError(f"{path}: missing, the manifest lists it. Rebuild it: {_repair(path)}") from None
        except OSError as error:
            raise ShardError(f"{path}: cannot be opened ({error.strerror})") from error
        found = os.fstat(self._file).st_size
        if found != record.bytes:
            os.close(self._file)
            raise ShardError(
                f"{path}: {found:,} bytes, the manifest says {record.bytes:,}. Rebuild it: {_repair(path)}"
            )
        self._map: mmap.mmap | None = mmap.mmap(self._file, 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return self.record.count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Arrays that still view its memory map keep that alive until they go."""
        if self._map is not None:
            try:
                self._map.close()
            except BufferError:  # views of it exist: the map closes with the last of them
                pass
            self._map = None
            os.close(self._file)

    def array(self, dataset: str) -> NDArray[Any]:
        """Return the dataset, shape (count, *row shape), read-only.

        Uncompressed: a view of the memory map, so nothing is read until it is touched, and ``array[rows]`` gathers
        at memory speed. Compressed: unpacked into memory whole.
        """
        spec, table = self.datasets[dataset], self.chunks[dataset]
        if table.compressed or table.stride != table.rows * spec.row_bytes:
            return self.read(dataset, 0, len(self))
        assert self._map is not None, "shard is closed"
        rows = np.ndarray((len(self), *spec.row_shape), spec.dtype, buffer=self._map, offset=table.offset)
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
            The file ended early, or a compressed chunk does not unpack.
        """
        spec, table = self.datasets[dataset], self.chunks[dataset]
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"{self.path}: rows [{start}, {stop}) of {len(self)}")
        if out is None:
            out = np.empty((stop - start, *spec.row_shape), spec.dtype)
        flat = out.reshape(-1).view(np.uint8)
        position = start
        while position < stop:
            chunk, first = divmod(position, table.rows)
            until = min(stop, (chunk + 1) * table.rows)
            target = flat[(position - start) * spec.row_bytes : (until - start) * spec.row_bytes]
            self._read_chunk_part(dataset, chunk, first * spec.row_bytes, target)
            position = until
        return out

    def _read_chunk_part(self, dataset: str, chunk: int, skip: int, target: NDArray[np.uint8]) -> None:
        spec, table = self.datasets[dataset], self.chunks[dataset]
        offset, size = table.extent(chunk, spec.row_bytes)
        if not table.compressed:
            self._pread(target, offset + skip)
            return
        packed = np.empty(size, np.uint8)
        self._pread(packed, offset)
        raw = _unpack(packed, table.rows * spec.row_bytes, self.path, chunk)
        target[:] = np.frombuffer(raw, np.uint8)[skip : skip + len(target)]

    def _pread(self, target: NDArray[np.uint8], offset: int) -> None:
        done = 0
        while done < len(target):
            count = os.preadv(self._file, [memoryview(target)[done:]], offset + done)
            if count == 0:
                raise ShardError(f"{self.path}: ends at byte {offset + done:,}. Rebuild it: {_repair(self.path)}")
            done += count

    def damage(self) -> list[str]:
        """Compare every byte with the manifest's checksums.

        Returns
        -------
        list of str
            One line for each damaged chunk, ``image chunk 3 (images 192 to 255)``; one line for damage outside the
            chunks; empty for a sound file.
        """
        content = np.frombuffer(self._map or b"", np.uint8)
        if xxhash.xxh3_128_hexdigest(content) == self.record.xxh3_128:
            return []
        found = [line for dataset in self.datasets for line in self._damaged_chunks(dataset, content)]
        return found or ["HDF5 structure (outside every chunk; the images themselves are sound)"]

    def _damaged_chunks(self, dataset: str, content: NDArray[np.uint8]) -> list[str]:
        table, lines = self.chunks[dataset], []
        for chunk in range(len(table)):
            offset, size = table.extent(chunk, self.datasets[dataset].row_bytes)
            if xxhash.xxh3_64_hexdigest(content[offset : offset + size]) != table.checksum(chunk):
                last = min((chunk + 1) * table.rows, len(self)) - 1
                lines.append(f"{dataset} chunk {chunk} (images {chunk * table.rows} to {last})")
        return lines


def open_shard(manifest: Manifest, split: str, shard: ShardRecord) -> Shard:
    """Open one shard of a manifest."""
    return Shard(manifest.shard_path(split, shard), shard, manifest.datasets(split))


def _unpack(packed: NDArray[np.uint8], size: int, path: Path, chunk: int) -> bytes:
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError as error:
        raise ShardError(f"{path} is compressed with zstd: pip install zstandard") from error
    try:
        raw: bytes = zstandard.ZstdDecompressor().decompress(packed, max_output_size=size)
    except zstandard.ZstdError as error:
        raise ShardError(f"{path}: chunk {chunk} does not unpack ({error}). Rebuild it: {_repair(path)}") from error
    if len(raw) != size:
        raise ShardError(f"{path}: chunk {chunk} unpacks to {len(raw):,} bytes, expected {size:,}")
    return raw


def _repair(path: Path) -> str:
    return f"sbprep verify --repair {path.parent.parent}"
