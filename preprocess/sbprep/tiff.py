"""TIFF: the format on whose samples decoders, and their versions, disagree most.

OpenCV only undoes the compression: it gets the file with a new directory that calls every row one row of gray samples.
Alpha, palettes, inks, bit depths, prediction and tiles are then plain array arithmetic. What cannot be seen that way
(JPEG or fax compression, YCbCr, separate planes) goes through OpenCV whole, from a directory with nothing optional.

Axes: H, W pixels; C samples of a pixel.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sbprep.headers import BadImage, Entry, Samples, check_size, entry_values, orientation_of, read_directory

# TIFF 6.0 tags, by the names of the specification
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIP_OFFSETS = 256, 257, 258, 259, 262, 266, 273
SAMPLES, ROWS_PER_STRIP, STRIP_SIZES, PLANAR, T4_OPTIONS, T6_OPTIONS, PREDICTOR = 277, 278, 279, 284, 292, 293, 317
COLOR_MAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_SIZES, EXTRA, FORMAT = 320, 322, 323, 324, 325, 338, 339
JPEG_TABLES, YCBCR_COEFFICIENTS, YCBCR_SUBSAMPLING, YCBCR_POSITIONING, REFERENCE_BLACK_WHITE = 347, 529, 530, 531, 532

_WHITE_IS_0, _BLACK_IS_0, _RGB, _PALETTE, _INKS, _YCBCR = 0, 1, 2, 3, 5, 6
_CHANNELS = {_WHITE_IS_0: 1, _BLACK_IS_0: 1, _RGB: 3, _PALETTE: 1, _INKS: 4, _YCBCR: 3}
_PREDICTED = (5, 8, 32946)  # LZW, deflate, deflate by its old number
_BYTEWISE = (1, 32773, *_PREDICTED)  # plain, PackBits
_FAX, _JPEG = (2, 3, 4), 7
_WHOLE = frozenset({WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP})
_WHOLE |= {STRIP_SIZES, PLANAR, T4_OPTIONS, T6_OPTIONS, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_SIZES, JPEG_TABLES}
_WHOLE |= {YCBCR_COEFFICIENTS, YCBCR_SUBSAMPLING, YCBCR_POSITIONING, REFERENCE_BLACK_WHITE}
_COPIED = (COMPRESSION, FILL_ORDER, STRIP_OFFSETS, STRIP_SIZES)
_COPIED_OF_TILES = (COMPRESSION, FILL_ORDER, TILE_OFFSETS, TILE_SIZES)
_MAX_ROWS = 2**20  # of OpenCV
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # of a value, by its type


class Grid(NamedTuple):
    """Strips or tiles: pixel rows and columns of each, and how many there are down and across."""

    rows: int
    columns: int
    down: int
    across: int


class Tiff(NamedTuple):
    """First directory of a TIFF."""

    data: bytes
    order: str
    entries: dict[int, Entry]

    def values(self, tag: int, default: int | None = None) -> tuple[int, ...]:
        """Return the values of a tag; raise `BadImage` where it is missing and has no default."""
        if tag in self.entries:
            values = entry_values(self.data, self.order, self.entries[tag])
            if values:
                return values
        if default is None:
            raise BadImage("damaged", f"TIFF without a value of tag {tag}")
        return (default,)

    def value(self, tag: int, default: int | None = None) -> int:
        """Return the first value of a tag."""
        return self.values(tag, default)[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and samples of a pixel."""
        return self.value(HEIGHT), self.value(WIDTH), self.value(SAMPLES, 1)

    @property
    def bits(self) -> int:
        """Bits of a sample."""
        return self.value(BITS, 1)

    @property
    def tiled(self) -> bool:
        """True for tiles, False for strips."""
        return TILE_OFFSETS in self.entries

    @property
    def whole(self) -> bool:
        """True where OpenCV has to make the pixels."""
        special = self.value(PHOTOMETRIC) == _YCBCR or self.value(COMPRESSION, 1) not in _BYTEWISE
        return special or (self.value(PLANAR, 1) == 2 and self.value(SAMPLES, 1) > 1)

    @property
    def predicted(self) -> bool:
        """True where a sample is stored as the difference to its left neighbor."""
        return self.value(COMPRESSION, 1) in _PREDICTED and self.value(PREDICTOR, 1) == 2

    @property
    def orientation(self) -> int:
        """Exif orientation 1...8."""
        return orientation_of(self.entries, self.data, self.order)


