"""Decoding against Pillow and hand formulas, every reason to reject, damage of every kind, and resizing."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from sbformat.errors import BuildError, SourceError
from sbprep import decode as decode_module
from sbprep.areas import area_weights
from sbprep.decode import decode, draw_text, fit, quiet, use_one_thread, write_png
from sbprep.formats import bmp as bmp_module
from sbprep.formats import samples, tiff_pixels
from sbprep.formats.headers import MAX_PIXELS
from sbprep.formats.jpeg import read_jpeg
from sbprep.formats.samples import STRIP_PIXELS, Samples, strips_of
from sbprep.formats.tiff import read_tiff
from sbprep.formats.tiff_pixels import gray_file, is_plain, plain_rows
from sbprep.sources.base import Rejected

HEIGHT, WIDTH = 21, 34  # even nowhere but in one place: rows of 1, 2 and 4 bits end within a byte
ORIENTATIONS = range(1, 9)


def noise(*shape: int, dtype: Any = np.uint8, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def smooth(height: int, width: int) -> Any:
    """An image that JPEG keeps well: three slow waves."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 19 + y / 31), np.cos(x / 23 - y / 17), np.sin(y / 13) * np.cos(x / 29)]
    return np.round(127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def encoded(image: Any, kind: str, **options: Any) -> bytes:
    """The bytes of an image, as Pillow writes them."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def pillow(data: bytes) -> Any:
    """Pillow's decoding: RGB, turned upright."""
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


def code(data: bytes) -> str:
    """The reject code, or 'ok'."""
    result = decode(data)
    return result.code if isinstance(result, Rejected) else "ok"


def off_by(data: bytes, expected: Any) -> int:
    """Largest difference to the expected pixels."""
    result = decode(data)
    assert isinstance(result, np.ndarray), result
    assert (result.dtype, result.shape, result.flags.c_contiguous) == (np.uint8, expected.shape, True)
    return int(np.abs(result.astype(int) - expected).max())


def on_white(color: Any, alpha: Any, top: int = 255) -> Any:
    """255 · (c · a + top · (top - a)) / top², half up, in Python's integers."""
    color, alpha = np.broadcast_arrays(color.astype(object), alpha.astype(object))
    return ((255 * (color * alpha + top * (top - alpha)) + top * top // 2) // (top * top)).astype(np.uint8)


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(samples: Any, color: int, depth: int, *chunks: bytes) -> bytes:
    """A PNG of any color type and depth; `samples` (H, W, C), or (H, W) for one sample."""
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in samples]
    else:
        bits = (samples.reshape(len(samples), -1, 1) >> np.arange(depth - 1, -1, -1)) & 1
        rows = [row.tobytes() for row in np.packbits(bits.astype(np.uint8).reshape(len(samples), -1), axis=1)]
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], depth, color, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", body), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(samples: Any, photometric: int, tags: dict[int, tuple[int, ...]] | None = None, order: str = "<") -> bytes:
    """An uncompressed TIFF in one strip, data first; tags override."""
    pixels = samples.reshape(*samples.shape[:2], -1)
    body = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    bits = 8 * pixels.itemsize
    fields = {
        256: (pixels.shape[1],),
        257: (len(pixels),),
        258: (bits,) * pixels.shape[2],
        259: (1,),
        262: (photometric,),
    }
    fields |= {273: (8,), 277: (pixels.shape[2],), 279: (len(body),)}
    fields |= tags or {}
    fields = {tag: values for tag, values in fields.items() if values and not (324 in fields and tag in (273, 279))}
    at = 8 + len(body) + (len(body) & 1)
    entries, far = b"", b""
    for tag in sorted(fields):
        letter, kind = ("I", 4) if tag in (273, 279, 324, 325) else ("H", 3)
        value = struct.pack(f"{order}{len(fields[tag])}{letter}", *fields[tag])
        if len(value) > 4:
            value, far = (
                struct.pack(order + "I", at + 2 + 12 * len(fields) + 4 + len(far)),
                far + value + b"\0" * (len(value) % 2),
            )
        entries += struct.pack(order + "HHI", tag, kind, len(fields[tag])) + value.ljust(4, b"\0")
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", at)
    return b"".join(
        (start, body, b"\0" * (len(body) & 1), struct.pack(order + "H", len(fields)), entries, b"\0" * 4, far)
    )


def bmp(body: bytes, bits: int, compression: int, extra: bytes = b"", header: int = 40, height: int = HEIGHT) -> bytes:
    """A BMP of WIDTH columns; `extra` lies between the header and the pixels."""
    info = struct.pack("<IiiHHIIiiII", header, WIDTH, height, 1, bits, compression, len(body), 0, 0, 0, 0)
    offset = 14 + len(info) + len(extra)
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + info + extra + body


def rle8(index: Any) -> bytes:
    """Rows of palette indices, bottom up, each pixel a run of one."""
    rows = [b"".join(bytes((1, value)) for value in row) + b"\0\0" for row in index[::-1].tolist()]
    return b"".join(rows)[:-2] + b"\0\1"


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[274] = orientation
    return block.tobytes()


def samples_of_formats() -> dict[str, bytes]:
    """One small file of each kind of container and compression."""
    image, photo = noise(HEIGHT, WIDTH, 3), smooth(HEIGHT, WIDTH)
    gray = Image.fromarray(photo[..., 0])
    frames = [Image.fromarray(photo), Image.fromarray(photo[::-1])]
    palette = png_chunk(b"PLTE", noise(16, 3).tobytes()) + png_chunk(b"tRNS", noise(7).tobytes())
    return {
        "jpeg": encoded(photo, "JPEG", exif=exif(6)),
        "jpeg-progressive": encoded(photo, "JPEG", progressive=True),
        "jpeg-cmyk": encoded(Image.fromarray(photo).convert("CMYK"), "JPEG"),
        "png": encoded(image, "PNG", exif=exif(3)),
        "png-palette": png(noise(HEIGHT, WIDTH) & 15, 3, 4, palette),
        "png-16": png(noise(HEIGHT, WIDTH, 4, dtype=np.uint16), 6, 16),
        "webp": encoded(photo, "WEBP", quality=80),
        "webp-lossless": encoded(noise(HEIGHT, WIDTH, 4), "WEBP", lossless=True, exif=exif(8)),
        "webp-alpha": encoded(np.dstack((photo, noise(HEIGHT, WIDTH))), "WEBP", quality=80),
        "webp-animated": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "bmp": encoded(image, "BMP"),
        "bmp-rle": bmp(rle8(noise(HEIGHT, WIDTH)), 8, 1, noise(256, 4).tobytes()),
        "tiff": encoded(image, "TIFF"),
        "tiff-alpha": tiff(noise(HEIGHT, WIDTH, 4), 2, {338: (2,)}, order=">"),
        "tiff-lzw": encoded(image, "TIFF", compression="tiff_lzw", tiffinfo={317: 2}),
        "tiff-deflate": encoded(image, "TIFF", compression="tiff_adobe_deflate"),
        "tiff-jpeg": encoded(photo, "TIFF", compression="jpeg"),
        "tiff-fax": encoded(gray.convert("1"), "TIFF", compression="group4"),
    }


FORMATS = samples_of_formats()


# Pixels ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_lossless_formats_decode_to_pillows_pixels(kind: str, mode: str) -> None:
    picture = Image.fromarray(noise(HEIGHT, WIDTH, 3))
    picture = picture.quantize(200) if mode == "P" else picture.convert(mode)
    data = encoded(picture, kind, **({"lossless": True} if kind == "WEBP" else {}))

    assert off_by(data, pillow(data)) == 0


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"quality": 30}]
)
def test_jpeg_is_within_2_of_pillow(options: dict[str, Any]) -> None:
    data = encoded(smooth(50, 67), "JPEG", **options)

    assert off_by(data, pillow(data)) <= 2


