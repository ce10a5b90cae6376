"""The built-in data set: textured objects under varied light, drawn from a hash of seed, split and number.

It stands in for a real data set in demos and tests. A class is a material and a shape (`marble-disc`). Both together
choose the palette and each palette serves four classes, so whoever predicts color from lightness has to recognize what
the label asks for, while color alone leaves it open. Light, pose, texture and background vary with every image.

The bytes are the same on every machine: only operations that IEEE 754 rounds exactly, one element at a time
(+ - * / sqrt floor, comparisons, look-ups), no sums, and a counter-based hash in place of a random generator.

Letters: S image side, x y in units of the side, u v the object's own axes in units of its radius. Fields are
float32 (S, S), pictures float32 (3, S, S) in linear light.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

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

Field = NDArray[Any]  # float32 (S, S) unless said otherwise; numpy types a product with a Python number as float64
Color = tuple[int, int, int]

#: Dark and bright tone of each palette, sRGB. All are about equally light: lightness must not tell the palette.
_PALETTES: tuple[tuple[Color, Color], ...] = (
    ((129, 35, 28), (250, 162, 84)),
    ((22, 61, 135), (125, 200, 232)),
    ((33, 84, 28), (194, 213, 83)),
    ((101, 27, 118), (234, 153, 208)),
    ((8, 90, 90), (250, 198, 60)),
)
#: Palette of each class, row = material, column = shape: a Latin square, so that neither of the two tells it alone.
#: One palette for the round and one for the angular pieces of a material was predicted sooner but taught less: in a
#: four-layer net (6 epochs of 4,096 images, one run) fine-tuning with 16 labels a class reached 53 % instead of 79 %
#: (from scratch: 41 % and 47 %).
_PALETTE_OF = ((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 0), (3, 4, 0, 1), (4, 0, 1, 2))
#: Backgrounds: dark and bright tone, features across the image, gain per octave. Color goes with roughness.
_GROUNDS: tuple[tuple[Color, Color, float, float], ...] = (
    ((92, 122, 158), (198, 212, 224), 2.0, 0.35),  # sky: smooth and bluish
    ((48, 72, 40), (150, 164, 96), 4.0, 0.60),  # grass: rough and greenish
    ((70, 54, 42), (186, 164, 138), 10.0, 0.80),  # gravel: granular and brown
)
#: Octaves stop here: finer ones are lost at 96 pixels, and an image should look the same at every size.
_FINEST = 48.0

#: Streams of random numbers of one image.
_CHOICES, _BEND, _TEXTURE, _GROUND = range(4)
_MASK = (1 << 64) - 1
#: Increment and multipliers of splitmix64 (Steele, Lea, Flood 2014).
_GOLDEN, _MIX1, _MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
#: Random numbers that one key gives: enough for the largest lattice, granite's (56 + 3)**2.
_CELLS = 4096


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
            raise ConfigError(
                "listing without keys: built-in images are found by number; make the listing with `splits`"
            )
        canvas = _Canvas(self.image_size)
        for number in part.keys.tolist():
            key = _key(self.seed, SPLITS.index(self.split), number)
            yield _draw(canvas, key, *divmod(number % len(LABEL_NAMES), len(SHAPES)))


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


class _Canvas:
    """What all images of one size share: pixel centers and a hash counter."""

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
        return low + (high - low) * float(next(self._throws))

    def direction(self) -> tuple[float, float]:
        """Return a unit vector, without sine and cosine: their last bit differs between machines."""
        x, y = self.between(-1, 1), self.between(-1, 1)
        length = math.sqrt(x * x + y * y) + 1e-9
        return x / length, y / length

    def tones(self, dark: Color, bright: Color) -> tuple[Field, Field]:
        """Return both sRGB colors in linear light, float32 (3, 1, 1), each a little off in its own way."""
        levels = [max(v / 255 + self.between(-0.08, 0.08), 0.02) for v in (*dark, *bright)]
        linear = np.array([level * level for level in levels], dtype=np.float32).reshape(2, 3, 1, 1)
        return linear[0], linear[1]


class _Pose:
    """Where the object lies, how large and turned which way."""

    def __init__(self, dice: _Dice) -> None:
        self.radius = dice.between(0.22, 0.36)
        self.x, self.y = dice.between(0.3, 0.7), dice.between(0.3, 0.7)
        self.cos, self.sin = dice.direction()

    def turn(self, x: float, y: float) -> tuple[float, float]:
        """Turn an image direction into the object's axes."""
        return x * self.cos + y * self.sin, y * self.cos - x * self.sin

    def local(self, canvas: _Canvas) -> tuple[Field, Field]:
        """Return the object's coordinates u, v of every pixel."""
        x, y = (canvas.x - self.x) / self.radius, (canvas.y - self.y) / self.radius
        return x * self.cos + y * self.sin, y * self.cos - x * self.sin


