"""Arrays of images: ``.npy``, ``.npz`` and HDF5 files.

Images are uint8, in a file of one array or under ``images``, ``x`` or ``data``; labels are ``labels`` or ``y``. A file
of several splits puts the split before or after: ``x_train`` and ``y_train``, ``test_images`` and ``test_labels``.

Axes: N images, H W pixels, C channels. (N, H, W, 3), (N, 3, H, W), and gray (N, H, W), (N, H, W, 1), (N, 1, H, W).
Rows that lie plainly in the file are read there, whatever the size; only compressed ones need more (see `MAX_WHOLE`).
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import IO, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sbformat.errors import SourceError
from sbprep.sources.base import SPLITS, Item, Listing, Rejected, Split
from sbprep.sources.stl10 import RecordFiles, hwc, open_listed, record_listing

#: Bytes that may be held in memory at once where a file is compressed: one array of an .npz, one chunk of HDF5.
MAX_WHOLE = 1 << 29
#: Bytes of HDF5 rows that are gathered before they are given out.
GATHER_BYTES = 1 << 26
#: Most classes; a label beyond it is an identifier, not the number of a class.
MAX_CLASSES = 1_000_000

_SUFFIXES = {".npy": "npy", ".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5"}
_IMAGES, _LABELS = ("images", "x", "data"), ("labels", "y")
_SPLIT_WORDS = {
    "unlabeled": "unlabeled",
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_INFLATING = Lock()  # or each thread of a process would inflate its own copy


def matches(path: Path) -> bool:
    """Whether `path` is a file named ``.npy``, ``.npz``, ``.h5`` or ``.hdf5``."""
    try:
        return path.suffix.lower() in _SUFFIXES and path.is_file()
    except OSError:
        return False


def splits(path: Path) -> dict[str, Split]:
    """Return the splits of a file; a lone set of images is train if it has labels, else unlabeled.

    Labels (N,) or (N, 1) are class numbers from 0 on, with their decimal digits as names; (N, A) of zeros and ones are
    attributes ``attribute_0``, ...

    Raises
    ------
    SourceError
        Broken file; no images or several candidates; images that are not uint8, of another shape or in Fortran order;
        labels that are missing, too few, too many or out of range; pickled objects; compressed beyond `MAX_WHOLE`.
    """
    kind = _SUFFIXES.get(path.suffix.lower())
    try:
        if kind is None or not path.is_file():
            raise SourceError(f"{path}: expected a file named {', '.join(_SUFFIXES)}; rename it, or check the path")
        arrays = {"npy": _npy_arrays, "npz": _npz_arrays, "hdf5": _hdf5_arrays}[kind](path)
        return _splits(path, kind, _by_split(path, arrays))
    except SourceError:
        raise
    except Exception as err:  # a damaged file fails in any way at all
        raise SourceError(
            f"{path}: cannot be read ({type(err).__name__}: {err}), expected a whole .npy, .npz, .h5 or .hdf5 file; "
            "check it or write it again"
        ) from err


@dataclass(frozen=True, slots=True, kw_only=True)
class InflatedRows:
    """Images in a compressed member of an .npz: each process inflates it once and keeps the last one."""

    path: Path
    member: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def sequential(self) -> bool:
        """False: once inflated, any row is at hand."""
        return False

    def read(self, part: Listing) -> Iterator[Item]:
        """Yield (H, W, 3) uint8 for each row of `part`."""
        assert part.keys is not None
        if not len(part):
            return
        records = self._records(int(part.stamps[0]))
        for offset in part.keys[:, 1].tolist():
            if isinstance(records, Rejected):
                yield records
            else:
                yield hwc(records[offset // math.prod(self.shape)], self.axes)

    def _records(self, stamp: int) -> NDArray[np.uint8] | Rejected:
        handle = open_listed(self.path, stamp)
        if isinstance(handle, Rejected):
            return handle
        handle.close()
        try:
            with _INFLATING:
                return _inflated(self.path, self.member, stamp).reshape(-1, *self.shape)
        except Exception as err:  # a damaged file fails in any way at all
            return Rejected("unreadable", f"{self.path}[{self.member}]: {type(err).__name__}: {err}")


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
            return Rejected("unreadable", f"{self.path}[{self.dataset}]: {type(err).__name__}: {err}")

    def _read_blocks(self, dataset: Any, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        records = np.empty((len(rows), *self.shape), np.uint8)
        for block in np.unique(rows // self.block):
            places = np.flatnonzero(rows // self.block == block)
            first, last = rows[places].min(), rows[places].max()
            found = dataset[first : last + 1].reshape(-1, *self.shape)
            records[places] = found[rows[places] - first]
        return records


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """An array that is on disk: what its header says and the ways to read it.

    ``offset`` is the byte where it lies plainly, None if compressed: then ``rows`` makes the source that reads it.
    ``content`` is the number of bytes that are there, whatever the header claims.
    """

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int | None
    content: int
    load: Callable[[], NDArray[Any]]
    rows: Callable[[tuple[int, ...], tuple[int, ...]], InflatedRows | ChunkedRows] | None = None

    @property
    def given(self) -> str:
        return f"{self.where}: {self.dtype} {self.shape}"

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


def _npy_arrays(path: Path) -> dict[str, _Stored]:
    with path.open("rb") as stream:
        shape, fortran, dtype = _npy_header(stream)
        offset = stream.tell()
    stored = _Stored(
        where=str(path),
        shape=shape,
        dtype=dtype,
        fortran=fortran,
        offset=offset,
        content=path.stat().st_size - offset,
        load=lambda: np.load(path, allow_pickle=False),
    )
    return {"images": stored}


def _npz_arrays(path: Path) -> dict[str, _Stored]:
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        return {info.filename.removesuffix(".npy"): _npz_array(path, archive, info) for info in infos}


def _npz_array(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Stored:
    with archive.open(info) as stream:
        shape, fortran, dtype = _npy_header(stream)
        header = stream.tell()
    where = f"{path}[{info.filename.removesuffix('.npy')}]"

    def rows(shape: tuple[int, ...], axes: tuple[int, ...]) -> InflatedRows:
        if info.file_size > MAX_WHOLE:
            raise SourceError(
                f"{where}: {info.file_size} bytes when inflated, at most {MAX_WHOLE} are held in memory; "
                "save the images with np.save to an .npy file, or with np.savez, which does not compress"
            )
        return InflatedRows(path=path, member=info.filename, shape=shape, axes=axes)

    stored = _content_offset(path, info) + header if info.compress_type == zipfile.ZIP_STORED else None
    return _Stored(
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


@lru_cache(maxsize=1)
def _inflated(path: Path, member: str, stamp: int) -> NDArray[np.uint8]:
    """Inflate a member, at most `MAX_WHOLE` bytes; `stamp` makes a file that was written anew another one."""
    return _load_member(path, member)


def _open_hdf5(path: Path) -> Any:
    return h5py.File(path, "r", locking=False)  # read-only and network disks refuse locks, and nobody writes here


def _hdf5_arrays(path: Path) -> dict[str, _Stored]:
    with _open_hdf5(path) as file:
        found = {name: file.get(name) for name in file}
        return {
            name: _hdf5_array(path, name, item)
            for name, item in found.items()
            if isinstance(item, h5py.Dataset) and item.shape is not None
        }


def _hdf5_array(path: Path, name: str, dataset: Any) -> _Stored:
    chunks = dataset.chunks or (64,)
    plain = dataset.chunks is None and not dataset.external and not dataset.is_virtual
    offset = dataset.id.get_offset() if plain else None
    written = dataset.nbytes if dataset.is_virtual or dataset.id.get_storage_size() else 0

    def load() -> NDArray[Any]:
        with _open_hdf5(path) as file:
            array: NDArray[Any] = file[name][()]
            return array

    def rows(shape: tuple[int, ...], axes: tuple[int, ...]) -> ChunkedRows:
        if math.prod(chunks) > MAX_WHOLE:
            raise SourceError(
                f"{path}[{name}]: chunks of {math.prod(chunks)} bytes, at most {MAX_WHOLE} are held in memory; "
                "write it with chunks of fewer images"
            )
        with _open_hdf5(path) as file:
            file[name][:1]  # a filter that is not installed fails here and not once an image
        block = min(chunks[0], max(1, GATHER_BYTES // math.prod(shape)))
        return ChunkedRows(path=path, dataset=name, shape=shape, axes=axes, block=block)

    return _Stored(
        where=f"{path}[{name}]",
        shape=dataset.shape,
        dtype=dataset.dtype,
        fortran=False,
        offset=offset,
        content=written if offset is None else path.stat().st_size - offset,
        load=load,
        rows=rows,
    )


def _by_split(path: Path, arrays: dict[str, _Stored]) -> dict[str, tuple[_Stored, _Stored | None]]:
    """Pair images and labels by split; the split of a lone set is ''."""
    slots: dict[tuple[str, str], str] = {}
    for name in arrays:
        slot = _slot(name.lower())
        if slot is not None and slots.setdefault(slot, name) != name:
            raise SourceError(f"{path}: {slots[slot]} and {name} mean the same; leave one of them in the file")
    found = {split: arrays[name] for (split, role), name in slots.items() if role == "images"}
    if not found:
        found = {"": _only_images(path, arrays)}
    if len(found) > 1 and "" in found:
        raise SourceError(f"{path}: {slots['', 'images']} beside images named by split; name its split or remove it")
    return {
        split: (found[split], arrays[slots[split, "labels"]] if (split, "labels") in slots else None)
        for split in ("", *SPLITS)
        if split in found
    }


def _slot(name: str) -> tuple[str, str] | None:
    """Return the split and the role that an array's name means: ('train', 'labels') for y_train."""
    for role, words in (("images", _IMAGES), ("labels", _LABELS)):
        for word in words:
            if name == word:
                return "", role
            for split_word, split in _SPLIT_WORDS.items():
                if name in (f"{word}_{split_word}", f"{split_word}_{word}"):
                    return split, role
    return None


