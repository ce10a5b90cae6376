"""What the bytes of an image file say before any pixel is decoded: size, kind, orientation, and whether all is there.

Decoders fill what is missing with gray, disagree on metadata from version to version and allocate what a header asks
for. So the header is read here, and for PNG and WebP a file without anything optional is put together for the decoder.

Every reader raises `BadImage`; where a file ends inside its header, the `struct.error` of reading past the end means
"truncated" (`decode.decode` translates both). BMP and TIFF have modules of their own.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from numpy.typing import NDArray

#: Largest width · height that is decoded: 8192 x 8192, 192 MiB of pixels. More is taken for a decompression bomb.
MAX_PIXELS = 2**26
#: Longest side; also what JPEG can express. OpenCV itself stops at 2**20.
MAX_SIDE = 2**16

PNG_START = b"\x89PNG\r\n\x1a\n"
ORIENTATION_TAG = 274  # Exif 2.32, table 4; the same in TIFF 6.0

_EOI = b"\xff\xd9"
_SOS = 0xDA
_APP1 = 0xE1
_APP14 = 0xEE
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # SOF0...SOF15 without DHT, JPG, DAC
_HUFFMAN_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive: what every decoder build knows
_NO_SEGMENT = frozenset({0x00, 0x01, *range(0xD0, 0xD9), 0xFF})  # stuffing, TEM, RSTn, SOI, fill: no length follows
_jpeg_segment = struct.Struct(">BBH").unpack_from
_jpeg_frame = struct.Struct(">BHHB").unpack_from


class BadImage(Exception):
    """Why a file cannot be decoded: `code` and `detail` of the `Rejected` that it becomes."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail


class Jpeg(NamedTuple):
    """Frame header of a JPEG; `components` is 1 (gray), 3 (YCbCr or RGB) or 4 (inverted CMYK or YCCK)."""

    height: int
    width: int
    components: int
    orientation: int


class Png(NamedTuple):
    """Header of a PNG, its palette and transparency chunks and its IDAT chunks, checked and joined."""

    height: int
    width: int
    depth: int
    color: int
    orientation: int
    header: bytes
    palette: bytes
    transparency: bytes
    image: bytes


class Webp(NamedTuple):
    """First frame of a WebP as a file of its own, and where it lies on the canvas; `frame` is its height and width."""

    height: int
    width: int
    frame: tuple[int, int]
    top: int
    left: int
    alpha: bool
    orientation: int
    file: bytes


class Samples(NamedTuple):
    """Pixels before they are 8-bit RGB: `color` (H, W, 1 or 3) in 0...`top`, `alpha` (H, W, 1) or None likewise."""

    color: NDArray[Any]
    alpha: NDArray[Any] | None
    top: int
    premultiplied: bool = False


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


def read_jpeg(data: bytes) -> Jpeg:
    """Walk the segments up to the first scan: 1.5 us for a plain file of 96 x 96 pixels, which decodes in 43 us."""
    if not data.startswith(b"\xff\xd8\xff"):
        raise BadImage("not_an_image", "starts like a JPEG, but no marker follows")
    at, frame, orientation, adobe = 2, 0, 1, False
    while True:
        mark, marker, length = _jpeg_segment(data, at)
        if mark != 0xFF or marker in _NO_SEGMENT:
            at = data.find(b"\xff", at + 1)  # as decoders do; not found: -1, one byte from the end, ends the walk
            continue
        if marker == _SOS:
            break
        if marker in _FRAMES:
            frame = at
        elif marker == _APP1 and data.startswith(b"Exif\0\0", at + 4):
            orientation = exif_orientation(data[at + 10 : at + 2 + length])
        elif marker == _APP14:
            adobe = data.startswith(b"Adobe", at + 4)
        at += 2 + length
    if not frame:
        raise BadImage("damaged", "JPEG without a frame header before the first scan")
    # Inside a scan 0xFF is always followed by 0 or a restart marker, so this is the end of the image and no other data.
    if not data.endswith(_EOI) and data.find(_EOI, at) < 0:
        raise BadImage("truncated", "JPEG without an end marker")
    precision, height, width, components = _jpeg_frame(data, frame + 4)
    check_size(height, width)
    _check_jpeg_kind(data[frame + 1], precision, components, adobe)
    return Jpeg(height, width, components, orientation)


