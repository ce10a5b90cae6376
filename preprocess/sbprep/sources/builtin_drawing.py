"""How an image of the built-in data set is drawn: an object of some material and shape on a ground, in some light.

Nothing but exactly rounded operations, see `builtin_noise`.

Letters: S image side, x y in units of the side, u v the object's own axes in units of its radius. Fields are
float32 (S, S), pictures float32 (3, S, S) in linear light.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbprep.sources.builtin_noise import Canvas, Field, clip, fractal, key_of, noise, smooth, uniform

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
#: Streams of random numbers of one image.
_CHOICES, _BEND, _TEXTURE, _GROUND = range(4)


class _Dice:
    """The scalar choices of one image, in the order they are asked for."""

    def __init__(self, canvas: Canvas, key: int) -> None:
        self._throws = iter(uniform(canvas, key, 64).tolist())

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

    def local(self, canvas: Canvas) -> tuple[Field, Field]:
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


def draw(canvas: Canvas, key: int, material: int, shape: int) -> NDArray[np.uint8]:
    """Draw one image, uint8 (S, S, 3): ground, shadow, and the object over both."""
    dice = _Dice(canvas, key_of(key, _CHOICES))
    pose = _Pose(dice)
    light = _Light(dice, pose)
    bend = noise(canvas, key_of(key, _BEND), 3.0)
    u, v = pose.local(canvas)
    u += bend * 0.06  # no outline is ruled
    depth, nu, nv = _OUTLINES[shape](u, v)
    paint = _Paint(canvas, key_of(key, _TEXTURE), dice, u * pose.radius, v * pose.radius, bend)
    dark, bright = dice.tones(*_PALETTES[_PALETTE_OF[material][shape]])
    thing = _lit(dark + (bright - dark) * _TEXTURES[material](paint), light, depth * (1 / _BEVELS[shape]), nu, nv)
    shadow = smooth(clip(_OUTLINES[shape](u + light.u * light.flat * 0.3, v + light.v * light.flat * 0.3)[0] * 4 + 0.7))
    picture = _ground(canvas, key_of(key, _GROUND), dice) * light.strength((1 - shadow * 0.75) * light.lift)
    picture += (thing - picture) * clip(depth * (pose.radius * canvas.size) + 0.5)
    return _encoded(picture * light.tint)


def _lit(albedo: Field, light: _Light, depth: Field, nu: Field, nv: Field) -> Field:
    """Light a pillow: its normal leans outward by (nu, nv) at the edge (depth 0) and is upright from depth 1 on."""
    edge = clip(1 - depth)
    up = np.sqrt(1 - edge * edge * 0.9)
    toward = (nu * light.u + nv * light.v) * (edge * 0.9486833)  # sqrt(0.9): the normal has length 1
    half = math.sqrt((1 + light.lift) / 2)  # the highlight looks halfway between lamp and viewer
    shine = np.maximum(toward * (light.flat / (2 * half)) + up * half, 0)
    for _ in range(4):
        shine *= shine
    facing = np.maximum(toward * light.flat + up * light.lift, 0)
    lit: Field = albedo * light.strength(facing) + shine * light.gloss
    return lit


def _ground(canvas: Canvas, key: int, dice: _Dice) -> Field:
    dark, bright, frequency, gain = _GROUNDS[int(dice.between(0, len(_GROUNDS)))]
    low, high = dice.tones(dark, bright)
    height = fractal(canvas, key, frequency * dice.between(0.8, 1.25), gain)
    ground: Field = low + (high - low) * clip(height * 0.5 + 0.5)
    return ground


def _encoded(linear: Field) -> NDArray[np.uint8]:
    """Return linear light as uint8 (S, S, 3) with gamma 2: near sRGB, and a square root is exactly rounded."""
    levels = np.floor(np.sqrt(clip(linear)) * 255 + 0.5)
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

    canvas: Canvas
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
    cloud = fractal(paint.canvas, paint.key, paint.dice.between(5, 7), 0.5)
    return np.minimum(np.abs(cloud) * 4.5, 1) * 0.85 + clip(paint.bend + 0.5) * 0.15


def _wood(paint: _Paint) -> Field:
    fine = uniform(paint.canvas, paint.key, 256)
    rings = np.repeat(fine[:64], 4) * 0.5 + np.repeat(fine[64:192], 2) * 0.3 + fine * 0.2
    place = (paint.u + paint.bend * 0.05) * paint.dice.between(110, 150) + 4096
    return np.take(rings, place.astype(np.int32) & 255)


def _granite(paint: _Paint) -> Field:
    grain = noise(paint.canvas, paint.key, paint.dice.between(26, 34))
    grain += noise(paint.canvas, key_of(paint.key, 1), 56.0)
    return clip(grain * 0.9 + 0.55)


def _wicker(paint: _Paint) -> Field:
    column, row, a, b = paint.cells(paint.dice.between(13, 17))
    pair = (column + row) * 0.5
    across = np.where(pair == np.floor(pair), b, a)
    threads: Field = across * (1 - across) * 4
    return threads


def _leopard(paint: _Paint) -> Field:
    column, row, a, b = paint.cells(paint.dice.between(11, 14))
    cell = (column.astype(np.int32) & 31) * 32 + (row.astype(np.int32) & 31)
    a -= np.take(uniform(paint.canvas, paint.key, 1024) * 0.4 + 0.3, cell)
    b -= np.take(uniform(paint.canvas, key_of(paint.key, 1), 1024) * 0.4 + 0.3, cell)
    return clip((a * a + b * b) * 9 - 0.3)


_TEXTURES: tuple[Callable[[_Paint], Field], ...] = (_marble, _wood, _granite, _wicker, _leopard)
