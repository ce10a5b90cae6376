"""Tars as a tree: one or several, plain or compressed, never extracted to disk.

The images of a plain tar are read in any order, by the offset that the listing keeps; those of a compressed one in a
pass from its beginning, which puts what it meets aside (`spill`).
"""

from __future__ import annotations

import tarfile
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import numpy as np

from sbformat.errors import SourceError
from sbprep.sources.base import Item, Listing, Rejected
from sbprep.sources.failures import raise_if_machine, refusal_of
from sbprep.sources.members import (
    NOT_A_FILE,
    REFUSED,
    SPARSE,
    UNSAFE_NAME,
    archive_prefix,
    is_listed,
    keys_of,
    listing_of,
    normal_path,
    path_inside,
    refusal_of_member,
    stamp_of,
)
from sbprep.sources.spill import Spill
from sbprep.sources.strict_tar import BLOCK, BROKEN, decompressor, size_in_header, walk
from sbprep.sources.tree import is_unsafe, read_range

_INT64_MAX = (1 << 63) - 1
_OPEN_TARS = 64


@dataclass(frozen=True, slots=True)
class TarTree:
    """One or several tar files, plain or compressed.

    Keys are int64 (N, 2): which tar, and the offset of the content or, in a compressed tar, the number of the member.
    `scratch` is the folder in which a pass keeps encoded images, see `Spill`.
    """

    paths: tuple[Path, ...]
    scratch: Path | None = None

    @property
    def sequential(self) -> bool:
        """True if a tar is compressed: then a read decompresses it up to the last image wanted."""
        return any(decompressor(path) for path in self.paths)

    @property
    def where(self) -> str:
        """The first tar and the number of others."""
        others = len(self.paths) - 1
        return f"{self.paths[0]} and {others} more" if others else str(self.paths[0])

    def member(self, name: str) -> str:
        """Return the path inside the tar."""
        return path_inside(name)

    def files(self) -> Listing:
        """List the members by sorted name; reads the headers of a plain tar, the whole of a compressed one.

        Raises
        ------
        SourceError
            A tar is missing, broken or of another kind, two have the same file name, or all are empty.
        """
        prefixes = [archive_prefix(path) for path in self.paths]
        if len(set(prefixes)) < len(prefixes):
            raise SourceError(
                f"{self.where}: two tars have the same file name, and images need unique names; rename one"
            )
        found = {}
        for which, path in enumerate(self.paths):
            stamp = stamp_of(path)
            for member, size, place in tar_members(path):
                found[prefixes[which] + member] = (size, stamp, which, place)
        return listing_of(found, self.where)

    def read(self, part: Listing) -> Iterator[Item]:
        """Yield the bytes of each image. Those of compressed tars are all put aside first, in one pass over each tar.

        Raises
        ------
        MachineError
            The disk or the system fails, see `failures`.
        BuildError
            There is no room to put images aside.
        """
        keys = keys_of(part)
        used = {which: self.paths[which] for which in sorted({which for which, _ in keys})}
        packed = {which: path for which, path in used.items() if decompressor(path)}
        with _OpenTars() as tars, Spill(self.scratch) as spill:
            for which, path in packed.items():
                _put_aside(path, which, part, spill)
            for row, (which, place) in enumerate(keys):
                size = int(part.sizes[row])
                if refusal := refusal_of_member(place, size):
                    yield refusal
                elif which in packed:
                    yield spill.get((which, place))
                else:
                    yield _read_plain(tars, self.paths[which], place, size)


def tar_members(path: Path) -> Generator[tuple[str, int, int], None, None]:
    """Yield path, size and place (content offset, member number or why it is not read) of what is to be listed."""
    compressed = decompressor(path) is not None
    for number, _, info in walk(path):
        if not info.isdir() and is_listed(info.name, regular=info.isreg()):
            yield (
                normal_path(info.name),
                min(info.size, _INT64_MAX),
                _place(info, number if compressed else info.offset_data),
            )


def _place(info: tarfile.TarInfo, place: int) -> int:
    if is_unsafe(info.name):
        return UNSAFE_NAME
    if not info.isreg():
        return NOT_A_FILE
    return SPARSE if info.issparse() else place


class _OpenTars:
    """Descriptors of the tars in use, at most 64: a data set has more tars than a process may open."""

    def __init__(self) -> None:
        self._files: dict[Path, IO[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def descriptor(self, path: Path) -> int:
        if path not in self._files:
            if len(self._files) == _OPEN_TARS:
                self._files.pop(next(iter(self._files))).close()
            self._files[path] = path.open("rb", buffering=0)
        return self._files[path].fileno()


def _read_plain(tars: _OpenTars, path: Path, offset: int, size: int) -> Item:
    """Read header and content, to be sure that the tar is still the one that was listed."""
    try:
        data = read_range(tars.descriptor(path), BLOCK + size, offset - BLOCK)
    except OSError as err:
        return refusal_of(err, path)
    if len(data) < BLOCK + size or size_in_header(data[:BLOCK]) != size:
        return Rejected("changed", f"listed with {size} bytes at byte {offset} of the tar, now something else is there")
    return data[BLOCK:]


def _put_aside(path: Path, which: int, part: Listing, spill: Spill) -> None:
    """Put the images of one compressed tar aside, by their keys, in a pass over it up to the last of them."""
    assert part.keys is not None
    rows = np.flatnonzero(part.keys[:, 0] == which).tolist()
    places = {row: int(part.keys[row, 1]) for row in rows}
    wanted = {place: row for row, place in places.items() if not refusal_of_member(place, int(part.sizes[row]))}
    lost = "fewer members in the tar than were listed"
    try:
        with closing(walk(path)) as members:
            while wanted:
                number, tar, info = next(members)
                if (row := wanted.get(number)) is not None:
                    spill.put((which, number), _streamed_member(tar, info, part.names[row], int(part.sizes[row])))
                    del wanted[number]
    except StopIteration:
        pass
    except (SourceError, *BROKEN) as err:
        raise_if_machine(err, path)
        lost = f"{type(err).__name__}: {err}"
    for place in wanted:
        spill.put((which, place), Rejected("changed", lost))


def _streamed_member(tar: tarfile.TarFile, info: tarfile.TarInfo, name: str, size: int) -> bytes | Rejected:
    if normal_path(info.name) != path_inside(name) or info.size != size:
        return Rejected("changed", f"listed with {size} bytes, now {info.name} with {info.size}")
    content = tar.extractfile(info)
    return content.read() if content else REFUSED[NOT_A_FILE]