def read_tiff(data: bytes) -> Tiff:
    """Read the first directory of a TIFF, check that it can be decoded and that all its strips or tiles are there."""
    order = "<" if data.startswith(b"II") else ">"
    magic = struct.unpack_from(order + "H", data, 2)[0]
    if magic != 42:
        code = "unsupported" if magic == 43 else "not_an_image"
        raise BadImage(code, f"starts like a TIFF, but its version is {magic}, expected 42 (43 is BigTIFF)")
    tiff = Tiff(data, order, read_directory(data, order))
    check_size(*tiff.shape[:2])
    _check_kind(tiff)
    _check_strips(tiff)
    return tiff


def _check_kind(tiff: Tiff) -> None:
    """Raise `BadImage` for what neither way of decoding can do."""
    photometric, compression, samples = tiff.value(PHOTOMETRIC), tiff.value(COMPRESSION, 1), tiff.shape[2]
    if photometric not in _CHANNELS or compression not in (*_BYTEWISE, *_FAX, _JPEG):
        raise BadImage("unsupported", f"TIFF of photometric interpretation {photometric}, compression {compression}")
    if {*tiff.values(FORMAT, 1)} != {1} or len({*tiff.values(BITS, 1)}) > 1:
        raise BadImage("unsupported", "TIFF of float, signed or unequal samples")
    extra = samples - _CHANNELS[photometric]
    if not 0 <= extra <= (photometric in (_WHITE_IS_0, _BLACK_IS_0, _RGB)):
        raise BadImage("unsupported", f"TIFF of {samples} samples a pixel, photometric interpretation {photometric}")
    bits = (1,) if compression in _FAX else (8,) if tiff.whole else (1, 2, 4, 8, 16)
    if tiff.bits not in bits or (extra and tiff.whole):
        raise BadImage("unsupported", f"TIFF of {samples} x {tiff.bits} bits a pixel with compression {compression}")
    if tiff.value(PREDICTOR, 1) == 3 or (tiff.predicted and tiff.bits < 8):
        raise BadImage("unsupported", f"TIFF of {tiff.bits} bits with predictor {tiff.value(PREDICTOR)}")


def _check_strips(tiff: Tiff) -> None:
    """Raise `BadImage` where a strip or tile lies beyond the end, or where there are too few."""
    offsets = tiff.values(TILE_OFFSETS if tiff.tiled else STRIP_OFFSETS)
    sizes = tiff.values(TILE_SIZES if tiff.tiled else STRIP_SIZES)
    grid = _grid(tiff)
    count = grid.down * grid.across * (tiff.shape[2] if tiff.value(PLANAR, 1) == 2 else 1)
    if not len(offsets) == len(sizes) >= count:
        raise BadImage("damaged", f"TIFF of {len(offsets)} strips or tiles and {len(sizes)} sizes, expected {count}")
    stop = max(offset + size for offset, size in zip(offsets, sizes, strict=True))
    if stop > len(tiff.data):
        raise BadImage("truncated", f"TIFF of {len(tiff.data)} bytes, a strip or tile ends at {stop}")


