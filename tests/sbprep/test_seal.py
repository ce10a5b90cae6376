"""Shards of a split put in order, and statistics from integer sums."""

import numpy as np
import pytest

from sbformat.errors import ManifestError
from sbformat.records import ShardRecord
from sbprep.seal import merge_shards, statistics_from_sums


def record(number: int, count: int = 70) -> ShardRecord:
    return ShardRecord(f"shard-{number:05d}.h5", count, 50_000 + number, "ab" * 16, {})


def test_shards_are_merged_in_order_of_their_number() -> None:
    shards = [(2, record(2)), (0, record(0)), (1, record(1)), (0, record(0))]

    assert [shard.name for shard in merge_shards(shards, "here")] == [
        "shard-00000.h5",
        "shard-00001.h5",
        "shard-00002.h5",
    ]


def test_two_different_shards_of_one_number_are_an_error() -> None:
    with pytest.raises(ManifestError, match="shard 1 was built twice with different content"):
        merge_shards([(0, record(0)), (1, record(1)), (1, record(1, count=69))], "here")


def test_statistics_are_mean_and_standard_deviation_of_all_pixels() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 5000))

    mean, std = statistics_from_sums(pixels.sum(axis=1), (pixels**2).sum(axis=1), 5000)

    assert mean == pytest.approx(pixels.mean(axis=1), rel=1e-14)
    assert std == pytest.approx(pixels.std(axis=1), rel=1e-12)


def test_a_constant_channel_has_no_deviation_however_many_pixels() -> None:
    pixels = 9_999_999_999_937

    assert statistics_from_sums(np.array([77 * pixels]), np.array([77**2 * pixels]), pixels) == ([77.0], [0.0])


def test_one_pixel_of_ten_trillion_shows_in_the_deviation() -> None:
    pixels = 9_999_999_999_937
    sums, squares = np.array([77 * pixels + 1]), np.array([77**2 * pixels + 78**2 - 77**2])

    assert statistics_from_sums(sums, squares, pixels)[1] == pytest.approx([pixels**-0.5], rel=1e-9)
