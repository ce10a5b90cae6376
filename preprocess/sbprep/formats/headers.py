"""What the bytes of an image file say before any pixel is decoded: size, kind, orientation, and whether all is there.

Decoders fill what is missing with gray, disagree on metadata from version to version and allocate what a header asks
for. So headers are read first: `jpeg`, `png`, `webp`, `bmp` and `tiff` do it, and share what is here.

Every reader raises `BadImage`; where a file ends inside its header, the `struct.error` of reading past the end means
"truncated" (`decode.decode` translates both).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

#: Largest width · height that is decoded: 8192 x 8192, 192 MiB of pixels. More is taken for a decompression bomb.
MAX_PIXELS = 2**26
#: Most bytes that decoding one image may take, with its file: a worker has 600 MB, 220 of them for everything else.
MAX_BYTES = 360 << 20
#: Most values of one entry of a directory, such as the strips of a TIFF: as Python numbers they are 40 MB.
MAX_VALUES = 2**20
#: Longest side; also what JPEG can express. OpenCV itself stops at 2**20.
MAX_SIDE = 2**16

ORIENTATION_TAG = 274  # Exif 2.32, table 4; the same in TIFF 6.0


class BadImage(Exception):
    """Why a file cannot be decoded: `code` and `detail` of the `Rejected` that it becomes."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail


class Entry(NamedTuple):
    """One entry of a TIFF or Exif directory: type, number of values, and where its 12 bytes start."""

    kind: int
    number: int
    at: int


def check_size(height: int, width: int) -> None:
    """Raise `BadImage` for an empty image (damaged) or one beyond `MAX_PIXELS` or `MAX_SIDE` (too_large)."""
    if height < 1 or width < 1:
        raise BadImage("damaged", f"the header says {width} x {height} pixels")
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        limit = f"{MAX_PIXELS:,} pixels and sides of {MAX_SIDE:,}"
        raise BadImage("too_large", f"the header says {width} x {height} pixels, decoded are at most {limit}")


def check_memory(file: int, pixels: int, each: int, orientation: int = 1) -> None:
    """Raise `BadImage` (too_large) where decoding would take more than `MAX_BYTES`.

    Parameters
    ----------
    file : int
        Bytes of the file, of its copies and of what the decoder keeps besides pixels.
    pixels, each : int
        Their number, and the most bytes that each takes at any time. OpenCV hands pixels over as a copy, so that is
        twice what it decodes to, or that and the 3 bytes of 8-bit RGB.
    orientation : int
        From 5 on an image is turned into a second one.
    """
    needed = file + pixels * max(each, 6 if orientation > 4 else 3)
    if needed > MAX_BYTES:
        limit = f"at most {MAX_BYTES >> 20} MiB are taken for one image"
        raise BadImage("too_large", f"{pixels:,} pixels need {needed >> 20} MiB to be decoded, {limit}")


def exif_orientation(block: bytes) -> int:
    """Return the orientation 1...8 of an Exif block (a small TIFF); 1 where there is none or it makes no sense."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    try:
        entries = read_directory(block, order)
        return orientation_of(entries, block, order)
    except (struct.error, BadImage):
        return 1


def orientation_of(entries: dict[int, Entry], data: bytes, order: str) -> int:
    """Return the orientation 1...8 of a directory, 1 where there is none."""
    values = entry_values(data, order, entries[ORIENTATION_TAG]) if ORIENTATION_TAG in entries else ()
    return values[0] if values and 1 <= values[0] <= 8 else 1


def read_directory(data: bytes, order: str) -> dict[int, Entry]:
    """Return the entries of the first directory of a TIFF or Exif block in byte order ``<`` or ``>``, by tag."""
    at = struct.unpack_from(order + "I", data, 4)[0]
    starts = range(at + 2, at + 2 + 12 * struct.unpack_from(order + "H", data, at)[0], 12)
    fields = ((*struct.unpack_from(order + "HHI", data, start), start) for start in starts)
    return {tag: Entry(kind, number, start) for tag, kind, number, start in fields}


def entry_values(data: bytes, order: str, entry: Entry) -> tuple[int, ...]:
    """Return the values of an entry of type BYTE, SHORT or LONG."""
    letter = {1: "B", 3: "H", 4: "I"}.get(entry.kind)
    if letter is None:
        raise BadImage("damaged", f"directory entry of type {entry.kind}, expected whole numbers")
    if entry.number > MAX_VALUES:
        raise BadImage("unsupported", f"directory entry of {entry.number} values, at most {MAX_VALUES} are read")
    size = entry.number * struct.calcsize(letter)
    at = entry.at + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry.at + 8)[0]
    if at + size > len(data):
        raise BadImage("truncated", f"{len(data)} bytes, a directory entry ends at {at + size}")
    return struct.unpack_from(f"{order}{entry.number}{letter}", data, at)