def _only_images(path: Path, arrays: dict[str, _Stored]) -> _Stored:
    stacks = [array for array in arrays.values() if len(array.shape) == 4]
    candidates = [array for array in stacks if array.dtype == np.uint8] or stacks
    if len(candidates) == 1:
        return candidates[0]
    names = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in list(arrays.items())[:8])
    raise SourceError(
        f"{path}: holds {names or 'no arrays'}; expected one uint8 array (N, H, W, 3), or images, x or data "
        "(by split: x_train, test_images, ...); give the array of images such a name"
    )


def _splits(path: Path, kind: str, pairs: dict[str, tuple[_Stored, _Stored | None]]) -> dict[str, Split]:
    for images, _ in pairs.values():
        _check_bytes(images)
    labels = {split: _labels(*pair) for split, pair in pairs.items() if _is_labeled(split, *pair)}
    classes = max((int(found.max()) + 1 for found in labels.values() if found.ndim == 1), default=0)
    made = {split: _split(path, kind, pair[0], labels.get(split), classes) for split, pair in pairs.items()}
    if "" in made:
        return {"train" if "" in labels else "unlabeled": made[""]}
    return made


def _split(path: Path, kind: str, images: _Stored, labels: NDArray[Any] | None, classes: int) -> Split:
    shape, axes = _layout(images)
    source: RecordFiles | InflatedRows | ChunkedRows = RecordFiles(paths=(path,), shape=shape, axes=axes)
    if images.offset is None and images.rows is not None:
        source = images.rows(shape, axes)
    listing = record_listing(
        [path], [images.shape[0]], stride=math.prod(shape), first=images.offset or 0, labels=labels
    )
    return Split(kind=kind, source=source, listing=listing, label_names=_label_names(labels, classes))


