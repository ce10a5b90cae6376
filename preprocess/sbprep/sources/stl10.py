"""STL-10, binary version, and the reader of fixed-size records that all batch files share.

Axes: N images, C = 3 planes (R, G, B), H = W = 96 pixels. An image of ``*_X.bin`` is three planes, each column-major:
byte ``c * 9216 + column * 96 + row``. Labels are one byte an image, 1 to 10.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbformat.errors import SourceError
from sbprep.sources.base import SPLITS, Item, Listing, Rejected, Split

SHAPE = (3, 96, 96)  # plane, column, row
RECORD = 27_648  # bytes of an image
#: Order of the labels 1 to 10 (the data set's page), for copies that lack class_names.txt.
CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def matches(path: Path) -> bool:
    """Whether `path` is ``stl10_binary/`` or holds it."""
    try:
        return _root(path) is not None
    except OSError:
        return False


def splits(path: Path) -> dict[str, Split]:
    """Return the splits whose ``*_X.bin`` is there: train and test with labels, unlabeled without.

    Raises
    ------
    SourceError
        No image file, a size that is no whole number of images, labels missing, too few, too many or outside 1 to 10.
    """
    try:
        root = _root(path)
        if root is None:
            raise SourceError(
                f"{path}: no train_X.bin, test_X.bin or unlabeled_X.bin here or in stl10_binary/; "
                "unpack stl10_binary.tar.gz and give the folder it makes"
            )
        names = _class_names(root / "class_names.txt")
        return {name: _split(root, name, names) for name in SPLITS if (root / f"{name}_X.bin").is_file()}
    except OSError as err:
        raise SourceError(f"{path}: cannot be read ({err}); check the permissions and the disk") from err


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFiles:
    """Images at plain byte offsets of a few files; a row's key is (number of the file, byte offset of its pixels).

    Attributes
    ----------
    paths : tuple of Path
    shape : of one image as stored, three axes, uint8
    axes : permutation that turns `shape` into (H, W, C); C is 3, or 1 for gray images, which are repeated
    """

    paths: tuple[Path, ...]
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def sequential(self) -> bool:
        """False: any record is one read away."""
        return False

    def read(self, part: Listing) -> Iterator[Item]:
        """Yield (H, W, 3) uint8 for each row of `part`; one file is opened and checked once a call."""
        assert part.keys is not None
        handles: dict[int, FileIO | Rejected] = {}
        with ExitStack() as stack:
            for key, stamp in zip(part.keys, part.stamps, strict=True):
                number = int(key[0])
                if number not in handles:
                    handles[number] = handle = open_listed(self.paths[number], int(stamp))
                    if not isinstance(handle, Rejected):
                        stack.enter_context(handle)
                yield self._record(handles[number], int(key[1]))

    def _record(self, handle: FileIO | Rejected, offset: int) -> Item:
        if isinstance(handle, Rejected):
            return handle
        record = np.empty(self.shape, np.uint8)
        try:
            count = os.preadv(handle.fileno(), [record.data], offset)
        except OSError as err:
            return Rejected("unreadable", f"{handle.name}: {err.strerror} at byte {offset}")
        if count != record.nbytes:
            return Rejected("changed", f"{handle.name}: {count} of {record.nbytes} bytes left at byte {offset}")
        return hwc(record, self.axes)


def hwc(record: NDArray[np.uint8], axes: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return a stored image as a new (H, W, 3) uint8 array, C-contiguous; a single channel is repeated."""
    image = record.transpose(axes)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image.copy()


def open_listed(path: Path, stamp: int) -> FileIO | Rejected:
    """Open a file that must still be the one that was listed: same modification time `stamp` (ns).

    Records have no size of their own, so the time is the only sign that a batch file was written anew.
    """
    try:
        # Without O_NONBLOCK a pipe that took the place of the file would hold up the build for ever.
        handle = FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    except (FileNotFoundError, NotADirectoryError):
        return Rejected("vanished", f"{path}: no longer there")
    except OSError as err:
        return Rejected("unreadable", f"{path}: {err.strerror}")
    if os.fstat(handle.fileno()).st_mtime_ns == stamp:
        return handle
    handle.close()
    return Rejected("changed", f"{path}: modified since it was listed")


def record_listing(
    paths: Sequence[Path],
    counts: Sequence[int],
    *,
    stride: int,
    first: int = 0,
    labels: NDArray[Any] | None = None,
) -> Listing:
    """List the records of `paths` in order: `counts` [i] of them in file i, `stride` bytes apart, from byte `first`."""
    rows = np.concatenate([np.arange(count) for count in counts])
    return Listing(
        names=[f"{path.name}#{row}" for path, count in zip(paths, counts, strict=True) for row in range(count)],
        sizes=np.full(len(rows), stride, np.int64),
        stamps=np.repeat(np.array([path.stat().st_mtime_ns for path in paths], np.int64), counts),
        labels=labels,
        keys=np.stack([np.repeat(np.arange(len(paths)), counts), first + stride * rows], axis=1).astype(np.int64),
    )


def count_records(path: Path, record: int) -> int:
    """Return how many records of `record` bytes a file holds; SourceError if not a whole number, at least one."""
    size = path.stat().st_size
    if size == 0 or size % record:
        raise SourceError(
            f"{path}: {size} bytes, expected one image or more of {record} bytes each; "
            "the file is incomplete or of another format: unpack or download it again"
        )
    return size // record


def _root(path: Path) -> Path | None:
    files = [f"{name}_X.bin" for name in SPLITS]
    for root in (path, path / "stl10_binary"):
        if any((root / file).is_file() for file in files):
            return root
    return None


def _split(root: Path, name: str, class_names: tuple[str, ...]) -> Split:
    images = root / f"{name}_X.bin"
    count = count_records(images, RECORD)
    labels = None if name == "unlabeled" else _labels(root / f"{name}_y.bin", count)
    return Split(
        kind="stl10",
        source=RecordFiles(paths=(images,), shape=SHAPE, axes=(2, 1, 0)),
        listing=record_listing([images], [count], stride=RECORD, labels=labels),
        label_names=None if labels is None else class_names,
    )


def _labels(path: Path, count: int) -> NDArray[np.int32]:
    if not path.is_file():
        raise SourceError(f"{path}: not there, expected {count} labels of one byte; unpack it beside the images")
    given = path.stat().st_size
    if given != count:
        raise SourceError(
            f"{path}: {given} labels, expected {count}, one an image; unpack or download both files again"
        )
    labels = np.fromfile(path, np.uint8)
    wrong = np.flatnonzero((labels < 1) | (labels > len(CLASSES)))
    if len(wrong):
        row = wrong[0]
        raise SourceError(f"{path}: label {labels[row]} in row {row}, expected 1 to {len(CLASSES)}; download it again")
    return labels.astype(np.int32) - 1


def _class_names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return CLASSES
    names = tuple(path.read_text(encoding="utf-8", errors="replace").split())
    if len(names) != len(CLASSES):
        raise SourceError(f"{path}: {len(names)} names, expected {len(CLASSES)}; remove it to use the official ones")
    return names
