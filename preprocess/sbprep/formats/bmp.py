"""BMP: layout and the pixels of 16 and 32 bits, which decoders scale and mask each in its own way."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sbprep.formats.headers import BadImage, check_size
from sbprep.formats.samples import STRIP_PIXELS, Samples

_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_BMP_555 = (0x7C00, 0x3E0, 0x1F, 0)
_BMP_888 = (0xFF0000, 0xFF00, 0xFF, 0)


class Bmp(NamedTuple):
    """Layout of a BMP; `masks` (red, green, blue, alpha) where pixels are words of 16 or 32 bits, else empty."""

    height: int
    width: int
    bits: int
    offset: int
    bottom_up: bool
    masks: tuple[int, ...]


def read_bmp(data: bytes) -> Bmp:
    """Read the header of a BMP and check that its pixels are all there."""
    offset, kind = struct.unpack_from("<II", data, 10)
    if kind not in _BMP_HEADERS:
        raise BadImage("not_an_image", f"starts like a BMP, but its header has {kind} bytes")
    compression, size = (0, 0) if kind == 12 else struct.unpack_from("<II", data, 30)
    width, height, _, bits = struct.unpack_from("<HHHH" if kind == 12 else "<iiHH", data, 18)
    check_size(abs(height), width)
    if (bits, compression) not in {(1, 0), (4, 0), (8, 0), (24, 0), (16, 0), (32, 0), (8, 1), (4, 2), (16, 3), (32, 3)}:
        raise BadImage("unsupported", f"BMP of {bits} bits a pixel with compression {compression}")
    stop = offset + (size if compression in (1, 2) else _bmp_row(width, bits) * abs(height))
    if stop > len(data):
        raise BadImage("truncated", f"BMP of {len(data)} bytes, its pixels end at {stop}")
    return Bmp(abs(height), width, bits, offset, height > 0, _bmp_masks(data, kind, bits, compression))


def _bmp_row(width: int, bits: int) -> int:
    return (width * bits + 31) // 32 * 4


def _bmp_masks(data: bytes, kind: int, bits: int, compression: int) -> tuple[int, ...]:
    if bits not in (16, 32):
        return ()
    if compression == 0:
        return _BMP_555 if bits == 16 else _BMP_888
    alpha = struct.unpack_from("<I", data, 66)[0] if kind in (56, 108, 124) else 0
    return (*struct.unpack_from("<III", data, 54), alpha)


def bmp_strips(data: bytes, bmp: Bmp) -> Iterator[Samples]:
    """Yield the pixels of a BMP of 16 or 32 bits, top down: OpenCV scales 5 bits to 0...248 and passes over alpha."""
    words = np.frombuffer(
        data, f"<u{bmp.bits // 8}", bmp.height * _bmp_row(bmp.width, bmp.bits) * 8 // bmp.bits, bmp.offset
    )
    words = words.reshape(bmp.height, -1)[:: -1 if bmp.bottom_up else 1, : bmp.width]
    rows = max(1, STRIP_PIXELS // bmp.width)
    for top in range(0, bmp.height, rows):
        strip = words[top : top + rows].astype(np.uint64)
        fields = [_bmp_field(strip, mask) for mask in bmp.masks]
        yield Samples(np.stack(fields[:3], axis=-1), fields[3][..., None] if bmp.masks[3] else None, 255)


def _bmp_field(words: NDArray[np.uint64], mask: int) -> NDArray[np.uint8]:
    if mask == 0:
        return np.zeros(words.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    top = mask >> shift
    return ((((words & mask) >> shift) * 510 + top) // (2 * top)).astype(np.uint8)
