"""TIFF: pixels, the format on whose samples decoders, and their versions, disagree most.

OpenCV only undoes the compression: it gets the file with a new directory that calls every row one row of gray samples.
Alpha, palettes, inks, bit depths, prediction and tiles are then plain array arithmetic. What cannot be seen that way
(JPEG or fax compression, YCbCr, separate planes) goes through OpenCV whole, from a directory with nothing optional.

Axes: H, W pixels; C samples of a pixel.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbprep.formats.headers import BadImage
from sbprep.formats.samples import STRIP_PIXELS, Samples
from sbprep.formats.tiff import (
    BITS,
    BLACK_IS_0,
    CHANNELS,
    COLOR_MAP,
    COMPRESSION,
    EXTRA,
    FILL_ORDER,
    HEIGHT,
    INKS,
    JPEG_TABLES,
    PALETTE,
    PHOTOMETRIC,
    PLANAR,
    REFERENCE_BLACK_WHITE,
    ROWS_PER_STRIP,
    SAMPLES,
    STRIP_OFFSETS,
    STRIP_SIZES,
    T4_OPTIONS,
    T6_OPTIONS,
    TILE_HEIGHT,
    TILE_OFFSETS,
    TILE_SIZES,
    TILE_WIDTH,
    WHITE_IS_0,
    WIDTH,
    YCBCR_COEFFICIENTS,
    YCBCR_POSITIONING,
    YCBCR_SUBSAMPLING,
    Grid,
    Tiff,
)

_WHOLE = frozenset({WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP})
_WHOLE |= {STRIP_SIZES, PLANAR, T4_OPTIONS, T6_OPTIONS, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_SIZES, JPEG_TABLES}
_WHOLE |= {YCBCR_COEFFICIENTS, YCBCR_SUBSAMPLING, YCBCR_POSITIONING, REFERENCE_BLACK_WHITE}
_COPIED = (COMPRESSION, FILL_ORDER, STRIP_OFFSETS, STRIP_SIZES)
_COPIED_OF_TILES = (COMPRESSION, FILL_ORDER, TILE_OFFSETS, TILE_SIZES)
_MAX_ROWS = 2**20  # of OpenCV
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # of a value, by its type


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
    rows, width = _stored_shape(tiff)
    if rows > _MAX_ROWS:
        raise BadImage("unsupported", f"TIFF of {tiff.grid.down * tiff.grid.across} tiles, expected larger ones")
    new = {
        WIDTH: width,
        HEIGHT: rows,
        BITS: max(8, tiff.bits),
        PHOTOMETRIC: BLACK_IS_0,
        SAMPLES: 1,
        ROWS_PER_STRIP: tiff.grid.rows,
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
    return b"".join((data[:4], start, memoryview(data)[8:], b"\0" * pad, count, directory, b"\0\0\0\0"))


def is_plain(tiff: Tiff) -> bool:
    """Tell whether nothing is compressed and all is there, so that `plain_rows` needs no decoder."""
    if tiff.whole or tiff.value(COMPRESSION, 1) != 1 or tiff.value(FILL_ORDER, 1) != 1:
        return False
    rows, width = _stored_shape(tiff)
    row = width * max(8, tiff.bits) // 8
    strip, last = tiff.grid.rows * row, ((rows - 1) % tiff.grid.rows + 1) * row
    sizes = tiff.values(TILE_SIZES if tiff.tiled else STRIP_SIZES)[: tiff.grid.down * tiff.grid.across]
    return min(sizes[:-1], default=strip) >= strip and sizes[-1] >= last


def plain_rows(tiff: Tiff) -> NDArray[Any]:
    """Return what OpenCV makes of `gray_file`, for a TIFF that `is_plain`.

    OpenCV takes 6 times the size of a file whose image is one strip, as writers that do not compress like to have it.
    """
    dtype = np.dtype(f"{tiff.order}u2" if tiff.bits > 8 else "u1")
    image, rows = np.empty(_stored_shape(tiff), dtype.newbyteorder("=")), tiff.grid.rows
    for strip, offset in enumerate(tiff.values(TILE_OFFSETS if tiff.tiled else STRIP_OFFSETS)):
        part = image[strip * rows : (strip + 1) * rows]
        part[:] = np.frombuffer(tiff.data, dtype, part.size, offset).reshape(part.shape)
    return image


def _stored_shape(tiff: Tiff) -> tuple[int, int]:
    """Return rows and bytes or 16-bit samples of a row where strips, or tiles, lie one below the other."""
    rows = tiff.grid.rows * tiff.grid.down * tiff.grid.across if tiff.tiled else tiff.shape[0]
    return rows, -(-tiff.grid.columns * tiff.shape[2] * tiff.bits // max(8, tiff.bits))


def tiff_strips(tiff: Tiff, rows: NDArray[Any]) -> Iterator[Samples]:
    """Take apart what OpenCV made of `gray_file`: yield strips of pixels from uint8 or uint16 (rows, row samples)."""
    height, width, _ = tiff.shape
    grid = tiff.grid if tiff.tiled else Grid(height, width, 1, 1)
    colors = _color_map(tiff) if tiff.value(PHOTOMETRIC) == PALETTE else None
    tiles = rows.reshape(grid.down, grid.across, grid.rows, -1)
    step = max(1, STRIP_PIXELS // (grid.across * grid.columns))
    for down in range(grid.down):
        used = min(grid.rows, height - down * grid.rows)
        for top in range(0, used, step):
            pixels = _unpacked(tiff, tiles[down, :, top : min(top + step, used)], grid.columns)[:, :width]
            yield _samples(tiff, pixels, colors)


def _samples(tiff: Tiff, pixels: NDArray[Any], colors: NDArray[np.uint8] | None) -> Samples:
    top, kind = 2**tiff.bits - 1, tiff.value(EXTRA, 0)
    photometric, channels = tiff.value(PHOTOMETRIC), CHANNELS[tiff.value(PHOTOMETRIC)]
    color = pixels[..., :channels]
    alpha = pixels[..., channels:] if pixels.shape[2] > channels and kind in (1, 2) else None
    if colors is not None:
        return Samples(colors[color[..., 0]], None, 255)
    if photometric == WHITE_IS_0:
        color = top - color
    if photometric == INKS:
        color = _without_ink(color, top)
    return Samples(color, alpha, top, premultiplied=kind == 1)


def _unpacked(tiff: Tiff, tiles: NDArray[Any], columns: int) -> NDArray[Any]:
    """Return (rows, W, C) samples of tiles side by side (tiles, rows, row samples): bits unpacked, prediction undone."""
    across, height, _ = tiles.shape
    rows, samples = tiles.reshape(across * height, -1), tiff.shape[2]
    if tiff.bits < 8:
        bits = np.unpackbits(rows, axis=1)[:, : columns * samples * tiff.bits].reshape(len(rows), -1, tiff.bits)
        rows = (bits << np.arange(tiff.bits, dtype=np.uint8)[::-1]).sum(axis=2, dtype=np.uint8)
    pixels = rows.reshape(len(rows), columns, samples)
    if tiff.predicted:
        pixels = np.cumsum(pixels, axis=1, dtype=pixels.dtype)
    return pixels.reshape(across, height, columns, samples).swapaxes(0, 1).reshape(height, across * columns, samples)


def _color_map(tiff: Tiff) -> NDArray[np.uint8]:
    """Return the palette (colors, 3)."""
    colors = np.array(tiff.values(COLOR_MAP), dtype=np.uint32).astype(np.uint16)
    if len(colors) != 3 << tiff.bits:
        raise BadImage("damaged", f"TIFF palette of {len(colors)} values, expected {3 << tiff.bits}")
    # Writers make 16 bits by 256 as often as by 257: the high byte is right for both. A few store 8 bits.
    bits = 0 if colors.max() < 256 else 8
    return (colors >> bits).astype(np.uint8).reshape(3, -1).T


def _without_ink(inks: NDArray[Any], top: int) -> NDArray[np.uint16]:
    """Return RGB of cyan, magenta, yellow, black: the part of the paper that neither ink covers, no profile."""
    left = np.uint32(top) - inks.astype(np.uint32)
    return ((left[..., :3] * left[..., 3:] + np.uint32(top // 2)) // np.uint32(top)).astype(np.uint16)
