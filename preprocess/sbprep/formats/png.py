"""PNG: header, palette and transparency, every checksum, and a file without anything optional for the decoder."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sbprep.formats.headers import BadImage, check_size, exif_orientation

GRAY, RGB, PALETTE = 0, 2, 3  # color types; 4 and 6 have alpha
PNG_START = b"\x89PNG\r\n\x1a\n"


class Png(NamedTuple):
    """Header of a PNG, its palette and transparency chunks and its IDAT chunks, checked."""

    height: int
    width: int
    depth: int
    color: int
    orientation: int
    header: bytes
    palette: bytes
    transparency: bytes
    image: list[memoryview]


def read_png(data: bytes) -> Png:
    """Check every chunk's length and CRC up to IEND and keep what the pixels need."""
    if not data.startswith(PNG_START):
        raise BadImage("not_an_image", "starts like a PNG but has not its signature")
    chunks: dict[bytes, bytes] = {}
    image, view = [], memoryview(data)
    for name, start, stop in _png_chunks(data):
        if name == b"IDAT":
            image.append(view[start:stop])
        else:
            chunks.setdefault(name, data[start + 8 : stop - 4])
    header = chunks.get(b"IHDR", b"")
    if len(header) != 13:
        raise BadImage("damaged", "PNG without a header chunk")
    width, height, depth, color = struct.unpack_from(">IIBB", header)
    check_size(height, width)
    orientation = exif_orientation(chunks.get(b"eXIf", b""))
    palette, transparency = chunks.get(b"PLTE", b""), chunks.get(b"tRNS", b"")
    return Png(height, width, depth, color, orientation, header, palette, transparency, image)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and stop (with length and CRC) of each chunk; leave at IEND, whatever follows."""
    view = memoryview(data)
    at, name = len(PNG_START), b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, at)
        stop = at + 12 + length
        if stop > len(data):
            raise BadImage("truncated", f"PNG of {len(data)} bytes, its chunk {name!r} ends at {stop}")
        if zlib.crc32(view[at + 4 : stop - 4]) != int.from_bytes(view[stop - 4 : stop], "big"):
            raise BadImage("damaged", f"PNG with a wrong CRC of its chunk {name!r} at byte {at}")
        yield name, at, stop
        at = stop


def plain_png(png: Png, palette: bytes) -> bytes:
    """Return the file with this palette and without gamma, profiles, transparency, animation and text."""
    colors = _png_chunk(b"PLTE", palette) if png.color == 3 else b""
    return b"".join((PNG_START, _png_chunk(b"IHDR", png.header), colors, *png.image, _png_chunk(b"IEND", b"")))


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def transparent_color(png: Png, color: NDArray[Any]) -> NDArray[Any] | None:
    """Return the alpha of the one color that a gray or RGB PNG may call transparent."""
    if (png.color, len(png.transparency)) not in {(GRAY, 2), (RGB, 6)}:
        return None
    key = np.frombuffer(png.transparency, ">u2").astype(np.int64)
    if png.depth < 8:
        key = key * 255 // (2**png.depth - 1)
    opaque = (color != key).any(axis=2, keepdims=True)
    return np.where(opaque, np.iinfo(color.dtype).max, 0).astype(color.dtype)
