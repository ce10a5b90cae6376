"""Encoded image to uint8 sRGB pixels of the wanted size. The only module that imports OpenCV and simplejpeg.

JPEG, PNG, WebP, BMP and TIFF; of an animation or a multi-page file the first frame. Exif orientation is applied,
transparency is laid on white, 16 bits are rounded to 8, embedded color profiles are ignored: every file is taken for
sRGB. OpenCV gets only what its versions 4.10 to 5 agree on; see `sbprep.formats`.

Not found: damage inside a JPEG scan that still ends with its end marker, in a BMP, or within a TIFF strip. Those have
no checksum, and decoders conceal what they notice.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from sbformat.errors import BuildError, SourceError
from sbprep.areas import area_average
from sbprep.formats.bmp import bmp_strips, read_bmp
from sbprep.formats.headers import BadImage, check_memory
from sbprep.formats.jpeg import Jpeg, read_jpeg
from sbprep.formats.png import PALETTE, Png, plain_png, read_png, transparent_color
from sbprep.formats.samples import Samples, on_white, palette_on_white, strips_of
from sbprep.formats.tiff import Tiff, read_tiff
from sbprep.formats.tiff_pixels import gray_file, is_plain, plain_rows, tiff_strips, whole_file
from sbprep.formats.webp import Webp, read_webp
from sbprep.sources.base import Rejected

try:
    import simplejpeg
except ImportError:  # an offline machine with OpenCV alone: slower, no byte differs
    simplejpeg = None

Pixels = NDArray[np.uint8]

# Turning is done here for every format: which of them OpenCV turns by itself depends on its version.
_AS_STORED = cv2.IMREAD_IGNORE_ORIENTATION
_COLOR_RGB: int | None = getattr(cv2, "IMREAD_COLOR_RGB", None)  # spares a pass over the pixels; not in every 4.x


def use_one_thread() -> None:
    """Keep OpenCV from starting threads: the build runs one process on each core."""
    cv2.setNumThreads(1)


def quiet() -> None:
    """Keep OpenCV from logging what is a `Rejected` anyway; its libjpeg and libpng still write to stderr."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decode(data: bytes) -> Pixels | Rejected:
    """Decode an image file.

    Parameters
    ----------
    data : bytes
        Content of the file; its name does not matter.

    Returns
    -------
    uint8 (H, W, 3) sRGB, C-contiguous, or `Rejected`
        Codes: ``empty``, ``not_an_image``, ``truncated``, ``damaged``, ``too_large`` (more than `formats.headers.MAX_PIXELS`,
        or than `formats.headers.MAX_BYTES` in memory while it is decoded), ``unsupported``.

    Raises
    ------
    MemoryError
        The machine has none left, which says nothing about the image.
    """
    reader = _READERS.get(data[:2])
    if reader is None:
        return Rejected("not_an_image", f"starts with {data[:8]!r}") if data else Rejected("empty", "0 bytes")
    try:
        return reader(data)
    except BadImage as bad:
        return Rejected(bad.code, bad.detail)
    except struct.error:
        return Rejected("truncated", f"{len(data)} bytes end within the header")
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError("OpenCV has no memory for this image") from error
        return Rejected("damaged", f"OpenCV cannot decode it: {error.err}")


