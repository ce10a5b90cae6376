"""Arrays in HDF5 files: plain ones lie at an offset, chunked ones are read chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sbformat.errors import SourceError
from sbformat.schema import FORMAT_NAME
from sbprep.sources.array_files import StoredArray
from sbprep.sources.base import Item, Listing, Rejected
from sbprep.sources.failures import raise_if_machine
from sbprep.sources.records import hwc, open_listed

#: Most bytes of one chunk; while it is read it lies in memory packed, unpacked and between two filters.
MAX_CHUNK_BYTES = 64 << 20
#: Bytes of rows that are gathered before they are given out.
GATHER_BYTES = 32 << 20
#: Most images of a dataset whose content lies in other files; of one in chunks there are no more than bytes in the file.
MAX_IMAGES_ELSEWHERE = 1 << 25


def _open_hdf5(path: Path) -> Any:
    return h5py.File(path, "r", locking=False)  # read-only and network disks refuse locks, and nobody writes here


def hdf5_arrays(path: Path) -> dict[str, StoredArray]:
    """Return the datasets in the root group of an HDF5 file by name.

    Raises
    ------
    SourceError
        The file is a shard of a build.
    """
    with _open_hdf5(path) as file:
        if file.attrs.get("format") == FORMAT_NAME:
            raise SourceError(
                f"{path}: a shard that sbprep build wrote, expected images; build from the images that it was made of, "
                "or look at it with `sbprep inspect`"
            )
        found = {name: file.get(name) for name in file}
        return {
            name: _hdf5_array(path, name, item)
            for name, item in found.items()
            if isinstance(item, h5py.Dataset) and item.shape is not None
        }


def _hdf5_array(path: Path, name: str, dataset: Any) -> StoredArray:
    chunks = dataset.chunks or (64,)
    plain = dataset.chunks is None and not dataset.external and not dataset.is_virtual
    offset = dataset.id.get_offset() if plain else None
    count = dataset.shape[0] if dataset.shape else 0
    most = path.stat().st_size if dataset.chunks else MAX_IMAGES_ELSEWHERE

    def load() -> NDArray[Any]:
        with _open_hdf5(path) as file:
            array: NDArray[Any] = file[name][()]
            return array

    def rows(shape: tuple[int, ...], axes: tuple[int, ...]) -> ChunkedRows:
        if math.prod(chunks) > MAX_CHUNK_BYTES:
            raise SourceError(
                f"{path}[{name}]: chunks of {math.prod(chunks)} bytes, at most {MAX_CHUNK_BYTES} are held in memory; "
                "write it with chunks of fewer images"
            )
        if count > most:
            raise SourceError(
                f"{path}[{name}]: {count} images in a file of {path.stat().st_size} bytes, expected at most {most}; write it again"
            )
        with _open_hdf5(path) as file:
            file[name][:1]  # a filter that is not installed fails here and not once an image
        block = min(chunks[0], max(1, GATHER_BYTES // math.prod(shape)))
        return ChunkedRows(path=path, dataset=name, shape=shape, axes=axes, block=block)

    return StoredArray(
        where=f"{path}[{name}]",
        shape=dataset.shape,
        dtype=dataset.dtype,
        fortran=False,
        offset=offset,
        content=_written(dataset) if offset is None else path.stat().st_size - offset,
        load=load,
        rows=rows,
    )


def _written(dataset: Any) -> int:
    """Return the bytes that are there, all of them where at least half are: writing may have ended early in a chunk.

    A file of 17 kB can claim 10^8 images in chunks that were never written, and HDF5 gives zeros for them.
    """
    if dataset.is_virtual:
        return int(dataset.nbytes)
    if dataset.chunks is None:
        return int(dataset.nbytes) if dataset.id.get_storage_size() else 0
    chunks = int(dataset.id.get_num_chunks() * math.prod(dataset.chunks) * dataset.dtype.itemsize)
    return int(dataset.nbytes) if 2 * chunks >= dataset.nbytes else chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkedRows:
    """Images in a chunked HDF5 dataset, `block` rows to a chunk."""

    path: Path
    dataset: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    block: int

    @property
    def sequential(self) -> bool:
        """False: any chunk can be read by itself."""
        return False

    def read(self, part: Listing) -> Iterator[Item]:
        """Yield (H, W, 3) uint8 for each row of `part`; a chunk is read once for all its rows among `GATHER_BYTES`."""
        assert part.keys is not None
        window = max(1, GATHER_BYTES // math.prod(self.shape))
        rows = part.keys[:, 1] // math.prod(self.shape)
        for start in range(0, len(part), window):
            records = self._gather(rows[start : start + window], int(part.stamps[start]))
            if isinstance(records, Rejected):
                yield from [records] * len(rows[start : start + window])
            else:
                for record in records:
                    yield hwc(record, self.axes)

    def _gather(self, rows: NDArray[np.int64], stamp: int) -> NDArray[np.uint8] | Rejected:
        handle = open_listed(self.path, stamp)
        if isinstance(handle, Rejected):
            return handle
        handle.close()
        try:
            with _open_hdf5(self.path) as file:
                return self._read_blocks(file[self.dataset], rows)
        except Exception as err:  # a damaged file fails in any way at all
            raise_if_machine(err, self.path)
            return Rejected("unreadable", f"{self.path}[{self.dataset}]: {type(err).__name__}: {err}")

    def _read_blocks(self, dataset: Any, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        records = np.empty((len(rows), *self.shape), np.uint8)
        for block in np.unique(rows // self.block):
            places = np.flatnonzero(rows // self.block == block)
            first, last = rows[places].min(), rows[places].max()
            found = dataset[first : last + 1].reshape(-1, *self.shape)
            records[places] = found[rows[places] - first]
        return records