class _Light:
    """A far lamp and the sky: direction (flat part times a unit vector, lift), strengths and tint."""

    def __init__(self, dice: _Dice, pose: _Pose) -> None:
        self.lift = dice.between(0.45, 0.8)
        self.flat = math.sqrt(1 - self.lift * self.lift)
        self.u, self.v = pose.turn(*dice.direction())
        self.ambient = dice.between(0.2, 0.45)
        self.gloss = dice.between(0.05, 0.35)
        glow, warm = dice.between(0.65, 1.3), dice.between(-0.25, 0.25)
        self.tint = np.array([glow + glow * warm, glow, glow - glow * warm], dtype=np.float32).reshape(3, 1, 1)

    def strength(self, facing: Field) -> Field:
        """Return lamp and sky together on a surface that faces the lamp by this cosine."""
        return facing * (1.1 - self.ambient) + self.ambient


def _draw(canvas: _Canvas, key: int, material: int, shape: int) -> NDArray[np.uint8]:
    """Draw one image, uint8 (S, S, 3): ground, shadow, and the object over both."""
    dice = _Dice(canvas, _key(key, _CHOICES))
    pose = _Pose(dice)
    light = _Light(dice, pose)
    bend = _noise(canvas, _key(key, _BEND), 3.0)
    u, v = pose.local(canvas)
    u += bend * 0.06  # no outline is ruled
    depth, nu, nv = _OUTLINES[shape](u, v)
    paint = _Paint(canvas, _key(key, _TEXTURE), dice, u * pose.radius, v * pose.radius, bend)
    dark, bright = dice.tones(*_PALETTES[_PALETTE_OF[material][shape]])
    thing = _lit(dark + (bright - dark) * _TEXTURES[material](paint), light, depth * (1 / _BEVELS[shape]), nu, nv)
    shadow = _smooth(
        _clip(_OUTLINES[shape](u + light.u * light.flat * 0.3, v + light.v * light.flat * 0.3)[0] * 4 + 0.7)
    )
    picture = _ground(canvas, _key(key, _GROUND), dice) * light.strength((1 - shadow * 0.75) * light.lift)
    picture += (thing - picture) * _clip(depth * (pose.radius * canvas.size) + 0.5)
    return _encoded(picture * light.tint)


def _lit(albedo: Field, light: _Light, depth: Field, nu: Field, nv: Field) -> Field:
    """Light a pillow: its normal leans outward by (nu, nv) at the edge (depth 0) and is upright from depth 1 on."""
    edge = _clip(1 - depth)
    up = np.sqrt(1 - edge * edge * 0.9)
    toward = (nu * light.u + nv * light.v) * (edge * 0.9486833)  # sqrt(0.9): the normal has length 1
    half = math.sqrt((1 + light.lift) / 2)  # the highlight looks halfway between lamp and viewer
    shine = np.maximum(toward * (light.flat / (2 * half)) + up * half, 0)
    for _ in range(4):
        shine *= shine
    facing = np.maximum(toward * light.flat + up * light.lift, 0)
    lit: Field = albedo * light.strength(facing) + shine * light.gloss
    return lit


def _ground(canvas: _Canvas, key: int, dice: _Dice) -> Field:
    dark, bright, frequency, gain = _GROUNDS[int(dice.between(0, len(_GROUNDS)))]
    low, high = dice.tones(dark, bright)
    height = _fractal(canvas, key, frequency * dice.between(0.8, 1.25), gain)
    ground: Field = low + (high - low) * _clip(height * 0.5 + 0.5)
    return ground


def _encoded(linear: Field) -> NDArray[np.uint8]:
    """Return linear light as uint8 (S, S, 3) with gamma 2: near sRGB, and a square root is exactly rounded."""
    levels = np.floor(np.sqrt(_clip(linear)) * 255 + 0.5)
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 0))


# Shapes: from u, v the depth below the outline (negative outside) and the outward direction.


def _disc(u: Field, v: Field) -> tuple[Field, Field, Field]:
    r = np.sqrt(u * u + v * v) + 1e-6
    return 1 - r, u / r, v / r


def _ring(u: Field, v: Field) -> tuple[Field, Field, Field]:
    r = np.sqrt(u * u + v * v) + 1e-6
    off = r - 0.72
    side = np.where(off < 0, np.float32(-1), np.float32(1)) / r
    return 0.34 - np.abs(off), u * side, v * side


def _square(u: Field, v: Field) -> tuple[Field, Field, Field]:
    a, b = np.abs(u), np.abs(v)
    flank = a > b
    return 0.86 - np.maximum(a, b), np.sign(u) * flank, np.sign(v) * ~flank


def _triangle(u: Field, v: Field) -> tuple[Field, Field, Field]:
    wing = np.abs(u) * 0.8660254 + v * 0.5
    base = wing < -v
    lean = np.sign(u) * 0.8660254
    return 0.62 - np.maximum(wing, -v), lean * ~base, np.where(base, np.float32(-1), np.float32(0.5))


_OUTLINES = (_disc, _ring, _square, _triangle)
#: Depth from which the surface is upright: a dome, a tube and two pillows.
_BEVELS = (1.0, 0.34, 0.5, 0.4)


# Materials: the place of each pixel between the dark and the bright tone, 0 to 1.


