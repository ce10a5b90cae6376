"""Every kernel agrees with its plain twin, compiled and not."""

import os

import numpy as np
import pytest

import naive
from sbformat.colorimetry import lab_from_rgb, linear_from_srgb
from sbformat.schema import TargetSpec, bins_from_values, fixed_range
from sbprep import _kernels
from sbprep.areas import area_weights

LINEAR = linear_from_srgb(np.arange(256) / 255).astype(np.float32)
JIT_OFF = os.environ.get("NUMBA_DISABLE_JIT") == "1"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


def test_lab_agrees_with_the_twin_to_float32(rng: np.random.Generator) -> None:
    rgb = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    rgb[0, :4] = [[0, 0, 0], [255, 255, 255], [1, 0, 0], [0, 0, 255]]
    lab = np.empty((3, 9, 11), np.float32)

    _kernels.lab_from_rgb(rgb, LINEAR, lab)

    expected = np.array([[naive.lab_from_rgb(pixel) for pixel in row] for row in rgb.tolist()]).transpose(2, 0, 1)
    assert np.abs(lab - expected).max() < 2e-4


@pytest.mark.jit
@pytest.mark.skipif(JIT_OFF, reason="16.8 million colors take hours without the JIT")
def test_every_color_is_stored_within_half_a_step_and_a_thousandth() -> None:
    worst, misrounded = 0.0, 0
    low, scale = np.float32([0, -128, -128]), np.float32([2.55, 1, 1])
    lab, stored = np.empty((3, 256, 256), np.float32), np.empty((256, 256), np.uint8)
    green, blue = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8), indexing="ij")
    for red in range(256):
        rgb = np.stack([np.full_like(green, red), green, blue], axis=-1)
        _kernels.lab_from_rgb(rgb, LINEAR, lab)
        reference = lab_from_rgb(rgb) * [2.55, 1, 1] + [0, 128, 128]
        for c in range(3):
            _kernels.encode(lab[c], low[c], scale[c], stored)
            worst = max(worst, np.abs(stored - reference[..., c]).max())
            misrounded += int((stored != np.floor(reference[..., c] + 0.5)).sum())

    assert worst <= 0.5 + 1e-3
    assert misrounded < 1e-4 * 3 * 2**24


def test_extremes_are_the_minimum_and_maximum(rng: np.random.Generator) -> None:
    channel = rng.normal(0, 40, (13, 13)).astype(np.float32)
    scratch = np.empty((2, 13), np.float32)

    assert _kernels.extremes(channel, scratch[0], scratch[1]) == (channel.min(), channel.max())


@pytest.mark.parametrize(("side", "cells"), [(16, 4), (13, 13), (17, 5), (10, 3), (9, 1)])
def test_area_mean_agrees_with_exact_fractions(side: int, cells: int, rng: np.random.Generator) -> None:
    channel = rng.uniform(-80, 100, (side, side)).astype(np.float32)
    first, weights = area_weights(side, cells)
    mean = np.empty((cells, cells), np.float32)

    _kernels.area_mean(channel, first, weights, np.empty(side, np.float32), mean)

    assert np.abs(mean - np.array(naive.area_mean(channel.tolist(), cells))).max() < 3e-5


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("target", [TargetSpec(size=5), TargetSpec(size=5, single=300, dual=25)])
def test_uniform_bins_are_those_of_the_format(fixed: bool, target: TargetSpec, rng: np.random.Generator) -> None:
    means = rng.uniform(-140, 140, (7, 3, 5, 5)).astype(np.float32)
    ranges = np.stack([means.min(axis=(2, 3)), means.max(axis=(2, 3))], axis=-1)
    ranges[2, 1, 1] = ranges[2, 1, 0]  # a constant channel
    if fixed:
        ranges = fixed_range("lab")[None]
    expected = bins_from_values(means, ranges[0] if fixed else ranges, target)
    found = np.empty_like(expected[0]), np.empty_like(expected[1])

    _kernels.uniform_bins(means, ranges, target.single, target.dual, *found)

    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_encode_returns_the_sums_of_what_it_stores(rng: np.random.Generator) -> None:
    channel = rng.uniform(0, 100, (12, 12)).astype(np.float32)
    stored = np.empty((12, 12), np.uint8)

    total, squares = _kernels.encode(channel, np.float32(0), np.float32(2.55), stored)

    assert (stored == np.floor(channel * np.float32(2.55) + np.float32(0.5))).all()
    assert total == stored.sum(dtype=np.int64)
    assert squares == (stored.astype(np.int64) ** 2).sum()


def test_planes_are_the_channels(rng: np.random.Generator) -> None:
    rgb = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
    planes = np.empty((3, 7, 7), np.float32)

    _kernels.planes_from_rgb(rgb, planes)

    assert (planes == rgb.transpose(2, 0, 1)).all()
