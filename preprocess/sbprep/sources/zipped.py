"""One zip as a tree, never extracted to disk.

Members are read by the offset that the listing keeps, without looking at the directory again: a zip of 500,000 images
would spend more time on its directory in every shard than on its pixels.

The module is not called zip, which would hide the built-in `zip` in the ``__init__`` of the package.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from sbformat.errors import SourceError
from sbprep.sources.base import Item, Listing, Rejected
from sbprep.sources.failures import refusal_of
from sbprep.sources.members import (
    ENCRYPTED,
    METHOD,
    NOT_A_FILE,
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
from sbprep.sources.tree import is_unsafe, read_range, refusal_of_size

# All that zipfile raises for damaged archives; found by flipping bits.
_BROKEN = (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, OverflowError, struct.error)
_HEADER = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra field


@dataclass(frozen=True, slots=True)
class ZipTree:
    """One zip file.

    Keys are int64 (N, 4): offset of the member's header, compressed bytes, method (0 stored, 8 deflate), CRC-32.
    """

    path: Path

    @property
    def sequential(self) -> bool:
        """False: any member can be read by itself."""
        return False

    @property
    def where(self) -> str:
        """The zip file."""
        return str(self.path)

    def member(self, name: str) -> str:
        """Return the path inside the zip."""
        return path_inside(name)

    def files(self) -> Listing:
        """List the members by sorted name from the directory at the end of the zip.

        Raises
        ------
        SourceError
            The zip is missing, broken or empty.
        """
        stamp, prefix = stamp_of(self.path), archive_prefix(self.path)
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = [found for info in archive.infolist() if (found := _listed_member(info)) is not None]
            return listing_of({prefix + name: (size, stamp, *key) for name, size, key in members}, self.where)
        except _BROKEN as err:
            raise SourceError(f"{self.path}: broken zip ({err}), 0 members read; copy or download it again") from err

    def read(self, part: Listing) -> Iterator[Item]:
        """Yield the bytes of each image, checked against size and CRC; no more than the declared size is inflated."""
        try:
            zip_file = self.path.open("rb", buffering=0)
        except OSError as err:
            yield from [refusal_of(err, self.path)] * len(part)
            return
        with zip_file:
            for size, key in zip(part.sizes.tolist(), keys_of(part), strict=True):
                yield refusal_of_member(key[0], size) or _read_member(zip_file, size, *key)


def _listed_member(info: zipfile.ZipInfo) -> tuple[str, int, tuple[int, int, int, int]] | None:
    """Return path, size and key of a member, None if it is not to be listed."""
    if info.header_offset < 0:
        raise zipfile.BadZipFile("the beginning is missing")
    member = info.filename.replace("\\", "/")  # some Windows programs write it, against the specification
    place = _place(info, member)
    if info.is_dir() or not is_listed(member, regular=place != NOT_A_FILE):
        return None
    return normal_path(member), info.file_size, (place, info.compress_size, info.compress_type, info.CRC)


def _place(info: zipfile.ZipInfo, member: str) -> int:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return NOT_A_FILE
    if is_unsafe(member):
        return UNSAFE_NAME
    if info.flag_bits & 1:
        return ENCRYPTED
    return info.header_offset if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else METHOD


def _read_member(file: FileIO, size: int, offset: int, packed: int, method: int, crc: int) -> Item:
    if packed and (refusal := refusal_of_size(packed)):  # nothing at all for a size is damage
        return refusal
    try:
        header = read_range(file.fileno(), _HEADER.size, offset)
        signature, name, extra = _HEADER.unpack(header)
        data = read_range(file.fileno(), packed, offset + _HEADER.size + name + extra)
        if method == zipfile.ZIP_DEFLATED:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    except OSError as err:
        return refusal_of(err, f"{file.name}, byte {offset}")
    except (struct.error, zlib.error) as err:
        return Rejected("damaged_member", str(err))
    if signature != b"PK\x03\x04" or len(data) != size or zlib.crc32(data) != crc:
        return Rejected("damaged_member", f"size or CRC-32 differ from the directory: {size} bytes, {crc:08x}")
    return data
