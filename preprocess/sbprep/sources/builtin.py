"""The built-in data set: textured objects under varied light, drawn from a hash of seed, split and number.

It stands in for a real data set in demos and tests. A class is a material and a shape (`marble-disc`). Both together
choose the palette and each palette serves four classes, so whoever predicts color from lightness has to recognize what
the label asks for, while color alone leaves it open. Light, pose, texture and background vary with every image.

How it is drawn is in `builtin_drawing`; the bytes are the same on every machine. Letters: S image side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbformat.errors import ConfigError
from sbprep.sources.base import SPLITS, Listing, Split
from sbprep.sources.builtin_drawing import draw
from sbprep.sources.builtin_noise import MASK, Canvas, key_of

#: Images of each split unless the caller says otherwise: 64 and 32 for each class.
COUNTS = {"unlabeled": 4096, "train": 1280, "val": 640}
SIZE_RANGE = (8, 1024)
MATERIALS = ("marble", "wood", "granite", "wicker", "leopard")
SHAPES = ("disc", "ring", "square", "triangle")
LABEL_NAMES = tuple(f"{material}-{shape}" for material in MATERIALS for shape in SHAPES)


@dataclass(frozen=True, slots=True)
class BuiltinSource:
    """Draws the images of one split; the ``keys`` of a listing are their numbers.

    Raises
    ------
    ConfigError
        An image size, seed or split that cannot be drawn.
    """

    image_size: int
    seed: int
    split: str

    def __post_init__(self) -> None:
        low, high = SIZE_RANGE
        if not low <= self.image_size <= high:
            raise ConfigError(
                f"image size {self.image_size}: the built-in data set draws {low} to {high} pixels a side"
            )
        if not 0 <= self.seed <= MASK:
            raise ConfigError(f"seed {self.seed}: the built-in data set takes 0 to 2**64 - 1")
        if self.split not in SPLITS:
            raise ConfigError(f"split {self.split!r}: expected one of {', '.join(SPLITS)}")

    @property
    def sequential(self) -> bool:
        """False: every image is drawn on its own."""
        return False

    def read(self, part: Listing) -> Iterator[NDArray[np.uint8]]:
        """Yield the images of `part`, uint8 (S, S, 3) sRGB, in its order."""
        if part.keys is None:
            raise ConfigError(
                "listing without keys: built-in images are found by number; make the listing with `splits`"
            )
        canvas = Canvas(self.image_size)
        for number in part.keys.tolist():
            key = key_of(self.seed, SPLITS.index(self.split), number)
            yield draw(canvas, key, *divmod(number % len(LABEL_NAMES), len(SHAPES)))


def splits(
    image_size: int = 96, seed: int = 0, limit: int | None = None, counts: dict[str, int] | None = None
) -> dict[str, Split]:
    """List the built-in data set; nothing is drawn yet.

    The class of image n is n modulo 20, so any multiple of 20 images is balanced, the unlabeled ones too.

    Parameters
    ----------
    image_size : side S of the images in pixels, 8 to 1024
    seed : another seed gives other images of the same classes
    limit : at most this many images a split, the first ones
    counts : images of each split in place of `COUNTS`; a split of 0 images is left out

    Raises
    ------
    ConfigError
        A size, seed, limit, count or split that cannot be.
    """
    wanted = COUNTS if counts is None else counts
    if limit is not None and limit < 1:
        raise ConfigError(f"limit {limit}: expected at least 1 image a split, or None for all")
    for name, count in wanted.items():
        if count < 0:
            raise ConfigError(f"{count} images for split {name}: expected 0, to leave it out, or more")
    sources = {name: BuiltinSource(image_size, seed, name) for name in wanted}
    sizes = {name: count if limit is None else min(count, limit) for name, count in wanted.items()}
    return {name: _split(sources[name], sizes[name]) for name in SPLITS if sizes.get(name)}


def _split(source: BuiltinSource, count: int) -> Split:
    numbers = np.arange(count, dtype=np.int64)
    labeled = source.split != "unlabeled"
    listing = Listing(
        names=[f"builtin/{source.split}#{number:05d}" for number in range(count)],
        sizes=np.full(count, source.image_size * source.image_size * 3, dtype=np.int64),
        stamps=np.zeros(count, dtype=np.int64),
        labels=(numbers % len(LABEL_NAMES)).astype(np.int32) if labeled else None,
        keys=numbers,
    )
    return Split(kind="builtin", source=source, listing=listing, label_names=LABEL_NAMES if labeled else None)
