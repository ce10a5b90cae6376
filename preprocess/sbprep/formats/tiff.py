"""TIFF: its first directory, read and checked. The pixels are made in `tiff_pixels`."""

from __future__ import annotations

import struct
from typing import NamedTuple

from sbprep.formats.headers import BadImage, Entry, check_size, entry_values, orientation_of, read_directory

# TIFF 6.0 tags, by the names of the specification
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIP_OFFSETS = 256, 257, 258, 259, 262, 266, 273
SAMPLES, ROWS_PER_STRIP, STRIP_SIZES, PLANAR, T4_OPTIONS, T6_OPTIONS, PREDICTOR = 277, 278, 279, 284, 292, 293, 317
COLOR_MAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_SIZES, EXTRA, FORMAT = 320, 322, 323, 324, 325, 338, 339
JPEG_TABLES, YCBCR_COEFFICIENTS, YCBCR_SUBSAMPLING, YCBCR_POSITIONING, REFERENCE_BLACK_WHITE = 347, 529, 530, 531, 532

WHITE_IS_0, BLACK_IS_0, RGB, PALETTE, INKS, YCBCR = 0, 1, 2, 3, 5, 6
CHANNELS = {WHITE_IS_0: 1, BLACK_IS_0: 1, RGB: 3, PALETTE: 1, INKS: 4, YCBCR: 3}
_PREDICTED = (5, 8, 32946)  # LZW, deflate, deflate by its old number
_BYTEWISE = (1, 32773, *_PREDICTED)  # plain, PackBits
_FAX, _JPEG = (2, 3, 4), 7


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
        special = self.value(PHOTOMETRIC) == YCBCR or self.value(COMPRESSION, 1) not in _BYTEWISE
        return special or (self.value(PLANAR, 1) == 2 and self.value(SAMPLES, 1) > 1)

    @property
    def grid(self) -> Grid:
        """Strips or tiles."""
        height, width, _ = self.shape
        if self.tiled:
            rows, columns = self.value(TILE_HEIGHT), self.value(TILE_WIDTH)
        else:
            rows, columns = min(self.value(ROWS_PER_STRIP, height), height), width
        check_size(rows, columns)
        return Grid(rows, columns, -(-height // rows), -(-width // columns))

    @property
    def stored_pixels(self) -> int:
        """Number of pixels, with those of tiles that reach over the edge."""
        return self.grid.rows * self.grid.down * self.grid.columns * self.grid.across

    @property
    def stored_bytes(self) -> int:
        """Bytes of a pixel, rounded up, before it is made RGB."""
        return -(-self.shape[2] * self.bits // 8)

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
    if photometric not in CHANNELS or compression not in (*_BYTEWISE, *_FAX, _JPEG):
        raise BadImage("unsupported", f"TIFF of photometric interpretation {photometric}, compression {compression}")
    if {*tiff.values(FORMAT, 1)} != {1} or len({*tiff.values(BITS, 1)}) > 1:
        raise BadImage("unsupported", "TIFF of float, signed or unequal samples")
    extra = samples - CHANNELS[photometric]
    if not 0 <= extra <= (photometric in (WHITE_IS_0, BLACK_IS_0, RGB)):
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
    grid = tiff.grid
    count = grid.down * grid.across * (tiff.shape[2] if tiff.value(PLANAR, 1) == 2 else 1)
    if not len(offsets) == len(sizes) >= count:
        raise BadImage("damaged", f"TIFF of {len(offsets)} strips or tiles and {len(sizes)} sizes, expected {count}")
    stop = max(offset + size for offset, size in zip(offsets, sizes, strict=True))
    if stop > len(tiff.data):
        raise BadImage("truncated", f"TIFF of {len(tiff.data)} bytes, a strip or tile ends at {stop}")