@dataclass(frozen=True, slots=True)
class _Paint:
    """What a material is painted with; u and v are in units of the image side, so that grain ignores object size."""

    canvas: _Canvas
    key: int
    dice: _Dice
    u: Field
    v: Field
    bend: Field

    def cells(self, frequency: float) -> tuple[Field, Field, Field, Field]:
        """Return the column and row of a square cell, and the place inside it, [0, 1)."""
        a, b = self.u * frequency + 64, self.v * frequency + 64
        column, row = np.floor(a), np.floor(b)
        return column, row, a - column, b - row


def _marble(paint: _Paint) -> Field:
    cloud = _fractal(paint.canvas, paint.key, paint.dice.between(5, 7), 0.5)
    return np.minimum(np.abs(cloud) * 4.5, 1) * 0.85 + _clip(paint.bend + 0.5) * 0.15


def _wood(paint: _Paint) -> Field:
    fine = _uniform(paint.canvas, paint.key, 256)
    rings = np.repeat(fine[:64], 4) * 0.5 + np.repeat(fine[64:192], 2) * 0.3 + fine * 0.2
    place = (paint.u + paint.bend * 0.05) * paint.dice.between(110, 150) + 4096
    return np.take(rings, place.astype(np.int32) & 255)


def _granite(paint: _Paint) -> Field:
    grain = _noise(paint.canvas, paint.key, paint.dice.between(26, 34))
    grain += _noise(paint.canvas, _key(paint.key, 1), 56.0)
    return _clip(grain * 0.9 + 0.55)


def _wicker(paint: _Paint) -> Field:
    column, row, a, b = paint.cells(paint.dice.between(13, 17))
    pair = (column + row) * 0.5
    across = np.where(pair == np.floor(pair), b, a)
    threads: Field = across * (1 - across) * 4
    return threads


def _leopard(paint: _Paint) -> Field:
    column, row, a, b = paint.cells(paint.dice.between(11, 14))
    cell = (column.astype(np.int32) & 31) * 32 + (row.astype(np.int32) & 31)
    a -= np.take(_uniform(paint.canvas, paint.key, 1024) * 0.4 + 0.3, cell)
    b -= np.take(_uniform(paint.canvas, _key(paint.key, 1), 1024) * 0.4 + 0.3, cell)
    return _clip((a * a + b * b) * 9 - 0.3)


_TEXTURES: tuple[Callable[[_Paint], Field], ...] = (_marble, _wood, _granite, _wicker, _leopard)


# Noise, and the hash below it.


def _fractal(canvas: _Canvas, key: int, frequency: float, gain: float) -> Field:
    """Add octaves of noise, each twice as fine and `gain` times as strong; gain 0.5 is 1/f."""
    total = _noise(canvas, key, frequency)
    amplitude, octave = gain, 1
    while frequency * 2 <= _FINEST:
        frequency *= 2
        total += _noise(canvas, _key(key, octave), frequency) * amplitude
        amplitude, octave = amplitude * gain, octave + 1
    return total


def _noise(canvas: _Canvas, key: int, frequency: float) -> Field:
    """Draw smooth noise in [-1, 1): a lattice of hashed values, `frequency` cells across, blended by smoothstep."""
    ix, wx = _placed(canvas, frequency, (key & 0xFFFF) / 65536)
    iy, wy = _placed(canvas, frequency, (key >> 16 & 0xFFFF) / 65536)
    side = int(frequency) + 3
    lattice = _uniform(canvas, key, side * side).reshape(side, side) * 2 - 1
    rows = lattice[:, ix]
    rows += (lattice[:, ix + 1] - rows) * wx
    # Whole rows are copied, not single pixels: columns first, on the small lattice.
    noise: Field = np.take(rows, iy, axis=0) + np.take(rows[1:] - rows[:-1], iy, axis=0) * wy[:, None]
    return noise


def _placed(canvas: _Canvas, frequency: float, offset: float) -> tuple[NDArray[np.intp], Field]:
    """Return the lattice point before each pixel, intp (S,), and the weight of the next one, float32 (S,)."""
    place = canvas.centers * frequency + offset
    before = np.floor(place)
    return before.astype(np.intp), _smooth((place - before).astype(np.float32))


def _smooth(t: Field) -> Field:
    smooth: Field = t * t * (3 - t * 2)
    return smooth


def _clip(t: Field) -> Field:
    return np.minimum(np.maximum(t, 0), 1)


def _uniform(canvas: _Canvas, key: int, count: int) -> Field:
    """Return `count` multiples of 2**-24 in [0, 1), float32: splitmix64 seeded with `key`."""
    z = canvas.counter[:count] + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX2)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float32) * np.float32(1 / 16777216)


def _key(*parts: int) -> int:
    """Fold integers into one 64-bit hash key: a step of splitmix64 for each."""
    key = 0
    for part in parts:
        z = (key + part * _GOLDEN + _GOLDEN) & _MASK
        z = ((z ^ z >> 30) * _MIX1) & _MASK
        z = ((z ^ z >> 27) * _MIX2) & _MASK
        key = z ^ z >> 31
    return key
