"""Noise of the built-in data set, and the hash that all its choices come from.

The bytes are the same on every machine: only operations that IEEE 754 rounds exactly, one element at a time
(+ - * / sqrt floor, comparisons, look-ups), no sums, and a counter-based hash in place of a random generator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[Any]  # float32 (S, S) unless said otherwise; numpy types a product with a Python number as float64

#: Octaves stop here: finer ones are lost at 96 pixels, and an image should look the same at every size.
_FINEST = 48.0

MASK = (1 << 64) - 1
#: Increment and multipliers of splitmix64 (Steele, Lea, Flood 2014).
_GOLDEN, _MIX1, _MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
#: Random numbers that one key gives: enough for the largest lattice, granite's (56 + 3)**2.
_CELLS = 4096


class Canvas:
    """What all images of one size share: pixel centers and a hash counter."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.centers = (np.arange(size, dtype=np.float64) + 0.5) / size
        self.x = self.centers.astype(np.float32)[None, :]
        self.y = self.centers.astype(np.float32)[:, None]
        self.counter = np.arange(1, _CELLS + 1, dtype=np.uint64) * np.uint64(_GOLDEN)


def fractal(canvas: Canvas, key: int, frequency: float, gain: float) -> Field:
    """Add octaves of noise, each twice as fine and `gain` times as strong; gain 0.5 is 1/f."""
    total = noise(canvas, key, frequency)
    amplitude, octave = gain, 1
    while frequency * 2 <= _FINEST:
        frequency *= 2
        total += noise(canvas, key_of(key, octave), frequency) * amplitude
        amplitude, octave = amplitude * gain, octave + 1
    return total


def noise(canvas: Canvas, key: int, frequency: float) -> Field:
    """Draw smooth noise in [-1, 1): a lattice of hashed values, `frequency` cells across, blended by smoothstep."""
    ix, wx = _placed(canvas, frequency, (key & 0xFFFF) / 65536)
    iy, wy = _placed(canvas, frequency, (key >> 16 & 0xFFFF) / 65536)
    side = int(frequency) + 3
    lattice = uniform(canvas, key, side * side).reshape(side, side) * 2 - 1
    rows = lattice[:, ix]
    rows += (lattice[:, ix + 1] - rows) * wx
    # Whole rows are copied, not single pixels: columns first, on the small lattice.
    blended: Field = np.take(rows, iy, axis=0) + np.take(rows[1:] - rows[:-1], iy, axis=0) * wy[:, None]
    return blended


def _placed(canvas: Canvas, frequency: float, offset: float) -> tuple[NDArray[np.intp], Field]:
    """Return the lattice point before each pixel, intp (S,), and the weight of the next one, float32 (S,)."""
    place = canvas.centers * frequency + offset
    before = np.floor(place)
    return before.astype(np.intp), smooth((place - before).astype(np.float32))


def smooth(t: Field) -> Field:
    """Return smoothstep, 3 t^2 - 2 t^3, of numbers in [0, 1]."""
    stepped: Field = t * t * (3 - t * 2)
    return stepped


def clip(t: Field) -> Field:
    """Return the numbers moved into [0, 1]."""
    return np.minimum(np.maximum(t, 0), 1)


def uniform(canvas: Canvas, key: int, count: int) -> Field:
    """Return `count` multiples of 2**-24 in [0, 1), float32: splitmix64 seeded with `key`."""
    z = canvas.counter[:count] + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX2)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float32) * np.float32(1 / 16777216)


def key_of(*parts: int) -> int:
    """Fold integers into one 64-bit hash key: a step of splitmix64 for each."""
    key = 0
    for part in parts:
        z = (key + part * _GOLDEN + _GOLDEN) & MASK
        z = ((z ^ z >> 30) * _MIX1) & MASK
        z = ((z ^ z >> 27) * _MIX2) & MASK
        key = z ^ z >> 31
    return key
