"""Encoded image to uint8 sRGB pixels of the wanted size. The only module that imports OpenCV.

JPEG, PNG, WebP, BMP and TIFF; of an animation or a multi-page file the first frame. Exif orientation is applied,
transparency is laid on white, 16 bits are rounded to 8, embedded color profiles are ignored: every file is taken for
sRGB. OpenCV gets only what its versions 4.10 to 5 agree on; see `headers`, `bmp` and `tiff`.

Not found: damage inside a JPEG scan that still ends with its end marker, in a BMP, or within a TIFF strip. Those have
no checksum, and decoders conceal what they notice.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from sbformat.errors import BuildError, SourceError
from sbprep import bmp, headers, tiff
from sbprep._kernels import area_resize
from sbprep.areas import area_overlaps
from sbprep.headers import BadImage, Samples
from sbprep.sources.base import Rejected

Pixels = NDArray[np.uint8]

# Turning is done here for every format: which of them OpenCV turns by itself depends on its version.
_AS_STORED = cv2.IMREAD_IGNORE_ORIENTATION
_COLOR_RGB: int | None = getattr(cv2, "IMREAD_COLOR_RGB", None)  # spares a pass over the pixels; not in every 4.x
_GRAY, _RGB, _PALETTE = 0, 2, 3  # PNG color types; 4 and 6 have alpha


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
        Codes: ``empty``, ``not_an_image``, ``truncated``, ``damaged``, ``too_large`` (more than `headers.MAX_PIXELS`),
        ``unsupported``.
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
        return _area_average(image, (top, left, height, width), size)
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


def _area_average(image: Pixels, region: tuple[int, int, int, int], size: int) -> Pixels:
    top, left, height, width = region
    rows, row_weights = area_overlaps(height, size)
    columns, column_weights = area_overlaps(width, size)
    area_resize(
        np.ascontiguousarray(image).reshape(len(image), -1),
        left,
        rows + top,
        row_weights.astype(np.float64),
        columns,
        column_weights.astype(np.float64),
        float(height * width),
        np.empty(width * 3, np.float64),
        out := np.empty((size, size, 3), np.uint8),
    )
    return out


def _decode_jpeg(data: bytes) -> Pixels:
    # Always whole: decoding at 1/2 or 1/4 saves a third of the time of a 12-megapixel photograph and moves pixels of
    # the fitted image by 0.2 to 8 levels in the mean (docs/benchmarks.md).
    jpeg = headers.read_jpeg(data)
    image = _imdecode_rgb(data, (jpeg.height, jpeg.width), swap=jpeg.components == 4)
    return image if jpeg.orientation == 1 else _turned(image, jpeg.orientation)


def _decode_png(data: bytes) -> Pixels:
    png = headers.read_png(data)
    size, top = (png.height, png.width), 65535 if png.depth == 16 else 255
    file = headers.plain_png(png, _palette_on_white(png.palette, png.transparency))
    if png.color > _PALETTE:
        samples = _split_alpha(_imdecode(file, cv2.IMREAD_UNCHANGED, size), top)
    else:
        color = _imdecode_rgb(file, size, cv2.IMREAD_ANYDEPTH)
        samples = Samples(color, _color_key(png, color), top)
    return _turned(_flattened(samples), png.orientation)


def _palette_on_white(palette: bytes, transparency: bytes) -> bytes:
    if not transparency or len(palette) % 3:
        return palette
    color = np.frombuffer(palette, np.uint8).reshape(-1, 1, 3)
    alpha = np.full((len(color), 1, 1), 255, np.uint8)
    known = transparency[: len(color)]
    alpha[: len(known), 0, 0] = np.frombuffer(known, np.uint8)
    return _flattened(Samples(color, alpha, 255)).tobytes()


def _color_key(png: headers.Png, color: NDArray[Any]) -> NDArray[Any] | None:
    """Return the alpha of the one color that a gray or RGB PNG may call transparent."""
    if (png.color, len(png.transparency)) not in {(_GRAY, 2), (_RGB, 6)}:
        return None
    key = np.frombuffer(png.transparency, ">u2").astype(np.int64)
    if png.depth < 8:
        key = key * 255 // (2**png.depth - 1)
    opaque = (color != key).any(axis=2, keepdims=True)
    return np.where(opaque, np.iinfo(color.dtype).max, 0).astype(color.dtype)


def _decode_webp(data: bytes) -> Pixels:
    webp = headers.read_webp(data)
    if webp.alpha:
        image = _flattened(_split_alpha(_imdecode(webp.file, cv2.IMREAD_UNCHANGED, webp.frame), 255))
    else:
        image = _imdecode_rgb(webp.file, webp.frame)
    if webp.frame != (webp.height, webp.width):
        canvas = np.full((webp.height, webp.width, 3), 255, np.uint8)
        canvas[webp.top : webp.top + len(image), webp.left : webp.left + image.shape[1]] = image
        image = canvas
    return _turned(image, webp.orientation)


def _decode_bmp(data: bytes) -> Pixels:
    layout = bmp.read_bmp(data)
    if layout.masks:
        return _flattened(bmp.bmp_samples(data, layout))
    return _imdecode_rgb(data, (layout.height, layout.width))


def _decode_tiff(data: bytes) -> Pixels:
    page = tiff.read_tiff(data)
    if page.whole:
        image = _imdecode_rgb(tiff.whole_file(page), page.shape[:2])
    else:
        image = _flattened(tiff.tiff_samples(page, _imdecode(tiff.gray_file(page), cv2.IMREAD_UNCHANGED)))
    return _turned(image, page.orientation)


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


def _flattened(samples: Samples) -> Pixels:
    """Lay on white and round to 8 bits, in integers: 255 (color alpha + top (top - alpha)) / top^2, half up."""
    color, alpha, top, premultiplied = samples
    value, unit = color, top
    if alpha is not None:
        color, alpha = color.astype(np.uint64), alpha.astype(np.uint64)
        value = np.minimum(color + (top - alpha), top) if premultiplied else color * alpha + top * (top - alpha)
        unit = top if premultiplied else top * top
    if unit != 255:
        value = (value.astype(np.uint64) * 255 + unit // 2) // unit
    return _pixels(np.broadcast_to(value, (*value.shape[:2], 3)).astype(np.uint8, order="C"))


def _turned(image: Pixels, orientation: int) -> Pixels:
    """Undo an Exif orientation: 1 upright, 2...4 flipped or turned by 180 degrees, 5...8 with swapped axes too."""
    turned = cv2.transpose(image) if orientation > 4 else image
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return _pixels(turned if flip is None else cv2.flip(turned, flip))


def _pixels(image: Any) -> Pixels:
    return np.ascontiguousarray(image)
