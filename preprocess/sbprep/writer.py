"""Blocks in, one shard file out. The only module that writes HDF5.

The file gets a temporary name; `commit` makes it a shard: fsync, rename, fsync of the folder. Chunks are written
whole and in order, so uncompressed ones follow each other at one stride and readers need one offset.
"""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from sbformat.errors import BuildError
from sbformat.manifest import ChunkTable, ShardRecord, fsync_path
from sbformat.schema import ALIGNMENT, CHUNK_IMAGES, FORMAT_NAME, SCHEMA_VERSION, Compression, DatasetSpec
from sbprep.disk import write_failure

ZSTD_FILTER = 32015  # registered with The HDF Group; hdf5plugin and others read it
_PIECE = 1 << 18  # of a file to hash: stays in the second-level cache
ZSTD_LEVEL = 3  # 1.49 on planar photographs; level 9 gains 2 % more and takes 5 times as long


class ShardWriter:
    """Write one shard under a temporary name beside its final one; a context manager that leaves nothing on failure.

    Parameters
    ----------
    path : Path
        Final path of the shard.
    datasets : dict of DatasetSpec, as `sbformat.schema.shard_datasets` gives it
    capacity : int
        Most images that the shard may get.
    attributes : dict
        Root attributes, beside format and schema.
    compression : {"none", "zstd"}

    Raises
    ------
    BuildError
        The file cannot be written: read-only folder, disk full.
    """

    def __init__(
        self,
        path: Path,
        datasets: dict[str, DatasetSpec],
        capacity: int,
        attributes: dict[str, Any],
        compression: Compression = "none",
    ) -> None:
        self.path = path
        self.temporary = temporary_path(path)
        self.count = 0
        self._datasets = datasets
        self._rows: dict[str, list[NDArray[Any]]] = {name: [] for name in datasets if name != "image"}
        self._checksums = dict.fromkeys(datasets, "")
        self._pack = _packer(compression)
        self._bytes = capacity * sum(spec.row_bytes for spec in datasets.values())  # for the words of a failure
        try:
            self._file = h5py.File(
                self.temporary,
                "w",
                libver=("v110", "v110"),  # read by every HDF5 since 1.10; "latest" follows the library's version
                locking=False,  # the name is ours alone; network file systems refuse locks
                # One block takes the whole chunk index (16 bytes a chunk, doubled as it grows). With HDF5's default of
                # 2048 the index of over 160 chunks lands between them, and they lose their one stride.
                meta_block_size=max(2048, 1 << (16 * -(-capacity // CHUNK_IMAGES) - 1).bit_length()),
                alignment_threshold=ALIGNMENT,
                alignment_interval=ALIGNMENT,
            )
            for name, value in {"format": FORMAT_NAME, "schema": SCHEMA_VERSION, **attributes}.items():
                self._file.attrs[name] = value
            self._image = self._create("image", 0, capacity, CHUNK_IMAGES)
        except (OSError, RuntimeError) as error:
            raise self._failure(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if kind is not None:
            self.discard()

    def append(self, rows: dict[str, NDArray[Any]]) -> None:
        """Add up to 64 images: every dataset's rows. Only the last call may bring fewer than 64."""
        if self.count % CHUNK_IMAGES:
            raise ValueError(f"{self.path}: rows after a partial block of {self.count % CHUNK_IMAGES}")
        image = rows["image"]
        count, chunk = len(image), np.ascontiguousarray(image)
        if count < CHUNK_IMAGES:
            chunk = np.concatenate([chunk, np.zeros((CHUNK_IMAGES - count, *chunk.shape[1:]), chunk.dtype)])
        try:
            self._image.resize(self.count + count, axis=0)
            self._write_chunk("image", self._image, self.count, chunk)
        except (OSError, RuntimeError) as error:
            raise self._failure(error) from error
        for name, collected in self._rows.items():
            collected.append(np.asarray(rows[name], self._datasets[name].dtype))
        self.count += count

    def finish(self) -> ShardRecord:
        """Write the remaining datasets, close the file and return its record. It still has its temporary name."""
        try:
            tables = {"image": self._image}
            for name, collected in self._rows.items():
                dataset = tables[name] = self._create(name, self.count, self.count, self.count)
                self._write_chunk(name, dataset, 0, np.concatenate(collected))
            self._file.flush()
            chunks = {name: self._chunk_table(name, tables[name]) for name in self._datasets}
            self._file.close()
            return self._record(chunks)
        except (OSError, RuntimeError) as error:
            raise self._failure(error) from error

    def discard(self) -> None:
        """Remove the unfinished file."""
        try:
            self._file.close()
        except (OSError, RuntimeError):  # a full disk refuses the flush as well; the file goes anyway
            pass
        self.temporary.unlink(missing_ok=True)

    def _create(self, name: str, rows: int, capacity: int, chunk_rows: int) -> h5py.Dataset:
        spec = self._datasets[name]
        shape = spec.row_shape
        space = h5py.h5s.create_simple((rows, *shape), (capacity, *shape))
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((chunk_rows, *shape))
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # every chunk is written whole
        plist.set_obj_track_times(False)  # the same content must give the same bytes
        if self._pack is not None:
            # Optional, so that libhdf5 accepts the name of a filter that it does not have: chunks arrive packed.
            plist.set_filter(ZSTD_FILTER, h5py.h5z.FLAG_OPTIONAL, (ZSTD_LEVEL,))
        dtype = h5py.h5t.py_create(spec.dtype, logical=True)
        return h5py.Dataset(h5py.h5d.create(self._file.id, name.encode(), dtype, space, plist))

    def _write_chunk(self, name: str, dataset: h5py.Dataset, row: int, chunk: NDArray[Any]) -> None:
        content = np.ascontiguousarray(chunk).data.cast("B") if chunk.size else b""
        packed = content if self._pack is None else self._pack(content)
        dataset.id.write_direct_chunk((row,) + (0,) * (chunk.ndim - 1), packed)
        self._checksums[name] += xxhash.xxh3_64_hexdigest(packed)  # while it is in the processor's cache

    def _chunk_table(self, name: str, dataset: h5py.Dataset) -> ChunkTable:
        places, rows = _chunk_places(dataset), int(dataset.chunks[0])
        offsets = tuple(offset for offset, _ in places)
        if self._pack is not None:
            return ChunkTable(rows, self._checksums[name], offsets=offsets, sizes=tuple(size for _, size in places))
        strides = set(np.diff(offsets).tolist()) or {places[0][1]}
        if len(strides) != 1:
            raise RuntimeError(f"chunks lie at {offsets}, expected one stride")
        return ChunkTable(rows, self._checksums[name], offset=offsets[0], stride=strides.pop())

    def _record(self, chunks: dict[str, ChunkTable]) -> ShardRecord:
        return ShardRecord(
            name=self.path.name,
            count=self.count,
            bytes=self.temporary.stat().st_size,
            xxh3_128=_file_digest(self.temporary),
            datasets={name: table.to_json() for name, table in chunks.items()},
        )

    def _failure(self, error: Exception) -> BuildError:
        return write_failure(self.path, error, self._bytes)


def commit(path: Path, temporary: Path) -> None:
    """Turn a finished temporary file into the shard `path`: durable first, visible then."""
    try:
        fsync_path(temporary)
        temporary.replace(path)
        fsync_path(path.parent)
    except OSError as error:
        raise write_failure(path, error) from error


def temporary_path(path: Path) -> Path:
    """Return a new name for an unfinished `path`: hidden, beside it, swept up by the next build.

    Drawn, for two machines may give a process the same number, and one of them may be at work although it is thought lost.
    """
    return path.with_name(f".{path.name}.{secrets.randbits(63)}.tmp")


def _packer(compression: Compression) -> Callable[[Any], bytes] | None:
    if compression == "none":
        return None
    zstandard = importlib.import_module("zstandard")
    compress: Callable[[Any], bytes] = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress
    return compress


def _chunk_places(dataset: h5py.Dataset) -> list[tuple[int, int]]:
    places: list[tuple[int, ...]] = []
    # chunk_iter walks the index once: 512 calls of get_chunk_info take 190 ms, this 4 ms for 4,096 chunks.
    dataset.id.chunk_iter(lambda info: places.append((info.chunk_offset[0], info.byte_offset, info.size)))
    return [(offset, size) for _, offset, size in sorted(places)]


def _file_digest(path: Path) -> str:
    """Return the xxh3_128 of a file. Read in pieces: a memory map costs a page fault every 64 KB (2.7 to 4.4 us an image)."""
    digest, buffer = xxhash.xxh3_128(), memoryview(bytearray(_PIECE))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