def _layout(images: _Stored) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shape of one image with a channel axis, and the axes that make it (H, W, C)."""
    shape = images.shape[1:]
    if len(shape) == 3 and shape[2] == 3:
        return shape, (0, 1, 2)
    if len(shape) == 3 and shape[0] == 3:
        return shape, (1, 2, 0)
    if len(shape) == 3 and 1 in (shape[0], shape[2]):
        return shape, (0, 1, 2) if shape[2] == 1 else (1, 2, 0)
    if len(shape) == 2 and shape[1] not in (1, 3):  # (H, W, 3) would be a single color image
        return (*shape, 1), (0, 1, 2)
    raise SourceError(
        f"{images.given}, expected (N, H, W, 3), (N, 3, H, W) or gray (N, H, W); "
        "reshape it, a single image to (1, H, W, 3)"
    )


def _check_bytes(images: _Stored) -> None:
    if images.dtype.hasobject:
        raise SourceError(f"{images.given}: objects are pickles, which are not loaded; save a uint8 array (N, H, W, 3)")
    if images.dtype != np.uint8:
        raise SourceError(f"{images.given}, expected uint8; scale to 0..255, round, and save .astype(np.uint8)")
    if images.fortran:
        raise SourceError(f"{images.given} in Fortran order, expected C order; save np.ascontiguousarray(array)")
    if min(images.shape, default=0) <= 0:
        raise SourceError(f"{images.given}: no images; check how it was written")
    if images.content < images.nbytes:
        raise SourceError(
            f"{images.given}: {images.content} bytes, expected {images.nbytes}; "
            "it was cut short: copy or write it again"
        )


def _is_labeled(split: str, images: _Stored, labels: _Stored | None) -> bool:
    if split in ("", "unlabeled"):
        return split == "" and labels is not None
    if labels is None:
        raise SourceError(
            f"{images.given} has no labels; add y_{split} or {split}_labels, or name the images x_unlabeled"
        )
    return True


def _labels(images: _Stored, stored: _Stored | None) -> NDArray[Any]:
    assert stored is not None
    count = images.shape[0]
    if stored.dtype.kind not in "iub" or len(stored.shape) not in (1, 2) or 0 in stored.shape:
        raise SourceError(f"{stored.given}, expected integers (N,) or (N, attributes); convert with .astype(np.int32)")
    if stored.shape[0] != count or stored.nbytes > MAX_WHOLE:
        raise SourceError(f"{stored.given}, expected {count} labels, one an image; write both from the same list")
    labels = stored.load().reshape(stored.shape)
    return _class_numbers(stored, labels.reshape(-1)) if labels.size == count else _attributes(stored, labels)


def _class_numbers(stored: _Stored, labels: NDArray[Any]) -> NDArray[np.int32]:
    wrong = np.flatnonzero((labels < 0) | (labels >= MAX_CLASSES))
    if len(wrong):
        row = wrong[0]
        raise SourceError(
            f"{stored.given}: label {labels[row]} in row {row}, expected 0 to {MAX_CLASSES - 1}; renumber the classes"
        )
    return labels.astype(np.int32)


def _attributes(stored: _Stored, labels: NDArray[Any]) -> NDArray[np.uint8]:
    wrong = np.flatnonzero(((labels != 0) & (labels != 1)).any(axis=1))
    if len(wrong):
        raise SourceError(
            f"{stored.given}: row {wrong[0]} is not of zeros and ones; expected attributes, or classes (N,)"
        )
    return labels.astype(np.uint8)


def _label_names(labels: NDArray[Any] | None, classes: int) -> tuple[str, ...] | None:
    if labels is None:
        return None
    if labels.ndim == 2:
        return tuple(f"attribute_{column}" for column in range(labels.shape[1]))
    return tuple(str(number) for number in range(classes))
