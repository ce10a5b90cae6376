"""Members of archives: what is listed, under which name, and what is never read.

Names are ``<archive file>#<member>``, ``%23`` for a "#" in the name of the file. A member whose path is absolute or
climbs, and a link, device or pipe, is listed if it has the name of an image, and rejected when read. Of several
members with one name the last counts, as it does when the archive is extracted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sbformat.errors import SourceError
from sbprep.sources.base import Listing, Rejected
from sbprep.sources.tree import is_hidden, is_image, is_unsafe, refusal_of_size

#: Why a member is never read; stands in its key where the offset would be.
UNSAFE_NAME, NOT_A_FILE, SPARSE, ENCRYPTED, METHOD = -1, -2, -3, -4, -5

#: Reject of such a member, by the number that stands for the reason.
REFUSED = {
    UNSAFE_NAME: Rejected("unsafe_name", "the path is absolute or climbs with '..'"),
    NOT_A_FILE: Rejected("not_a_file", "a link, device or pipe"),
    SPARSE: Rejected("not_a_file", "a sparse file"),
    ENCRYPTED: Rejected("encrypted", "needs a password"),
    METHOD: Rejected("unreadable", "compressed by another method than deflate; unzip the archive to a folder"),
}


def is_listed(member: str, regular: bool) -> bool:
    """Tell whether a member is listed: all regular files but hidden ones, of the rest what is named as an image."""
    hidden = any(is_hidden(part) and part not in (".", "..") for part in member.split("/"))
    return bool(member) and not hidden and (regular or is_image(member))


def normal_path(member: str) -> str:
    """Drop what has no meaning in a path ('./', '//'); an unsafe path stays as it is."""
    return member if is_unsafe(member) else "/".join(part for part in member.split("/") if part not in ("", "."))


def path_inside(name: str) -> str:
    """Return the path inside the archive of what is listed as `name`."""
    return name.partition("#")[2]


def archive_prefix(path: Path) -> str:
    """Return what the listed names of all members of this archive begin with."""
    return path.name.replace("#", "%23") + "#"


def stamp_of(path: Path) -> int:
    """Return the modification time in ns of an archive.

    Raises
    ------
    SourceError
        The archive is missing or may not be read.
    """
    try:
        with path.open("rb") as file:  # not stat, which a file that may not be read allows
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError as err:
        raise SourceError(f"{path}: cannot be opened ({err.strerror}), expected an archive; check the path") from err


def listing_of(found: Mapping[str, tuple[int, ...]], where: str) -> Listing:
    """Return the listing of name -> (size, stamp, *key), by sorted name.

    Raises
    ------
    SourceError
        Nothing was found.
    """
    if not found:
        raise SourceError(f"{where}: no files in this archive, expected images; check the path")
    names = sorted(found)
    table = np.array([found[name] for name in names], np.int64)
    return Listing(names=names, sizes=table[:, 0], stamps=table[:, 1], keys=table[:, 2:])


def keys_of(part: Listing) -> list[Any]:
    """Return the keys of the rows as Python numbers: a list of them a row."""
    return [] if part.keys is None else part.keys.tolist()


def refusal_of_member(place: int, size: int) -> Rejected | None:
    """Return the reject for a member of this size at this place, its offset or why it is never read, if there is one."""
    return REFUSED[place] if place < 0 else refusal_of_size(size)
