"""Slow, plain twins of the fast code: Python numbers and loops, written from the formulas. Only for tests."""

import math
from fractions import Fraction


def lab_from_rgb(rgb):
    """CIE-Lab of one pixel, in Python floats: (R, G, B) in 0…255 -> (L, a, b)."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in rgb)]
    matrix = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
    white = (0.95047, 1.0, 1.08883)
    xyz = [sum(m * v for m, v in zip(row, linear, strict=True)) / w for row, w in zip(matrix, white, strict=True)]
    fx, fy, fz = (t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in xyz)
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def area_mean(channel, cells):
    """Mean of a square list of lists over cells x cells equal areas, with the share of every pixel as a fraction."""
    side = len(channel)
    shares = [
        [
            max(Fraction(0), min(p + 1, Fraction(side * (i + 1), cells)) - max(p, Fraction(side * i, cells)))
            for p in range(side)
        ]
        for i in range(cells)
    ]
    area = Fraction(side, cells) ** 2
    return [
        [
            sum(
                float(shares[i][y] * shares[j][x] / area) * float(channel[y][x])
                for y in range(side)
                for x in range(side)
                if shares[i][y] and shares[j][x]
            )
            for j in range(cells)
        ]
        for i in range(cells)
    ]


def stretch(values):
    """Levels 0…255 of a list of numbers stretched from its extremes."""
    low, high = min(values), max(values)
    return [math.floor((v - low) * 255 / (high - low) + 0.5) if high > low else 0 for v in values]


def permute(index, n, *key):
    """Place of `index` under the keyed permutation of [0, n): Feistel rounds in Python integers, walked until inside."""
    modulus = 1 << 64

    def scramble(z):
        z %= modulus
        z = (z ^ (z // 2**30)) * 0xBF58476D1CE4E5B9 % modulus
        z = (z ^ (z // 2**27)) * 0x94D049BB133111EB % modulus
        return z ^ (z // 2**31)

    golden = 0x9E3779B97F4A7C15
    state = len(key)
    for word in key:
        state = scramble(((state + golden) % modulus) ^ (word % modulus))
    bits = 2
    while 2**bits < n:
        bits += 1
    divisor = 2 ** (bits // 2)
    high, low = divmod(index, divisor)
    while True:
        for r in range(1, 13):
            if r % 2:
                high ^= scramble(low + scramble(state + r * golden)) % (2**bits // divisor)
            else:
                low ^= scramble(high + scramble(state + r * golden)) % divisor
        if high * divisor + low < n:
            return high * divisor + low