def test_gray_jpeg_is_within_2_of_pillow() -> None:
    data = encoded(smooth(50, 67)[..., 0], "JPEG")

    assert off_by(data, pillow(data)) <= 2


def test_cmyk_jpeg_is_within_3_of_pillow() -> None:
    data = encoded(Image.fromarray(smooth(50, 67)).convert("CMYK"), "JPEG", quality=95)

    assert off_by(data, pillow(data)) <= 3


def test_cmyk_jpeg_without_adobe_marker_is_within_3_of_pillow() -> None:
    data = encoded(Image.fromarray(smooth(50, 67)).convert("CMYK"), "JPEG", quality=95)
    at = data.index(b"\xff\xee")
    plain = data[:at] + data[at + 16 :]

    assert off_by(plain, pillow(plain)) <= 3


def test_ycck_jpeg_is_within_3_of_pillow() -> None:
    """Adobe transform 2 (YCCK) in place of 0 makes other colors of the same file: both decoders must see them."""
    data = bytearray(encoded(Image.fromarray(smooth(50, 67)).convert("CMYK"), "JPEG", quality=95))
    data[data.index(b"Adobe") + 11] = 2

    assert off_by(bytes(data), pillow(bytes(data))) <= 3


def test_an_older_opencv_without_rgb_decoding_gives_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    direct = {name: decode(data) for name, data in FORMATS.items()}
    monkeypatch.setattr(decode_module, "_COLOR_RGB", None)

    for name, data in FORMATS.items():
        np.testing.assert_array_equal(decode(data), direct[name], err_msg=name)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"quality": 98}]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(1, 1), (8, 15), (50, 67)])