def fit(image: Pixels, size: int, how: Literal["crop", "squash"]) -> Pixels:
    """Resize to a square: exact area averages, rounded half up, or bilinear where a side is shorter than `size`.

    Parameters
    ----------
    image : uint8 (H, W, 3)
    size : int
        Side of the result in pixels.
    how : {"crop", "squash"}
        ``crop`` takes the center square of the shorter side first; ``squash`` resizes each axis by itself.

    Returns
    -------
    uint8 (size, size, 3)
        The same bytes on every CPU; `image` itself where it has that shape.

    Raises
    ------
    SourceError
        `image` is not uint8 (H, W, 3), or is empty.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise SourceError(f"pixels of {image.dtype} {image.shape}, expected uint8 (H, W, 3)")
    if image.shape[:2] == (size, size):
        return image
    height, width = image.shape[:2] if how == "squash" else (min(image.shape[:2]),) * 2
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    if min(height, width) >= size:
        return area_average(image, (top, left, height, width), size)
    region = np.ascontiguousarray(image[top : top + height, left : left + width])
    return _pixels(cv2.resize(region, (size, size), interpolation=cv2.INTER_LINEAR_EXACT))


def write_png(path: Path, rgb: Pixels) -> None:
    """Write uint8 (H, W, 3) as a PNG that is either complete or not there; `BuildError` where that fails."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise BuildError(
            f"{path}: cannot write this picture ({error.strerror}); check folder and free space"
        ) from error


def draw_text(rgb: Pixels, text: str, xy: tuple[int, int], color: tuple[int, int, int]) -> None:
    """Draw a line of small ASCII text into `rgb` (H, W, 3), lower left corner at pixel `xy`; about 7 x 9 a letter."""
    cv2.putText(rgb, text, xy, cv2.FONT_HERSHEY_PLAIN, 0.8, color, 1, cv2.LINE_8)


def _decode_jpeg(data: bytes) -> Pixels:
    # Always whole: decoding at 1/2 or 1/4 saves a third of the time of a 12-megapixel photograph and moves pixels of
    # the fitted image by 0.2 to 8 levels in the mean (docs/benchmarks.md).
    jpeg = read_jpeg(data)
    pixels = jpeg.height * jpeg.width
    check_memory(len(data), pixels, max(6, 3 + jpeg.coefficients), jpeg.orientation)
    image = _turbo_rgb(data, jpeg)
    if image is None:
        image = _imdecode_rgb(data, (jpeg.height, jpeg.width), swap=jpeg.components == 4)
    return image if jpeg.orientation == 1 else _turned(image, jpeg.orientation)


def _turbo_rgb(data: bytes, jpeg: Jpeg) -> Pixels | None:
    """Decode by libjpeg-turbo without OpenCV around it: the same bytes, 46 us instead of 60 for 96 x 96 pixels.

    None, for OpenCV to decide: it is not installed, four components, or anything the library as much as warns of.
    """
    if simplejpeg is None or jpeg.components == 4:
        return None
    with suppress(ValueError):
        image: Pixels = simplejpeg.decode_jpeg(data)
        if image.shape == (jpeg.height, jpeg.width, 3):
            return image
    return None


def _decode_png(data: bytes) -> Pixels:
    png = read_png(data)
    stored = (4 if png.color > PALETTE else 3) * (2 if png.depth == 16 else 1)
    check_memory(2 * len(data), png.height * png.width, 2 * stored, png.orientation)
    return _turned(_png_pixels(png), png.orientation)


def _png_pixels(png: Png) -> Pixels:
    size, top = (png.height, png.width), 65535 if png.depth == 16 else 255
    file = plain_png(png, palette_on_white(png.palette, png.transparency))
    if png.color > PALETTE:
        return on_white(strips_of(_split_alpha(_imdecode(file, cv2.IMREAD_UNCHANGED, size), top)), size)
    color = _imdecode_rgb(file, size, cv2.IMREAD_ANYDEPTH)
    if top == 255 and (png.color == PALETTE or not png.transparency):
        return _pixels(color)
    strips = strips_of(Samples(color, None, top))
    return on_white((strip._replace(alpha=transparent_color(png, strip.color)) for strip in strips), size)


def _decode_webp(data: bytes) -> Pixels:
    webp = read_webp(data)
    # libwebp has a buffer of 4 bytes a pixel of its own for what is lossless.
    each = 8 if webp.alpha else 7 if webp.lossless else 6
    check_memory(3 * len(data), webp.height * webp.width, each, webp.orientation)
    image = _webp_frame(webp)
    if webp.frame != (webp.height, webp.width):
        canvas = np.full((webp.height, webp.width, 3), 255, np.uint8)
        canvas[webp.top : webp.top + len(image), webp.left : webp.left + image.shape[1]] = image
        image = canvas
    return _turned(image, webp.orientation)