def _grid(tiff: Tiff) -> Grid:
    height, width, _ = tiff.shape
    if tiff.tiled:
        rows, columns = tiff.value(TILE_HEIGHT), tiff.value(TILE_WIDTH)
    else:
        rows, columns = min(tiff.value(ROWS_PER_STRIP, height), height), width
    check_size(rows, columns)
    return Grid(rows, columns, -(-height // rows), -(-width // columns))


def whole_file(tiff: Tiff) -> bytes:
    """Return the file with only those tags of its first page that say how to make its pixels."""
    copied = {tag: entry for tag, entry in tiff.entries.items() if tag in _WHOLE}
    for tag, entry in copied.items():
        size = _BYTES.get(entry.kind, 1) * entry.number
        stop = size + struct.unpack_from(tiff.order + "I", tiff.data, entry.at + 8)[0]
        if size > 4 and stop > len(tiff.data):
            raise BadImage("truncated", f"TIFF of {len(tiff.data)} bytes, the values of tag {tag} end at {stop}")
    return _with_directory(tiff, {tag: tiff.data[entry.at : entry.at + 12] for tag, entry in copied.items()})


def gray_file(tiff: Tiff) -> bytes:
    """Return the file with its first page called a gray image of 8 or 16 bits, whose rows are those of the samples.

    Tiles are called strips, one below the other: libtiff 4.7 refuses plain tiles of other than whole kilobytes.
    """
    grid = _grid(tiff)
    if grid.rows * grid.down * grid.across > _MAX_ROWS:
        raise BadImage("unsupported", f"TIFF of {grid.down * grid.across} tiles, expected larger ones")
    new = {
        WIDTH: -(-grid.columns * tiff.shape[2] * tiff.bits // max(8, tiff.bits)),
        HEIGHT: grid.rows * grid.down * grid.across if tiff.tiled else tiff.shape[0],
        BITS: max(8, tiff.bits),
        PHOTOMETRIC: _BLACK_IS_0,
        SAMPLES: 1,
        ROWS_PER_STRIP: grid.rows,
    }
    entries = {tag: _entry(tiff.order, tag, value) for tag, value in new.items()}
    for tag, source in zip(_COPIED, _COPIED_OF_TILES if tiff.tiled else _COPIED, strict=True):
        if source in tiff.entries:
            at = tiff.entries[source].at
            entries[tag] = struct.pack(tiff.order + "H", tag) + tiff.data[at + 2 : at + 12]
    return _with_directory(tiff, entries)


def _entry(order: str, tag: int, value: int) -> bytes:
    short = tag in (BITS, PHOTOMETRIC, SAMPLES)
    return struct.pack(order + ("HHIHxx" if short else "HHII"), tag, 3 if short else 4, 1, value)


def _with_directory(tiff: Tiff, entries: dict[int, bytes]) -> bytes:
    data, order = tiff.data, tiff.order
    pad = len(data) & 1  # directories start on even offsets
    start = struct.pack(order + "I", len(data) + pad)
    directory = b"".join(entries[tag] for tag in sorted(entries))
    count = struct.pack(order + "H", len(entries))
    return b"".join((data[:4], start, data[8:], b"\0" * pad, count, directory, b"\0\0\0\0"))


def tiff_samples(tiff: Tiff, rows: NDArray[Any]) -> Samples:
    """Take apart what OpenCV made of `gray_file`: uint8 or uint16 (H, samples of a row)."""
    top = 2**tiff.bits - 1
    pixels = _unpacked(tiff, rows)
    photometric, channels = tiff.value(PHOTOMETRIC), _CHANNELS[tiff.value(PHOTOMETRIC)]
    color = pixels[..., :channels]
    kind = tiff.value(EXTRA, 0)
    alpha = pixels[..., channels:] if pixels.shape[2] > channels and kind in (1, 2) else None
    if photometric == _PALETTE:
        return _looked_up(tiff, color[..., 0])
    if photometric == _WHITE_IS_0:
        color = top - color
    if photometric == _INKS:
        color = _without_ink(color, top)
    return Samples(color, alpha, top, premultiplied=kind == 1)


def _unpacked(tiff: Tiff, rows: NDArray[Any]) -> NDArray[Any]:
    """Return (H, W, C) samples: bits unpacked, prediction undone, tiles side by side."""
    height, width, samples = tiff.shape
    grid = _grid(tiff)
    if tiff.bits < 8:
        bits = np.unpackbits(rows, axis=1)[:, : grid.columns * samples * tiff.bits].reshape(len(rows), -1, tiff.bits)
        rows = (bits << np.arange(tiff.bits, dtype=np.uint8)[::-1]).sum(axis=2, dtype=np.uint8)
    pixels = rows.reshape(len(rows), grid.columns, samples)
    if tiff.predicted:
        pixels = np.cumsum(pixels, axis=1, dtype=pixels.dtype)
    if tiff.tiled:
        tiles = pixels.reshape(grid.down, grid.across, grid.rows, grid.columns, samples).swapaxes(1, 2)
        pixels = tiles.reshape(grid.down * grid.rows, grid.across * grid.columns, samples)[:height, :width]
    return pixels


def _looked_up(tiff: Tiff, index: NDArray[Any]) -> Samples:
    colors = np.array(tiff.values(COLOR_MAP), dtype=np.uint32).astype(np.uint16)
    if len(colors) != 3 << tiff.bits:
        raise BadImage("damaged", f"TIFF palette of {len(colors)} values, expected {3 << tiff.bits}")
    # Writers make 16 bits by 256 as often as by 257: the high byte is right for both. A few store 8 bits.
    bits = 0 if colors.max() < 256 else 8
    return Samples((colors >> bits).reshape(3, -1).T[index], None, 255)


def _without_ink(inks: NDArray[Any], top: int) -> NDArray[np.uint16]:
    """Return RGB of cyan, magenta, yellow, black: the part of the paper that neither ink covers, no profile."""
    left = np.uint32(top) - inks.astype(np.uint32)
    return ((left[..., :3] * left[..., 3:] + np.uint32(top // 2)) // np.uint32(top)).astype(np.uint16)