def test_opencv_alone_decodes_a_jpeg_to_the_same_bytes_as_libjpeg_turbo(
    options: dict[str, Any], mode: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(Image.fromarray(smooth(*size)).convert(mode), "JPEG", **options)
    direct = decode(data)
    monkeypatch.setattr(decode_module, "simplejpeg", None)

    np.testing.assert_array_equal(decode(data), direct)


def test_opencv_alone_says_the_same_of_300_damaged_jpegs(monkeypatch: pytest.MonkeyPatch) -> None:
    data, rng = encoded(smooth(50, 67), "JPEG"), np.random.default_rng(7)
    damaged = []
    for place in rng.integers(2, len(data), 300):
        damaged.append(data[:place] + bytes([data[place] ^ 1 << rng.integers(8)]) + data[place + 1 :])
    direct = [decode(each) for each in damaged]
    monkeypatch.setattr(decode_module, "simplejpeg", None)

    for number, each in enumerate(damaged):
        np.testing.assert_equal(decode(each), direct[number], err_msg=str(number))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_png_gray_of_few_bits_spans_0_to_255(depth: int) -> None:
    value = noise(HEIGHT, WIDTH) >> (8 - depth)
    expected = (value.astype(int) * 255 // (2**depth - 1)).astype(np.uint8)

    assert off_by(png(value, 0, depth), np.dstack([expected] * 3)) == 0


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_png_palette_of_any_depth_is_looked_up(depth: int) -> None:
    index, palette = noise(HEIGHT, WIDTH) >> (8 - depth), noise(2**depth, 3, seed=1)

    assert off_by(png(index, 3, depth, png_chunk(b"PLTE", palette.tobytes())), palette[index]) == 0


def test_png_palette_transparency_is_laid_on_white() -> None:
    index, palette, alpha = noise(HEIGHT, WIDTH) & 15, noise(16, 3, seed=1), noise(9, seed=2)
    data = png(index, 3, 4, png_chunk(b"PLTE", palette.tobytes()), png_chunk(b"tRNS", alpha.tobytes()))
    padded = np.append(alpha, np.full(7, 255, np.uint8))

    assert off_by(data, on_white(palette, padded[:, None])[index]) == 0


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_png_transparent_gray_becomes_white(depth: int) -> None:
    dtype = np.uint16 if depth == 16 else np.uint8
    value = noise(HEIGHT, WIDTH, dtype=dtype) >> (8 * np.dtype(dtype).itemsize - depth)
    key = int(value[0, 0])
    expected = (value.astype(int) * 255 + (2**depth - 1) // 2) // (2**depth - 1)
    expected[value == key] = 255
    data = png(value, 0, depth, png_chunk(b"tRNS", struct.pack(">H", key)))

    assert off_by(data, np.dstack([expected.astype(np.uint8)] * 3)) == 0


def test_png_transparent_color_is_compared_in_all_16_bits() -> None:
    value = noise(HEIGHT, WIDTH, 3, dtype=np.uint16)
    value[3, 4] = value[0, 0] ^ 1
    key = png_chunk(b"tRNS", struct.pack(">HHH", *value[0, 0].tolist()))
    expected = (value.astype(int) * 255 + 32767) // 65535
    expected[0, 0] = 255

    assert off_by(png(value, 2, 16, key), expected.astype(np.uint8)) == 0


@pytest.mark.parametrize(("color", "channels"), [(0, 1), (2, 3)])
def test_16_bit_png_is_rounded(color: int, channels: int) -> None:
    value = noise(HEIGHT, WIDTH, channels, dtype=np.uint16)
    expected = ((value.astype(int) * 255 + 32767) // 65535).astype(np.uint8)

    assert off_by(png(value, color, 16), np.broadcast_to(expected, (HEIGHT, WIDTH, 3))) == 0


@pytest.mark.parametrize(("color", "channels"), [(4, 2), (6, 4)])
@pytest.mark.parametrize("depth", [8, 16])
def test_png_alpha_is_laid_on_white(color: int, channels: int, depth: int) -> None:
    value = noise(HEIGHT, WIDTH, channels, dtype=np.uint8 if depth == 8 else np.uint16)
    expected = on_white(value[..., :-1], value[..., -1:], 2**depth - 1)

    assert off_by(png(value, color, depth), np.broadcast_to(expected, (HEIGHT, WIDTH, 3))) == 0


def test_interlaced_png_equals_pillow() -> None:
    """Pillow reads interlaced files but writes none; a 1 x 1 image is all in the first of the seven passes."""
    data = png(noise(1, 1, 3), 2, 8)
    interlaced = data.replace(
        data[12:33], b"IHDR" + data[16:28] + b"\1" + struct.pack(">I", zlib.crc32(b"IHDR" + data[16:28] + b"\1"))
    )

    assert off_by(interlaced, pillow(interlaced)) == 0


def test_webp_alpha_is_laid_on_white() -> None:
    value = noise(HEIGHT, WIDTH, 4)
    value[..., 3] |= 1  # the encoder may drop the color of what is wholly transparent

    assert off_by(encoded(value, "WEBP", lossless=True), on_white(value[..., :3], value[..., 3:])) == 0


def test_lossy_webp_with_alpha_is_laid_on_white() -> None:
    data = encoded(np.dstack((smooth(HEIGHT, WIDTH), noise(HEIGHT, WIDTH))), "WEBP", quality=90)
    with Image.open(io.BytesIO(data)) as picture:
        value = np.asarray(picture)

    assert off_by(data, on_white(value[..., :3], value[..., 3:])) == 0


def test_lossy_webp_equals_pillow() -> None:
    data = encoded(smooth(50, 67), "WEBP", quality=80)

    assert off_by(data, pillow(data)) == 0


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "TIFF"])
def test_of_an_animation_or_a_multi_page_file_the_first_frame_is_taken(kind: str) -> None:
    frames = [noise(HEIGHT, WIDTH, 3, seed=seed) for seed in range(3)]
    options = {"lossless": True} if kind == "WEBP" else {}
    rest = [Image.fromarray(frame) for frame in frames[1:]]
    data = encoded(frames[0], kind, save_all=True, append_images=rest, **options)

    assert off_by(data, frames[0]) == 0


def test_a_webp_frame_smaller_than_its_canvas_lies_on_white() -> None:
    small = encoded(noise(8, 10, 3), "WEBP", lossless=True)[12:]
    where = b"".join(
        value.to_bytes(3, "little") for value in (2, 3, 9, 7, 100)
    )  # x / 2, y / 2, width - 1, height - 1, ms
    size = (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    chunks = [(b"VP8X", b"\2\0\0\0" + size), (b"ANIM", bytes(6)), (b"ANMF", where + b"\0" + small)]
    body = b"WEBP" + b"".join(name + struct.pack("<I", len(content)) + content for name, content in chunks)
    expected = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    expected[6:14, 4:14] = noise(8, 10, 3)

    assert off_by(b"RIFF" + struct.pack("<I", len(body)) + body, expected) == 0


@pytest.mark.parametrize("bits", [16, 32])
def test_bmp_words_without_masks_are_5_or_8_bits_a_color(bits: int) -> None:
    words = noise(HEIGHT, WIDTH, dtype=np.uint16 if bits == 16 else np.uint32)
    depth = 5 if bits == 16 else 8
    top = 2**depth - 1
    fields = np.stack([words >> (depth * i) & top for i in (2, 1, 0)], axis=-1).astype(int)
    padding = np.zeros((HEIGHT, -WIDTH * bits // 8 % 4 * 8 // bits), words.dtype)
    data = bmp(np.hstack((words, padding))[::-1].tobytes(), bits, 0)

    assert off_by(data, ((fields * 510 + top) // (2 * top)).astype(np.uint8)) == 0


def test_bmp_alpha_mask_is_laid_on_white() -> None:
    value = noise(HEIGHT, WIDTH, 4)
    masks = struct.pack("<IIII", 0xFF, 0xFF00, 0xFF0000, 0xFF000000)
    data = bmp(value.tobytes(), 32, 3, masks, header=56, height=-HEIGHT)

    assert off_by(data, on_white(value[..., :3], value[..., 3:])) == 0


def test_run_length_bmp_is_looked_up() -> None:
    index, palette = noise(HEIGHT, WIDTH), noise(256, 4, seed=1)

    assert off_by(bmp(rle8(index), 8, 1, palette.tobytes()), palette[index][..., 2::-1]) == 0


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
def test_tiff_compressions_decode_to_pillows_pixels(compression: str, mode: str) -> None:
    picture = Image.fromarray(noise(HEIGHT, WIDTH, 3))
    picture = picture.quantize(200) if mode == "P" else picture.convert(mode)
    data = encoded(picture, "TIFF", compression=compression)

    assert off_by(data, pillow(data)) == 0


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK"])
def test_tiff_prediction_is_undone(mode: str) -> None:
    picture = Image.fromarray(smooth(HEIGHT, WIDTH)).convert(mode)
    data = encoded(picture, "TIFF", compression="tiff_lzw", tiffinfo={317: 2})

    assert b"\x3d\x01\x03\0\x01\0\0\0\x02" in data  # tag 317, the predictor, is really there
    assert off_by(data, pillow(data)) == 0


def test_tiff_prediction_of_16_bits_is_undone() -> None:
    value = noise(HEIGHT, WIDTH, dtype=np.uint16)
    data = encoded(Image.fromarray(value), "TIFF", compression="tiff_adobe_deflate", tiffinfo={317: 2})
    expected = ((value.astype(int) * 255 + 32767) // 65535).astype(np.uint8)

    assert off_by(data, np.dstack([expected] * 3)) == 0


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("photometric", "channels"), [(1, 1), (2, 3)])
def test_16_bit_tiff_is_rounded(order: str, photometric: int, channels: int) -> None:
    value = noise(HEIGHT, WIDTH, channels, dtype=np.uint16)
    expected = ((value.astype(int) * 255 + 32767) // 65535).astype(np.uint8)

    assert off_by(tiff(value, photometric, order=order), np.broadcast_to(expected, (HEIGHT, WIDTH, 3))) == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("photometric", "channels"), [(1, 2), (2, 4)])
def test_tiff_alpha_is_laid_on_white(dtype: Any, photometric: int, channels: int) -> None:
    value = noise(HEIGHT, WIDTH, channels, dtype=dtype)
    expected = on_white(value[..., :-1], value[..., -1:], int(np.iinfo(dtype).max))

    assert off_by(tiff(value, photometric, {338: (2,)}), np.broadcast_to(expected, (HEIGHT, WIDTH, 3))) == 0


def test_premultiplied_tiff_alpha_only_adds_the_white() -> None:
    value = noise(HEIGHT, WIDTH, 4)
    value[..., :3] = np.minimum(value[..., :3], value[..., 3:])

    assert off_by(tiff(value, 2, {338: (1,)}), value[..., :3] + (255 - value[..., 3:])) == 0


def test_an_extra_tiff_sample_of_no_stated_meaning_is_not_alpha() -> None:
    value = noise(HEIGHT, WIDTH, 4)

    assert off_by(tiff(value, 2, {338: (0,)}), value[..., :3]) == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero_tiff_is_inverted(dtype: Any) -> None:
    value = noise(HEIGHT, WIDTH, dtype=dtype)
    top = int(np.iinfo(dtype).max)
    expected = (((top - value.astype(int)) * 255 + top // 2) // top).astype(np.uint8)

    assert off_by(tiff(value, 0), np.dstack([expected] * 3)) == 0


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_tiff_palette_of_few_bits_is_looked_up(bits: int) -> None:
    index, palette = noise(HEIGHT, WIDTH) >> (8 - bits), noise(2**bits, 3, seed=1)
    packed = np.packbits((index[..., None] >> np.arange(bits)[::-1] & 1).reshape(HEIGHT, -1), axis=1)
    colors = tuple((palette.T.astype(int) * 257).ravel().tolist())

    assert off_by(tiff(packed, 3, {256: (WIDTH,), 258: (bits,), 320: colors}), palette[index]) == 0


def test_tiff_in_strips_of_several_rows_is_joined() -> None:
    value, row = noise(HEIGHT, WIDTH, 3), WIDTH * 3
    tags = {278: (8,), 273: (8, 8 + 8 * row, 8 + 16 * row), 279: (8 * row, 8 * row, 5 * row)}

    assert off_by(tiff(value, 2, tags), value) == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiled_tiff_is_put_together(dtype: Any) -> None:
    value = noise(32, 48, 3, dtype=dtype)
    tiles = np.concatenate([value[y : y + 16, x : x + 16] for y in (0, 16) for x in (0, 16, 32)])
    size = 16 * 16 * 3 * value.itemsize
    where = {322: (16,), 323: (16,), 324: tuple(8 + size * i for i in range(6)), 325: (size,) * 6}
    data = tiff(tiles, 2, {256: (45,), 257: (30,), **where})
    top = int(np.iinfo(dtype).max)

    assert off_by(data, ((value.astype(int) * 255 + top // 2) // top).astype(np.uint8)[:30, :45]) == 0


def test_tiff_of_separate_planes_is_interleaved() -> None:
    value, plane = noise(HEIGHT, WIDTH, 3), HEIGHT * WIDTH
    tags = {284: (2,), 273: (8, 8 + plane, 8 + 2 * plane), 279: (plane,) * 3}
    data = tiff(value.transpose(2, 0, 1).reshape(HEIGHT, WIDTH, 3), 2, tags)

    assert off_by(data, value) == 0


def test_jpeg_in_tiff_is_within_3_of_pillow() -> None:
    data = encoded(smooth(50, 67), "TIFF", compression="jpeg")

    assert off_by(data, pillow(data)) <= 3


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_in_tiff_equals_pillow(compression: str) -> None:
    data = encoded(Image.fromarray(smooth(HEIGHT, WIDTH)).convert("1"), "TIFF", compression=compression)

    assert off_by(data, pillow(data)) == 0


def test_color_profiles_and_gamma_are_ignored() -> None:
    value = noise(HEIGHT, WIDTH, 3)
    data = png(
        value, 2, 8, png_chunk(b"gAMA", struct.pack(">I", 100000)), png_chunk(b"iCCP", b"x\0\0" + zlib.compress(b"?"))
    )

    assert off_by(data, value) == 0


# Orientation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_to_lossless_formats(kind: str, orientation: int) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(noise(HEIGHT, WIDTH, 3), kind, exif=exif(orientation), **options)

    assert off_by(data, pillow(data)) == 0


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_to_transparent_images(kind: str, orientation: int) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    value = noise(HEIGHT, WIDTH, 4) | np.uint8(1)
    data = encoded(value, kind, exif=exif(orientation), **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(value, "PNG", exif=exif(orientation)))))
    rgba = np.asarray(upright)

    assert off_by(data, on_white(rgba[..., :3], rgba[..., 3:])) == 0


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientation_is_applied_to_jpeg(orientation: int) -> None:
    data = encoded(smooth(48, 80), "JPEG", exif=exif(orientation), quality=95)
    expected, result = pillow(data), decode(data)

    assert isinstance(result, np.ndarray)
    assert result.shape == expected.shape
    assert np.abs(result.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientation_is_applied_to_16_bit_and_jpeg_tiff(orientation: int) -> None:
    deep = tiff(noise(HEIGHT, WIDTH, 3, dtype=np.uint16), 2, {274: (orientation,)})
    flat = tiff(
        ((noise(HEIGHT, WIDTH, 3, dtype=np.uint16).astype(int) * 255 + 32767) // 65535).astype(np.uint8),
        2,
        {274: (orientation,)},
    )
    photo = encoded(smooth(50, 67), "TIFF", compression="jpeg", exif=exif(orientation))

    assert off_by(deep, pillow(flat)) == 0
    assert off_by(photo, pillow(photo)) <= 3


@pytest.mark.parametrize(
    "block", [b"", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"junk", exif(1)[6:].replace(b"\x12\x01\x03", b"\x12\x01\x0c")]
)
def test_nonsense_in_exif_means_upright(block: bytes) -> None:
    data = encoded(noise(HEIGHT, WIDTH, 3), "PNG", exif=block or None)

    assert off_by(data, noise(HEIGHT, WIDTH, 3)) == 0


# Rejects --------------------------------------------------------------------------------------------------------------


def test_no_bytes_are_empty() -> None:
    assert code(b"") == "empty"


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"hello, world",
        b"GIF89a" + bytes(50),
        b"RIFF\x24\0\0\0WAVEfmt " + bytes(40),
        b"BM" + bytes(60),
        b"II" + bytes(60),
        b"\x89PDF" + bytes(60),
        b"\xff\xd8" + bytes(60),
        bytes(100),
    ],
)
def test_other_content_is_not_an_image(data: bytes) -> None:
    assert code(data) == "not_an_image"


@pytest.mark.parametrize("tenth", range(1, 10))
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_at_any_tenth_is_truncated(name: str, tenth: int) -> None:
    data = FORMATS[name]

    assert code(data[: len(data) * tenth // 10]) == "truncated"


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_without_its_last_byte_is_truncated_unless_that_byte_is_padding(name: str) -> None:
    """Pillow ends a TIFF with the directory or its values: there the last bytes are of no use to the pixels."""
    assert code(FORMATS[name][:-1]) in ({"truncated", "ok"} if name.startswith("tiff") else {"truncated"})


@pytest.mark.parametrize("name", FORMATS)
def test_trailing_garbage_does_no_harm(name: str) -> None:
    result = decode(FORMATS[name] + b"garbage" * 40)

    np.testing.assert_array_equal(result, decode(FORMATS[name]))


def test_a_thumbnail_inside_a_cut_jpeg_does_not_pass_for_its_end() -> None:
    thumbnail = encoded(smooth(16, 16), "JPEG")
    segment = b"Exif\0\0MM\0*" + bytes(20) + thumbnail
    whole = encoded(smooth(200, 200), "JPEG")
    data = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + whole[2:]

    assert code(data) == "ok"
    assert code(data[:-30]) == "truncated"


def test_a_wrong_png_checksum_is_damage() -> None:
    data = bytearray(FORMATS["png"])
    data[data.index(b"IDAT") + 40] ^= 1

    assert code(bytes(data)) == "damaged"


def test_a_png_whose_pixels_end_early_is_damaged() -> None:
    data = png(noise(HEIGHT, WIDTH, 3), 2, 8)
    tall = png(noise(HEIGHT + 1, WIDTH, 3), 2, 8)

    assert code(data.replace(data[8:33], tall[8:33])) == "damaged"


def huge(name: str) -> bytes:
    """A header that asks for far more than the file holds."""
    if name == "png":
        return (
            png(np.zeros((1, 1), np.uint8), 0, 8).replace(b"IHDR", b"IHDR", 1)[:8]
            + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 50000, 50000, 8, 0, 0, 0, 0))
            + png_chunk(b"IEND", b"")
        )
    if name == "jpeg":
        data = bytearray(encoded(smooth(8, 8), "JPEG"))
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
        return bytes(data)
    if name == "webp":
        stream = b"\x2f" + struct.pack("<I", 16383 | 16383 << 14) + b"\0"
        return b"RIFF" + struct.pack("<I", 12 + len(stream)) + b"WEBPVP8L" + struct.pack("<I", len(stream)) + stream
    if name == "bmp":
        data = bytearray(encoded(smooth(8, 8), "BMP"))
        data[18:26] = struct.pack("<ii", 40000, 40000)
        return bytes(data)
    return tiff(smooth(8, 8), 2, {256: (40000,), 257: (40000,)})


@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "bmp", "tiff"])
def test_a_decompression_bomb_is_too_large(name: str) -> None:
    assert code(huge(name)) == "too_large"


def test_the_largest_image_is_8192_pixels_square() -> None:
    assert MAX_PIXELS == 8192 * 8192


def asking_for(data: bytes, height: int, width: int) -> bytes:
    """The same JPEG, whose frame header says another size."""
    changed = bytearray(data)
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    changed[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(changed)


@pytest.mark.parametrize(
    ("kind", "options", "megapixels"),
    [
        ("baseline", {}, 62.9),
        ("progressive", {"progressive": True, "subsampling": 2}, 62.9),
        ("progressive, no subsampling", {"progressive": True, "subsampling": 0}, 41.9),
    ],
)
def test_a_jpeg_is_too_large_where_its_decoder_would_need_more_than_360_mib(
    kind: str, options: dict[str, Any], megapixels: float
) -> None:
    data = encoded(smooth(8, 8), "JPEG", **options)
    width = int(megapixels * 1e6 / 6000)

    assert read_jpeg(asking_for(data, 6000, width - 20)).width == width - 20
    assert decode(asking_for(data, 6000, width + 20)).code == "too_large"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("color", "depth", "side"), [(2, 8, 7940), (3, 8, 7940), (6, 8, 6880), (2, 16, 5620), (4, 16, 4870), (6, 16, 4870)]
)
def test_a_png_is_too_large_where_its_decoder_would_need_more_than_360_mib(color: int, depth: int, side: int) -> None:
    """6 bytes a pixel for RGB, 8 with alpha, twice that for 16 bits: a few pixels fewer are merely damaged here."""

    def header(side: int) -> bytes:
        parts = (
            png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, color, 0, 0, 0)),
            png_chunk(b"IEND", b""),
        )
        return b"\x89PNG\r\n\x1a\n" + b"".join(parts)

    assert (code(header(side - 20)), code(header(side))) == ("damaged", "too_large")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_laying_on_white_takes_no_more_memory_than_its_result_and_a_strip(channels: int, dtype: Any) -> None:
    image = Samples(noise(600, 500, channels, dtype=dtype), noise(600, 500, 1, dtype=dtype), np.iinfo(dtype).max)
    tracemalloc.start()
    try:
        samples.on_white(strips_of(image), (600, 500))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 600 * 500 * 3 + 6 * 8 * 3 * STRIP_PIXELS


def test_strips_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {name: decode(data) for name, data in FORMATS.items()}
    for module in (samples, tiff_pixels, bmp_module):
        monkeypatch.setattr(module, "STRIP_PIXELS", 3 * WIDTH)

    for name, data in FORMATS.items():
        np.testing.assert_array_equal(decode(data), whole[name], err_msg=name)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("rows", [1, 4, HEIGHT])
def test_a_plain_tiff_is_read_as_opencv_reads_it(order: str, dtype: Any, rows: int) -> None:
    image = noise(HEIGHT, WIDTH, 3, dtype=dtype)
    row = image[0].nbytes
    tops = range(0, HEIGHT, rows)
    offsets = tuple(8 + top * row for top in tops)
    sizes = tuple(min(rows, HEIGHT - top) * row for top in tops)
    page = read_tiff(tiff(image, 2, {278: (rows,), 273: offsets, 279: sizes}, order))

    assert is_plain(page)
    np.testing.assert_array_equal(plain_rows(page), cv2.imdecode(np.frombuffer(gray_file(page), np.uint8), -1))
    np.testing.assert_array_equal(plain_rows(page).reshape(image.shape), image)


def test_a_plain_tiff_with_short_strips_is_left_to_opencv() -> None:
    image = noise(HEIGHT, WIDTH, 3)

    assert not is_plain(read_tiff(tiff(image, 2, {279: (image.nbytes - 1,)})))


def test_a_directory_entry_of_a_million_values_and_more_is_not_read() -> None:
    data = tiff(smooth(8, 8), 2, {273: (8, 8, 8), 279: (192, 192, 192)})
    entry = struct.pack("<HHI", 273, 4, 3)

    assert code(data.replace(entry, struct.pack("<HHI", 273, 4, 2**20 + 1))) == "unsupported"


def test_running_out_of_memory_is_no_reject() -> None:
    """In a process of its own, whose address space is limited to little more than it has: for the last, to its pixels."""
    script = """
import io, resource, sys
from PIL import Image
from sbprep.decode import decode
buffer = io.BytesIO()
Image.new(sys.argv[1], (6000, 6000)).save(buffer, sys.argv[2], compress_level=1, progressive=len(sys.argv) > 4)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + int(float(sys.argv[3]))
resource.setrlimit(resource.RLIMIT_AS, (size, size))
try:
    print(decode(buffer.getvalue()))
except MemoryError:
    print("out of memory")
"""
    for kind in ("RGB PNG 8e7", "RGBA PNG 8e7", "RGB JPEG 8e7", "RGB JPEG 15e7 progressive"):
        done = subprocess.run([sys.executable, "-c", script, *kind.split()], capture_output=True, text=True, check=True)

        assert done.stdout == "out of memory\n"


def test_a_header_of_no_pixels_is_damage() -> None:
    data = bytearray(encoded(smooth(8, 8), "BMP"))
    data[18:22] = bytes(4)

    assert code(bytes(data)) == "damaged"


UNSUPPORTED: dict[str, Callable[[], bytes]] = {
    "float TIFF": lambda: encoded(Image.fromarray(smooth(8, 8)[..., 0].astype(np.float32)), "TIFF"),
    "signed TIFF": lambda: tiff(smooth(8, 8), 2, {339: (2, 2, 2)}),
    "32-bit TIFF": lambda: encoded(Image.fromarray(smooth(8, 8)[..., 0].astype(np.int32)), "TIFF"),
    "five samples": lambda: tiff(noise(8, 8, 5), 2, {338: (0, 0)}),
    "BigTIFF": lambda: b"II\x2b\0\x08\0\0\0" + bytes(40),
    "Lab TIFF": lambda: tiff(smooth(8, 8), 8),
    "12-bit JPEG": lambda: encoded(smooth(8, 8), "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"),
    "arithmetic JPEG": lambda: encoded(smooth(8, 8), "JPEG").replace(b"\xff\xc0\0\x11", b"\xff\xc9\0\x11"),
    "JPEG in BMP": lambda: bmp(bytes(100), 24, 4),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_rare_kinds_are_unsupported(name: str) -> None:
    assert code(UNSUPPORTED[name]()) == "unsupported"


@pytest.mark.parametrize("name", FORMATS)
def test_500_corruptions_of_one_byte_never_raise(name: str) -> None:
    rng = np.random.default_rng(7)
    for at, flip in zip(rng.integers(len(FORMATS[name]), size=500), rng.integers(1, 256, size=500), strict=True):
        data = bytearray(FORMATS[name])
        data[at] ^= flip
        result = decode(bytes(data))

        if not isinstance(result, Rejected):
            assert (result.dtype, result.ndim, result.shape[2]) == (np.uint8, 3, 3)
            assert 0 < result.size <= 3 * MAX_PIXELS


def test_every_flipped_bit_of_a_png_is_found() -> None:
    data = png(noise(5, 6, 3), 2, 8)
    flipped = (data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for at in range(len(data)) for bit in range(8))

    assert {code(bad) for bad in flipped} <= {"damaged", "truncated", "not_an_image"}


# Resizing -------------------------------------------------------------------------------------------------------------


def naive_average(image: Any, size: int) -> Any:
    """Area average with float64 weights from intervals, in no clever order."""

    def matrix(source: int) -> Any:
        edge = np.arange(size + 1) * (source / size)
        low, high = np.maximum(edge[:-1, None], np.arange(source)), np.minimum(edge[1:, None], np.arange(1, source + 1))
        return np.maximum(high - low, 0) / (source / size)

    weights = matrix(image.shape[0]), matrix(image.shape[1])
    mean = np.einsum("ih,hwc,jw->ijc", weights[0], image.astype(float), weights[1], optimize=True)
    return np.floor(mean + 0.5).astype(np.uint8)


@pytest.mark.parametrize(("height", "width", "size"), [(21, 34, 8), (16, 16, 8), (9, 40, 8), (8, 9, 8), (13, 17, 12)])
def test_fit_squash_is_the_area_average(height: int, width: int, size: int) -> None:
    image = noise(height, width, 3)
    off = np.abs(fit(image, size, "squash").astype(int) - naive_average(image, size))

    assert off.max() <= 1
    assert (off == 0).mean() >= 0.99  # at most a tie, where float64 may fall to either side


@pytest.mark.jit
@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="562,500 samples in plain Python")
@pytest.mark.parametrize("how", ["crop", "squash"])
def test_fit_of_a_photo_is_the_area_average(how: Any) -> None:
    image = noise(375, 500, 3)
    off = np.abs(fit(image, 96, how).astype(int) - naive_average(image if how == "squash" else image[:, 62:437], 96))

    assert off.max() <= 1
    assert (off == 0).mean() >= 0.999


def test_fit_rounds_every_sum_half_up_exactly() -> None:
    """Against rational arithmetic, for a ratio whose weights no float holds."""
    image = noise(10, 14, 3)
    expected = np.zeros((6, 6, 3), int)
    for i, j, c in np.ndindex(6, 6, 3):
        total = Fraction(0)
        for y, x in np.ndindex(10, 14):
            tall = min(y + 1, Fraction(10 * (i + 1), 6)) - max(y, Fraction(10 * i, 6))
            wide = min(x + 1, Fraction(14 * (j + 1), 6)) - max(x, Fraction(14 * j, 6))
            total += max(tall, 0) * max(wide, 0) * int(image[y, x, c])
        expected[i, j, c] = (total / Fraction(140, 36) + Fraction(1, 2)) // 1

    np.testing.assert_array_equal(fit(image, 6, "squash"), expected)


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_fit_by_a_whole_factor_is_the_block_mean_with_ties_up(factor: int) -> None:
    image = noise(8 * factor, 8 * factor, 3)
    total = image.astype(int).reshape(8, factor, 8, factor, 3).sum(axis=(1, 3))

    np.testing.assert_array_equal(fit(image, 8, "crop"), (2 * total + factor**2) // (2 * factor**2))


def test_fit_of_a_flipped_image_is_the_flipped_fit() -> None:
    image = noise(21, 35, 3)
    plain = fit(image, 8, "squash")

    np.testing.assert_array_equal(fit(image[::-1], 8, "squash"), plain[::-1])
    np.testing.assert_array_equal(fit(image[:, ::-1], 8, "squash"), plain[:, ::-1])


@pytest.mark.parametrize("how", ["crop", "squash"])
@pytest.mark.parametrize("shape", [(11, 13), (7, 7), (5, 40), (33, 2)])
@pytest.mark.parametrize("value", [0, 1, 128, 254, 255])
def test_fit_keeps_a_constant_image_constant(value: int, shape: tuple[int, int], how: Any) -> None:
    assert (fit(np.full((*shape, 3), value, np.uint8), 9, how) == value).all()


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [(9, 16, (0, 9), (3, 12)), (16, 9, (3, 12), (0, 9)), (12, 9, (1, 10), (0, 9))],
)
def test_crop_takes_the_center_square(height: int, width: int, rows: Any, columns: Any) -> None:
    image = noise(height, width, 3)

    np.testing.assert_array_equal(fit(image, 9, "crop"), image[slice(*rows), slice(*columns)])
    np.testing.assert_array_equal(fit(image, 4, "crop"), fit(image[slice(*rows), slice(*columns)], 4, "squash"))


def test_an_image_of_the_wanted_size_is_returned_as_it_is() -> None:
    image = noise(8, 8, 3)

    assert fit(image, 8, "crop") is image


def test_a_smaller_image_is_enlarged_bilinearly() -> None:
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 1] = 200

    np.testing.assert_array_equal(fit(image, 4, "squash")[..., 0], [[0, 50, 150, 200]] * 4)


def test_fit_takes_any_memory_layout() -> None:
    planar = noise(3, 21, 34)

    np.testing.assert_array_equal(
        fit(planar.transpose(1, 2, 0), 8, "crop"), fit(np.ascontiguousarray(planar.transpose(1, 2, 0)), 8, "crop")
    )


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8)]
)
def test_fit_names_pixels_it_cannot_use(image: Any) -> None:
    with pytest.raises(SourceError, match=r"expected uint8 \(H, W, 3\)"):
        fit(image, 8, "crop")


@pytest.mark.parametrize(
    ("source", "target"), [(96, 12), (96, 16), (96, 25), (96, 96), (375, 96), (97, 96), (13, 1), (8191, 96)]
)
def test_area_weights_are_the_rounded_rational_overlaps(source: int, target: int) -> None:
    first, weights = area_weights(source, target)

    assert (first.dtype, weights.dtype, first.shape, len(weights)) == (np.int64, np.float32, (target,), target)
    assert first.min() >= 0
    assert first.max() + weights.shape[1] <= source
    for i in {0, target // 2, target - 1}:
        low, high = Fraction(i * source, target), Fraction((i + 1) * source, target)
        pixels = range(int(first[i]), int(first[i]) + weights.shape[1])
        exact = [max(min(x + 1, high) - max(x, low), 0) * Fraction(target, source) for x in pixels]
        assert sum(exact) == 1
        assert weights[i].tolist() == [np.float32(float(part)) for part in exact]


def test_area_weights_do_not_enlarge() -> None:
    with pytest.raises(ValueError, match="1 <= target <= source"):
        area_weights(8, 9)


# Pictures and settings ------------------------------------------------------------------------------------------------


def test_a_written_png_holds_the_pixels(tmp_path: Path) -> None:
    image = noise(HEIGHT, WIDTH, 3)
    write_png(tmp_path / "sheet.png", image)

    np.testing.assert_array_equal(decode((tmp_path / "sheet.png").read_bytes()), image)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_a_png_that_cannot_be_written_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"nowhere/sheet\.png"):
        write_png(tmp_path / "nowhere" / "sheet.png", noise(8, 8, 3))


def test_text_is_drawn_in_its_color() -> None:
    image = np.zeros((16, 60, 3), np.uint8)
    draw_text(image, "image", (2, 12), (255, 128, 0))

    assert image[..., 0].max() > 200
    assert image[..., 2].max() == 0
    assert image[:, 58:].max() == 0


def test_use_one_thread_leaves_opencv_one_thread() -> None:
    before = cv2.getNumThreads()
    try:
        use_one_thread()

        assert cv2.getNumThreads() == 1
    finally:
        cv2.setNumThreads(before)


def test_quiet_keeps_opencv_from_logging(capfd: pytest.CaptureFixture[str]) -> None:
    bad = FORMATS["tiff-jpeg"].replace(b"\xff\xda", b"\xff\x0b")
    before = cv2.utils.logging.getLogLevel()
    try:
        quiet()

        assert code(bad) == "damaged"
        assert capfd.readouterr().err == ""
    finally:
        cv2.utils.logging.setLogLevel(before)
