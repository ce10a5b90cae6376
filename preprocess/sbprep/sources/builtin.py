"""The built-in data set: textured objects under varied light, drawn from a hash of seed, split and number.

It stands in for a real data set in demos and tests. A class is a material on a shape (`marble-disc`); both together
choose the palette, and each palette serves several classes. So whoever predicts color from lightness has to recognize
what the label asks for, while color alone does not tell it.

The bytes are the same on every machine: only operations that IEEE 754 rounds exactly, one element at a time
(+ - * / sqrt floor, comparisons, table look-ups), and a counter-based hash in place of a random generator.
Axes: S image side; h, w rows and columns of a lattice of random values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sbformat.errors import ConfigError

from sbprep.sources.base import SPLITS, Listing, Split

#: Images of each split unless the caller says otherwise: 64 and 32 for each class.
COUNTS = {"unlabeled": 4096, "train": 1280, "val": 640}
SIZE_RANGE = (8, 1024)
MATERIALS = ("marble", "wood", "granite", "wicker", "leopard")
SHAPES = ("disc", "ring", "square", "triangle")
LABEL_NAMES = tuple(f"{material}-{shape}" for material in MATERIALS for shape in SHAPES)

F4 = NDArray[np.float32]
Color = tuple[float, float, float]

#: Dark and light tone of each palette, sRGB 0...255.
_PALETTES: tuple[tuple[Color, Color], ...] = (
    ((112, 44, 40), (226, 170, 120)),
    ((36, 62, 112), (150, 196, 212)),
    ((44, 78, 40), (196, 206, 124)),
    ((92, 40, 104), (216, 166, 196)),
    ((24, 84, 84), (236, 196, 110)),
)
#: Palette of each class, row = material, column = shape.
_PALETTE_OF = ((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 0), (3, 4, 0, 1), (4, 0, 1, 2))
#: Backgrounds: dark and light tone, frequency of the largest features, gain per octave (roughness).
_BACKGROUNDS: tuple[tuple[Color, Color, float, float], ...] = (
    ((92, 122, 158), (198, 212, 224), 2.0, 0.35),
    ((48, 72, 40), (150, 164, 96), 4.0, 0.60),
    ((70, 54, 42), (186, 164, 138), 10.0, 0.80),
)

_CELLS = 16384
_MASK = (1 << 64) - 1
#: Increment and multipliers of splitmix64 (Steele, Lea, Flood 2014).
_GOLDEN, _MIX1, _MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True, slots=True)
class BuiltinSource:
    """Draws the images of one split; a listing's ``keys`` are their numbers.

    Raises
    ------
    ConfigError
        For an image size, seed or split that cannot be drawn.
    """

    image_size: int
    seed: int
    split: str

    def __post_init__(self) -> None:
        low, high = SIZE_RANGE
        if not low <= self.image_size <= high:
            raise ConfigError(f"image size {self.image_size}: built-in images are {low} to {high} pixels wide")
        if not 0 <= self.seed <= _MASK:
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
            raise ConfigError("built-in images are found by number: the listing has no keys; list with `splits`")
        canvas = _Canvas(self.image_size)
        for number in part.keys.tolist():
            yield _draw(canvas, _key(self.seed, SPLITS.index(self.split), number), number % len(LABEL_NAMES))


def splits(
    image_size: int = 96, seed: int = 0, limit: int | None = None, counts: dict[str, int] | None = None
) -> dict[str, Split]:
    """List the built-in data set; nothing is drawn yet.

    Parameters
    ----------
    image_size : side S of the square images, 8 to 1024
    seed : another seed is another data set of the same classes
    limit : at most this many images a split, the first ones
    counts : images of each split in place of `COUNTS`; a split of 0 images is left out

    Raises
    ------
    ConfigError
        For a size, seed, limit, count or split that cannot be.
    """
    wanted = COUNTS if counts is None else counts
    if limit is not None and limit < 1:
        raise ConfigError(f"limit {limit}: expected at least 1 image a split, or no limit")
    for name, count in wanted.items():
        if count < 0:
            raise ConfigError(f"count {count} for split {name!r}: expected 0 (leave the split out) or more")
    return {
        name: _split(BuiltinSource(image_size, seed, name), count if limit is None else min(count, limit))
        for name, count in wanted.items()
        if count > 0
    }


def _split(source: BuiltinSource, count: int) -> Split:
    numbers = np.arange(count, dtype=np.int64)
    labeled = source.split != "unlabeled"
    listing = Listing(
        names=[f"builtin/{source.split}#{number:05d}" for number in range(count)],
        sizes=np.full(count, source.image_size**2 * 3, dtype=np.int64),
        stamps=np.zeros(count, dtype=np.int64),
        labels=(numbers % len(LABEL_NAMES)).astype(np.int32) if labeled else None,
        keys=numbers,
    )
    return Split(kind="builtin", source=source, listing=listing, label_names=LABEL_NAMES if labeled else None)


class _Canvas:
    """What all images of one size share: pixel centers in units of the image side, and a hash counter."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.centers = (np.arange(size, dtype=np.float64) + 0.5) / size
        self.x = self.centers.astype(np.float32)[None, :]
        self.y = self.centers.astype(np.float32)[:, None]
        self.counter = np.arange(1, _CELLS + 1, dtype=np.uint64) * np.uint64(_GOLDEN)