def _webp_frame(webp: Webp) -> Pixels:
    if not webp.alpha:
        return _imdecode_rgb(webp.file, webp.frame)
    return on_white(strips_of(_split_alpha(_imdecode(webp.file, cv2.IMREAD_UNCHANGED, webp.frame), 255)), webp.frame)


def _decode_bmp(data: bytes) -> Pixels:
    layout = read_bmp(data)
    check_memory(len(data), layout.height * layout.width, 6)
    if layout.masks:
        return on_white(bmp_strips(data, layout), (layout.height, layout.width))
    return _imdecode_rgb(data, (layout.height, layout.width))


def _decode_tiff(data: bytes) -> Pixels:
    tiff = read_tiff(data)
    if is_plain(tiff):
        check_memory(len(data), tiff.stored_pixels, tiff.stored_bytes + 3, tiff.orientation)
        return _turned(on_white(tiff_strips(tiff, plain_rows(tiff)), tiff.shape[:2]), tiff.orientation)
    stored = 3 if tiff.whole else tiff.stored_bytes
    # libtiff and OpenCV hold a strip or tile four times: small ones as a rule, the whole image in the worst case.
    strips = 4 * stored * tiff.grid.rows * tiff.grid.columns
    check_memory(2 * len(data) + strips, tiff.stored_pixels, max(2 * stored, stored + 3), tiff.orientation)
    return _turned(_tiff_pixels(tiff), tiff.orientation)


def _tiff_pixels(tiff: Tiff) -> Pixels:
    if tiff.whole:
        return _imdecode_rgb(whole_file(tiff), tiff.shape[:2])
    return on_white(tiff_strips(tiff, _imdecode(gray_file(tiff), cv2.IMREAD_UNCHANGED)), tiff.shape[:2])


_READERS: dict[bytes, Callable[[bytes], Pixels]] = {
    b"\xff\xd8": _decode_jpeg,
    b"\x89P": _decode_png,
    b"RI": _decode_webp,
    b"BM": _decode_bmp,
    b"II": _decode_tiff,
    b"MM": _decode_tiff,
}


def _imdecode(data: bytes, flags: int, size: tuple[int, int] | None = None) -> NDArray[Any]:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        # libjpeg and libpng fail likewise where they get no memory; then this, which touches none of it, does too.
        np.empty(8 * math.prod(size or (0,)), np.uint8)
        raise BadImage("damaged", "OpenCV cannot decode it")
    if size is not None and image.shape[:2] != size:
        raise BadImage("damaged", f"decoded to {image.shape[:2]} rows and columns, the header says {size}")
    return np.asarray(image)


def _imdecode_rgb(data: bytes, size: tuple[int, int], flags: int = 0, swap: bool = False) -> NDArray[Any]:
    """Decode to (H, W, 3) RGB; `swap` or an old OpenCV: by way of BGR."""
    if _COLOR_RGB is None or swap:
        image = _imdecode(data, flags | _AS_STORED | cv2.IMREAD_COLOR, size)
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image))
    return _imdecode(data, flags | _AS_STORED | _COLOR_RGB, size)


def _split_alpha(image: NDArray[Any], top: int) -> Samples:
    if image.ndim != 3 or image.shape[2] != 4:
        raise BadImage("damaged", f"the header says that it has alpha, decoded it is {image.shape}")
    return Samples(image[..., 2::-1], image[..., 3:], top)


def _turned(image: Pixels, orientation: int) -> Pixels:
    """Undo an Exif orientation: 1 upright, 2...4 flipped or turned by 180 degrees, 5...8 with swapped axes too."""
    turned = cv2.transpose(image) if orientation > 4 else image
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return _pixels(turned if flip is None else cv2.flip(turned, flip, dst=turned))


def _pixels(image: Any) -> Pixels:
    return np.ascontiguousarray(image)
