"""What a tree of files is: a set of named files that can be listed and read, wherever they lie.

The kinds of trees are `folder.FolderTree`, `tar.TarTree` and `zipped.ZipTree`; `layout` turns the names into splits.
Here is what they share: which names count, how much is read, and how a refusal is worded.
"""

from __future__ import annotations

import os
from typing import Protocol

from sbprep.sources.base import Listing, Rejected, Source

#: Names that end so are images, in upper or lower case; everything else in a tree is passed over.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

#: Largest encoded image that is read, in bytes (96 MiB). A zip of a few kB can declare terabytes, and a member of an
#: archive lies up to three times in memory while it is unpacked: 300 of the 600 MB that a worker may take.
MAX_MEMBER_BYTES = 96 << 20


class Tree(Source, Protocol):
    """A set of named files that can be listed and read: small, picklable, immutable."""

    @property
    def where(self) -> str:
        """The path to name in an error."""
        ...

    def files(self) -> Listing:
        """List the regular files by sorted name, without labels.

        Hidden files and folders (leading dot) and those that start with ``__MACOSX`` are left out. What cannot be
        read but has the name of an image (a link inside an archive) is listed and gets rejected when read.

        Raises
        ------
        SourceError
            The path is missing, of another kind, empty or broken.
        """
        ...

    def member(self, name: str) -> str:
        """Return the path inside the tree, '/'-separated, of the file that is listed as `name`."""
        ...


def is_hidden(component: str) -> bool:
    """Tell whether a file or folder of this name is left out of every tree: dot files and what macOS adds to a zip."""
    return component.startswith((".", "__MACOSX"))


def is_unsafe(member: str) -> bool:
    """Tell whether a path is absolute or climbs with '..': such a member of an archive is never read."""
    return member.startswith("/") or ".." in member.split("/")


def is_image(member: str) -> bool:
    """Tell whether the name is that of an image."""
    return member.lower().endswith(IMAGE_SUFFIXES)


def read_range(descriptor: int, count: int, offset: int) -> bytes:
    """Return `count` bytes from `offset` on, fewer only at the end of the file; network disks may give them in bits."""
    data = os.pread(descriptor, count, offset)
    while len(data) < count and (more := os.pread(descriptor, count - len(data), offset + len(data))):
        data += more
    return data


def refusal_of_size(size: int) -> Rejected | None:
    """Return the reject for an image of this many bytes, if there is one."""
    if size == 0:
        return Rejected("empty", "0 bytes")
    if size > MAX_MEMBER_BYTES:
        return Rejected("too_large", f"{size} bytes, at most {MAX_MEMBER_BYTES} are read")
    return None
