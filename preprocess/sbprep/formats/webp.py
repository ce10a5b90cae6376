"""WebP: the image, or the first frame of an animation, as a file of its own for the decoder."""

from __future__ import annotations

import struct
from typing import NamedTuple

from sbprep.formats.headers import BadImage, check_size, exif_orientation


class Webp(NamedTuple):
    """First frame of a WebP as a file of its own, and where it lies on the canvas; `frame` is its height and width."""

    height: int
    width: int
    frame: tuple[int, int]
    top: int
    left: int
    alpha: bool
    lossless: bool
    orientation: int
    file: bytes


def read_webp(data: bytes) -> Webp:
    """Find the image, or the first frame of an animation, and read its size from its own bit stream."""
    if not (data.startswith(b"RIFF") and data[8:12] == b"WEBP"):
        raise BadImage("not_an_image", "a RIFF file, but not WebP")
    stop = 8 + struct.unpack_from("<I", data, 4)[0]
    if stop > len(data):
        raise BadImage("truncated", f"WebP of {len(data)} bytes, its header says {stop}")
    try:
        return _first_frame(_riff_chunks(memoryview(data)[12:stop]))
    except struct.error:
        raise BadImage("damaged", "WebP without an image, or with one that ends within its header") from None


def _first_frame(chunks: dict[bytes, memoryview]) -> Webp:
    orientation = exif_orientation(bytes(chunks.get(b"EXIF", b"")).removeprefix(b"Exif\0\0"))
    frame = chunks.get(b"ANMF")
    if frame is None:
        return _webp_image(chunks, 0, 0, orientation)
    image = _webp_image(_riff_chunks(frame[16:]), 2 * _u24(frame, 3), 2 * _u24(frame, 0), orientation)
    return _on_canvas(image, 1 + _u24(chunks.get(b"VP8X", b""), 7), 1 + _u24(chunks.get(b"VP8X", b""), 4))


def _on_canvas(image: Webp, height: int, width: int) -> Webp:
    check_size(height, width)
    if image.top + image.height > height or image.left + image.width > width:
        raise BadImage("damaged", f"WebP frame outside its canvas of {width} x {height} pixels")
    return image._replace(height=height, width=width)


def _webp_image(chunks: dict[bytes, memoryview], top: int, left: int, orientation: int) -> Webp:
    if b"VP8L" in chunks:
        bits = struct.unpack_from("<I", chunks[b"VP8L"], 1)[0]
        width, height, alpha = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
        parts = [_riff_chunk(b"VP8L", chunks[b"VP8L"])]
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", chunks.get(b"VP8 ", b""), 6))
        alpha = b"ALPH" in chunks
        parts = [_riff_chunk(name, chunks[name]) for name in (b"ALPH", b"VP8 ") if name in chunks]
    check_size(height, width)
    if len(parts) == 2:
        size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        parts.insert(0, _riff_chunk(b"VP8X", b"\x10\0\0\0" + size))
    file = _riff_chunk(b"RIFF", b"WEBP" + b"".join(parts))
    return Webp(height, width, (height, width), top, left, alpha, b"VP8L" in chunks, orientation, file)


def _riff_chunks(data: memoryview) -> dict[bytes, memoryview]:
    """Return the first chunk of each name."""
    at, chunks = 0, dict[bytes, memoryview]()
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        chunks.setdefault(name, data[at + 8 : at + 8 + size])
        at += 8 + size + (size & 1)
    return chunks


def _riff_chunk(name: bytes, content: bytes | memoryview) -> bytes:
    return b"".join((name, struct.pack("<I", len(content)), content, b"\0" * (len(content) & 1)))


def _u24(data: bytes | memoryview, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "little")
