"""Images of a fixed size at plain offsets of a few files: the reader that STL-10, CIFAR and plain arrays share.

Axes: N images, H W pixels, C channels.
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
from sbprep.sources.base import Item, Listing, Rejected
from sbprep.sources.failures import raise_if_machine


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
            count = _fill(record, handle.fileno(), offset)
        except OSError as err:
            raise_if_machine(err, f"{handle.name}, byte {offset}")
            return Rejected("unreadable", f"{handle.name}: {err.strerror} at byte {offset}")
        if count != record.nbytes:
            return Rejected("changed", f"{handle.name}: {count} of {record.nbytes} bytes left at byte {offset}")
        return hwc(record, self.axes)


def _fill(record: NDArray[np.uint8], descriptor: int, offset: int) -> int:
    """Read `record` and return its bytes, fewer only at the end of the file; network disks may give them in bits."""
    view = record.reshape(-1).data
    count = os.preadv(descriptor, [view], offset)
    while 0 < count < len(view) and (more := os.preadv(descriptor, [view[count:]], offset + count)):
        count += more
    return count


def hwc(record: NDArray[np.uint8], axes: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return a stored image as a new (H, W, 3) uint8 array, C-contiguous; a single channel is repeated."""
    image = record.transpose(axes)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image.copy()


def open_listed(path: Path, stamp: int) -> FileIO | Rejected:
    """Open a file that must still be the one that was listed: same modification time `stamp` (ns).

    Records have no size of their own, so the time is the only sign that a batch file was written anew.

    Raises
    ------
    MachineError
        The disk or the system fails, see `failures`.
    """
    try:
        # Without O_NONBLOCK a pipe that took the place of the file would hold up the build for ever.
        handle = FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
        if os.fstat(handle.fileno()).st_mtime_ns == stamp:
            return handle
    except (FileNotFoundError, NotADirectoryError):
        return Rejected("vanished", f"{path}: no longer there")
    except OSError as err:
        raise_if_machine(err, path)
        return Rejected("unreadable", f"{path}: {err.strerror}")
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
