"""A folder on disk, the plainest tree."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sbformat.errors import SourceError
from sbprep.sources.base import Item, Listing, Rejected
from sbprep.sources.failures import raise_if_machine, refusal_of
from sbprep.sources.tree import is_hidden, read_range, refusal_of_size


@dataclass(frozen=True, slots=True)
class FolderTree:
    """A folder on disk. Links to files are followed, links to folders are not: they can make loops."""

    root: Path

    @property
    def sequential(self) -> bool:
        """False: any file can be read by itself."""
        return False

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.root)

    def member(self, name: str) -> str:
        """Return `name`: names are relative to the folder already."""
        return name

    def files(self) -> Listing:
        """List the regular files by sorted name; a link that leads nowhere is listed too, to be rejected by name."""
        files = sorted(_scan(str(self.root)))
        if not files:
            raise SourceError(f"{self.root}: no files in this folder, expected images; check the path")
        names, sizes, stamps = zip(*files, strict=True)
        return Listing(names=list(names), sizes=np.array(sizes, np.int64), stamps=np.array(stamps, np.int64))

    def read(self, part: Listing) -> Iterator[Item]:
        """Yield the bytes of each file, or why it cannot be used; `MachineError` where the disk or the system fails."""
        root = str(self.root)
        for name, size in zip(part.names, part.sizes.tolist(), strict=True):
            yield _read_file(f"{root}/{name}", size)


def _scan(root: str) -> Iterator[tuple[str, int, int]]:
    """Yield name, size and stamp of each file. Plain strings: a Path each would take longer than the disk."""
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(f"{root}/{folder}") as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(f"{folder}{entry.name}/")
                    elif (found := _size_and_stamp(entry)) is not None:
                        yield f"{folder}{entry.name}", *found
        except OSError as err:
            raise SourceError(
                f"{root}/{folder}: {err.strerror}, expected a readable folder of images; check the path"
            ) from err


def _size_and_stamp(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    try:
        found = entry.stat()
    except OSError as err:  # a link that leads nowhere: silence would lose an image without a word
        raise_if_machine(err, entry.path)
        return 0, 0
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _read_file(path: str, listed: int) -> Item:
    try:
        # Without O_NONBLOCK a pipe that took the place of the file would hold up the build for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as err:
        return refusal_of(err, path)
    try:
        return _read_open_file(descriptor, listed)
    except OSError as err:
        return refusal_of(err, path)
    finally:
        os.close(descriptor)


def _read_open_file(descriptor: int, listed: int) -> Item:
    refusal = refusal_of_size(listed)
    if not refusal and len(data := os.read(descriptor, listed + 1)) == listed:
        return data  # nearly always; asking for size and type first takes half as long again
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        return Rejected("unreadable", "listed as a file, now something else")
    size = found.st_size
    if size == listed:
        if refusal:
            return refusal
        data = read_range(descriptor, size + 1, 0)
        if len(data) == listed:
            return data
        size = len(data)
    return Rejected("changed", f"listed with {listed} bytes, now {size}")
