"""Arrays as they lie in .npy and .npz files, and how the rows of a compressed one are read.

Axes: N images, H W pixels, C channels.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sbformat.errors import BuildError
from sbprep.sources.base import Item, Listing, Rejected, Source
from sbprep.sources.failures import raise_if_machine
from sbprep.sources.records import hwc, open_listed
from sbprep.sources.spill import Spill


@dataclass(frozen=True, kw_only=True)
class StoredArray:
    """An array that is on disk: what its header says and the ways to read it.

    ``offset`` is the byte where it lies plainly, None if compressed or in chunks: then ``rows`` makes the source that reads it.
    ``content`` is the number of bytes that are there, whatever the header claims.
    """

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int | None
    content: int
    load: Callable[[], NDArray[Any]]
    rows: Callable[[tuple[int, ...], tuple[int, ...]], Source] | None = None

    @property
    def given(self) -> str:
        """Place, dtype and shape, as errors begin."""
        return f"{self.where}: {self.dtype} {self.shape}"

    @property
    def nbytes(self) -> int:
        """Bytes that the header claims."""
        return self.dtype.itemsize * math.prod(self.shape)


def npy_arrays(path: Path) -> dict[str, StoredArray]:
    """Return the array of an .npy file, under the name ``images``."""
    with path.open("rb") as stream:
        shape, fortran, dtype = _npy_header(stream)
        offset = stream.tell()
    stored = StoredArray(
        where=str(path),
        shape=shape,
        dtype=dtype,
        fortran=fortran,
        offset=offset,
        content=path.stat().st_size - offset,
        load=lambda: np.load(path, allow_pickle=False),
    )
    return {"images": stored}


def npz_arrays(path: Path) -> dict[str, StoredArray]:
    """Return the arrays of an .npz file by name."""
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        return {info.filename.removesuffix(".npy"): _npz_array(path, archive, info) for info in infos}


def _npz_array(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> StoredArray:
    with archive.open(info) as stream:
        shape, fortran, dtype = _npy_header(stream)
        header = stream.tell()
    where = f"{path}[{info.filename.removesuffix('.npy')}]"

    def rows(shape: tuple[int, ...], axes: tuple[int, ...]) -> PackedRows:
        return PackedRows(path=path, member=info.filename, header=header, shape=shape, axes=axes)

    stored = _content_offset(path, info) + header if info.compress_type == zipfile.ZIP_STORED else None
    return StoredArray(
        where=where,
        shape=shape,
        dtype=dtype,
        fortran=fortran,
        offset=stored,
        content=info.file_size - header if stored is None else path.stat().st_size - stored,
        load=lambda: _load_member(path, info.filename),
        rows=rows,
    )


def _content_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Return where the bytes of a stored member begin: the local header repeats name and extra, of other lengths."""
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        name, extra = np.frombuffer(file.read(4), "<u2").tolist()
    return info.header_offset + 30 + int(name) + int(extra)


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    if np.lib.format.read_magic(stream) == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)  # 3.0 differs in the names of fields only
    return shape, fortran, dtype


def _load_member(path: Path, member: str) -> NDArray[Any]:
    with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        return array


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedRows:
    """Images in a compressed member of an .npz, which can only be inflated from its beginning.

    ``header`` is the number of bytes before the first image; a row's key is (0, byte offset after them).
    ``scratch`` is the folder in which a pass keeps images, see `Spill`.
    """

    path: Path
    member: str
    header: int
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    scratch: Path | None = None

    @property
    def sequential(self) -> bool:
        """True: a read inflates the whole member."""
        return True

    def read(self, part: Listing) -> Iterator[Item]:
        """Yield (H, W, 3) uint8 for each row of `part`, all put aside first in one pass.

        Raises
        ------
        MachineError
            The disk or the system fails, see `failures`.
        BuildError
            There is no room to put images aside.
        """
        assert part.keys is not None
        if not len(part):
            return
        with Spill(self.scratch) as spill:
            refused = self._put_aside(np.unique(part.keys[:, 1]).tolist(), int(part.stamps[0]), spill)
            for offset in part.keys[:, 1].tolist():
                item = refused or spill.get(offset)
                if isinstance(item, bytes):
                    yield hwc(np.frombuffer(item, np.uint8).reshape(self.shape), self.axes)
                else:
                    yield item

    def _put_aside(self, offsets: list[int], stamp: int, spill: Spill) -> Rejected | None:
        """Put the images at these ascending offsets aside; where the file is changed or damaged, say why none is."""
        handle = open_listed(self.path, stamp)
        if isinstance(handle, Rejected):
            return handle
        try:
            with handle, zipfile.ZipFile(handle) as archive, archive.open(self.member) as stream:
                for offset in offsets:
                    stream.seek(self.header + offset)
                    spill.put(offset, stream.read(math.prod(self.shape)))
                while stream.read(1 << 20):  # to the end, where the checksum is
                    pass
        except BuildError:
            raise
        except Exception as err:  # a damaged file fails in any way at all
            raise_if_machine(err, self.path)
            return Rejected("unreadable", f"{self.path}[{self.member}]: {type(err).__name__}: {err}")
        return None