def _check_jpeg_kind(marker: int, precision: int, components: int, adobe: bool) -> None:
    if marker not in _HUFFMAN_FRAMES:
        raise BadImage("unsupported", f"JPEG process SOF{marker - 0xC0} (lossless, hierarchical or arithmetic)")
    if precision != 8:
        raise BadImage("unsupported", f"JPEG of {precision} bits a sample, expected 8")
    if components not in (1, 3, 4):
        raise BadImage("unsupported", f"JPEG of {components} components, expected 1, 3 or 4")
    if components == 4 and not adobe:
        raise BadImage("unsupported", "CMYK JPEG without an Adobe marker: nothing says whether its inks are inverted")


def read_png(data: bytes) -> Png:
    """Check every chunk's length and CRC up to IEND and keep what the pixels need."""
    if not data.startswith(PNG_START):
        raise BadImage("not_an_image", "starts like a PNG but has not its signature")
    chunks: dict[bytes, bytes] = {}
    image = []
    for name, start, stop in _png_chunks(data):
        if name == b"IDAT":
            image.append(data[start:stop])
        else:
            chunks.setdefault(name, data[start + 8 : stop - 4])
    header = chunks.get(b"IHDR", b"")
    if len(header) != 13:
        raise BadImage("damaged", "PNG without a header chunk")
    width, height, depth, color = struct.unpack_from(">IIBB", header)
    check_size(height, width)
    orientation = exif_orientation(chunks.get(b"eXIf", b""))
    palette, transparency = chunks.get(b"PLTE", b""), chunks.get(b"tRNS", b"")
    return Png(height, width, depth, color, orientation, header, palette, transparency, b"".join(image))


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
    return b"".join((PNG_START, _png_chunk(b"IHDR", png.header), colors, png.image, _png_chunk(b"IEND", b"")))


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def read_webp(data: bytes) -> Webp:
    """Find the image, or the first frame of an animation, and read its size from its own bit stream."""
    if not (data.startswith(b"RIFF") and data[8:12] == b"WEBP"):
        raise BadImage("not_an_image", "a RIFF file, but not WebP")
    stop = 8 + struct.unpack_from("<I", data, 4)[0]
    if stop > len(data):
        raise BadImage("truncated", f"WebP of {len(data)} bytes, its header says {stop}")
    try:
        return _first_frame(_riff_chunks(data[12:stop]))
    except struct.error:
        raise BadImage("damaged", "WebP without an image, or with one that ends within its header") from None


def _first_frame(chunks: dict[bytes, bytes]) -> Webp:
    orientation = exif_orientation(chunks.get(b"EXIF", b"").removeprefix(b"Exif\0\0"))
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


def _webp_image(chunks: dict[bytes, bytes], top: int, left: int, orientation: int) -> Webp:
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
    return Webp(height, width, (height, width), top, left, alpha, orientation, file)


def _riff_chunks(data: bytes) -> dict[bytes, bytes]:
    """Return the first chunk of each name."""
    at, chunks = 0, dict[bytes, bytes]()
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        chunks.setdefault(name, data[at + 8 : at + 8 + size])
        at += 8 + size + (size & 1)
    return chunks


def _riff_chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) & 1)


def _u24(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", b"\0" + data, at)[0] >> 8)


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
    size = entry.number * struct.calcsize(letter)
    at = entry.at + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry.at + 8)[0]
    if at + size > len(data):
        raise BadImage("truncated", f"{len(data)} bytes, a directory entry ends at {at + size}")
    return struct.unpack_from(f"{order}{entry.number}{letter}", data, at)