class _Dice:
    """The scalar choices of one image, in the order they are asked for."""

    def __init__(self, canvas: _Canvas, key: int) -> None:
        self._throws = iter(_uniform(canvas, key, 64).tolist())

    def between(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * next(self._throws)

    def direction(self) -> tuple[float, float]:
        """Return a unit vector; no trigonometry, whose last bit differs between machines."""
        x, y = self.between(-1, 1), self.between(-1, 1)
        length = math.sqrt(x * x + y * y) + 1e-9
        return x / length, y / length


def _draw(canvas: _Canvas, key: int, label: int) -> NDArray[np.uint8]:
    material, shape = divmod(label, len(SHAPES))
    dice = _Dice(canvas, _key(key, 0))
    lx, ly = dice.direction()
    lift = dice.between(0.45, 0.8)
    flat = math.sqrt(1 - lift * lift)
    c, s = dice.direction()
    radius = dice.between(0.22, 0.36)
    cx, cy = dice.between(0.3, 0.7), dice.between(0.3, 0.7)
    bend = _noise(canvas, _key(key, 1), 3.0)

    u = (canvas.x - cx) * (c / radius) + (canvas.y - cy) * (s / radius) + bend * 0.06
    v = (canvas.y - cy) * (c / radius) - (canvas.x - cx) * (s / radius)
    lu, lv = lx * c + ly * s, ly * c - lx * s

    depth, nx, ny = _OUTLINES[shape](u, v)
    tone = _TEXTURES[material](canvas, _key(key, 2), dice, u * radius, v * radius, bend)
    edge = np.maximum(1 - depth * (1 / _BEVEL[shape]), 0)
    edge = np.minimum(edge, 1)
    nz = np.sqrt(1 - 0.9 * edge * edge)
    facing = np.maximum(edge * 0.9487 * (nx * (lu * flat) + ny * (lv * flat)) + nz * lift, 0)
    # half vector between light and viewer (0, 0, 1)
    hz = math.sqrt((1 + lift) / 2)
    hs = flat / (2 * hz)
    shine = np.maximum(edge * 0.9487 * (nx * (lu * hs) + ny * (lv * hs)) + nz * hz, 0)
    for _ in range(4):
        shine = shine * shine
    dark, bright = _tones(dice, _PALETTES[_PALETTE_OF[material][shape]], 0.12)
    ambient = dice.between(0.2, 0.45)
    glow = dice.between(0.65, 1.3)
    warm = dice.between(-0.25, 0.25)
    tint = np.array([glow * (1 + warm), glow, glow * (1 - warm)], dtype=np.float32)[:, None, None]
    gloss = dice.between(0.05, 0.35)

    thing = (dark + (bright - dark) * tone) * (ambient + (1.1 - ambient) * facing) + gloss * shine

    shade = _OUTLINES[shape](u + 0.3 * lu * flat, v + 0.3 * lv * flat)[0]
    shade = np.clip(shade * 4 + 0.7, 0, 1)
    shade = shade * shade * (3 - 2 * shade)
    ground = _ground(canvas, _key(key, 3), dice) * (ambient + (1.1 - ambient) * lift * (1 - 0.75 * shade))
    cover = np.clip(depth * (radius * canvas.size) + 0.5, 0, 1)
    linear = (ground + (thing - ground) * cover) * tint
    # light is encoded with gamma 2, near enough to sRGB and a square root is exactly rounded
    values = np.minimum(np.sqrt(linear), 1)
    values = np.floor(values * 255 + 0.5)
    return np.ascontiguousarray(values.astype(np.uint8).transpose(1, 2, 0))


def _tones(dice: _Dice, palette: tuple[Color, Color], spread: float) -> tuple[F4, F4]:
    out = []
    for tone in palette:
        rgb = [(v / 255 + dice.between(-spread, spread) * 0.5) for v in tone]
        out.append(np.array([max(x, 0.02) ** 2 for x in rgb], dtype=np.float32)[:, None, None])
    return out[0], out[1]


def _ground(canvas: _Canvas, key: int, dice: _Dice) -> F4:
    dark, bright, frequency, gain = _BACKGROUNDS[int(dice.between(0, len(_BACKGROUNDS)))]
    dark, bright = _tones(dice, (dark, bright), 0.12)
    n = _fractal(canvas, key, frequency * dice.between(0.8, 1.25), gain)
    t = np.clip(n * 0.5 + 0.5, 0, 1)
    return dark + (bright - dark) * t


def _disc(u: F4, v: F4) -> tuple[F4, F4, F4]:
    r = np.sqrt(u * u + v * v) + 1e-6
    return 1 - r, u / r, v / r


def _ring(u: F4, v: F4) -> tuple[F4, F4, F4]:
    r = np.sqrt(u * u + v * v) + 1e-6
    off = r - 0.72
    side = np.where(off < 0, np.float32(-1), np.float32(1)) / r
    return 0.34 - np.abs(off), u * side, v * side


def _square(u: F4, v: F4) -> tuple[F4, F4, F4]:
    a, b = np.abs(u), np.abs(v)
    first = a > b
    return 0.86 - np.maximum(a, b), np.sign(u) * first, np.sign(v) * ~first


def _triangle(u: F4, v: F4) -> tuple[F4, F4, F4]:
    wing = np.abs(u) * 0.8660254 + v * 0.5
    low = wing < -v
    return (
        0.62 - np.maximum(wing, -v),
        np.where(low, np.float32(0), np.sign(u) * np.float32(0.8660254)),
        np.where(low, np.float32(-1), np.float32(0.5)),
    )


_OUTLINES = (_disc, _ring, _square, _triangle)
_BEVEL = (1.0, 0.34, 0.5, 0.4)


def _marble(canvas, key, dice, u, v, bend):
    n = _fractal(canvas, key, dice.between(5, 7), 0.5)
    vein = np.minimum(np.abs(n) * 4.5, 1)
    return vein * 0.85 + 0.15 * np.clip(bend + 0.5, 0, 1)


def _wood(canvas, key, dice, u, v, bend):
    table = _uniform(canvas, key, 256)
    table = 0.5 * np.repeat(table[:64], 4) + 0.3 * np.repeat(table[64:192], 2) + 0.2 * table
    phase = (u + bend * 0.05) * dice.between(110, 150) + 4096
    return np.take(table, phase.astype(np.int32) & 255)


def _granite(canvas, key, dice, u, v, bend):
    n = _noise(canvas, key, dice.between(26, 34)) + _noise(canvas, _key(key, 1), 56.0)
    return np.clip(n * 0.9 + 0.55, 0, 1)


def _wicker(canvas, key, dice, u, v, bend):
    f = dice.between(13, 17)
    a, b = u * f + 64, v * f + 64
    i, j = np.floor(a), np.floor(b)
    a -= i
    b -= j
    odd = (i + j) * 0.5
    odd = odd != np.floor(odd)
    across = np.where(odd, a, b)
    return 4 * across * (1 - across)


def _leopard(canvas, key, dice, u, v, bend):
    f = dice.between(11, 14)
    a, b = u * f + 64, v * f + 64
    i, j = np.floor(a), np.floor(b)
    cell = (i.astype(np.int32) & 31) * 32 + (j.astype(np.int32) & 31)
    a -= i + np.take(_uniform(canvas, key, 1024) * 0.5 + 0.25, cell)
    b -= j + np.take(_uniform(canvas, _key(key, 1), 1024) * 0.5 + 0.25, cell)
    return np.clip((a * a + b * b) * 9 - 0.3, 0, 1)


_TEXTURES = (_marble, _wood, _granite, _wicker, _leopard)


def _fractal(canvas: _Canvas, key: int, frequency: float, gain: float) -> F4:
    total = _noise(canvas, key, frequency)
    amplitude, octave = 1.0, 0
    while frequency * 4 <= 96:
        frequency, amplitude, octave = frequency * 2, amplitude * gain, octave + 1
        total += _noise(canvas, _key(key, octave), frequency) * amplitude
    return total


def _noise(canvas: _Canvas, key: int, frequency: float) -> F4:
    """Draw smooth value noise in [-1, 1), float32 (S, S): a random lattice, smoothstep between its points."""
    ix, wx = _between(canvas, frequency, (key & 0xFFFF) / 65536)
    iy, wy = _between(canvas, frequency, (key >> 16 & 0xFFFF) / 65536)
    side = int(frequency) + 3
    lattice = _uniform(canvas, key, side * side).reshape(side, side) * 2 - 1
    rows = lattice[:, ix]
    rows += (lattice[:, ix + 1] - rows) * wx
    steps = rows[1:] - rows[:-1]
    return np.take(rows, iy, axis=0) + np.take(steps, iy, axis=0) * wy[:, None]


def _between(canvas: _Canvas, frequency: float, offset: float):
    """Return the lattice point before each pixel center, intp (S,), and the smoothstep weight of the next, (S,)."""
    place = canvas.centers * frequency + offset
    before = np.floor(place)
    part = place - before
    return before.astype(np.intp), (part * part * (3 - 2 * part)).astype(np.float32)


def _uniform(canvas: _Canvas, key: int, count: int) -> F4:
    """Return `count` multiples of 2**-24 in [0, 1), float32: splitmix64 at `key`, one output per count."""
    z = canvas.counter[:count] + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX2)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)


def _key(*parts: int) -> int:
    """Fold integers into one 64-bit hash key (splitmix64 in Python integers)."""
    key = 0
    for part in parts:
        z = (key + part * _GOLDEN + _GOLDEN) & _MASK
        z = ((z ^ z >> 30) * _MIX1) & _MASK
        z = ((z ^ z >> 27) * _MIX2) & _MASK
        key = z ^ z >> 31
    return key
