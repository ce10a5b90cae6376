"""The keyed permutation is a bijection, gives the same numbers for ever, and mixes."""

import numpy as np
import pytest

import naive
from sbformat.permutation import permute

KEYS = [(), (0,), (7, 3), (-1, 2**70)]
#: n, key, first index, places. Made once; these numbers decide which images lie in which shard, so they never change.
GOLDEN = [
    (1, (), 0, [0]),
    (3, (), 0, [2, 0, 1]),
    (6, (0,), 0, [5, 2, 0, 4, 1, 3]),
    (10, (1, 2), 0, [2, 9, 8, 5, 3, 0, 1, 7, 6, 4]),
    (10, (-1,), 0, [5, 2, 0, 9, 1, 8, 4, 3, 6, 7]),
    (1000, (2026, 3), 0, [810, 389, 474, 776, 392, 559, 846, 444]),
    (4096, (0,), 0, [2756, 3293, 31, 2276]),
    (105_000, (7, 3), 0, [104678, 31826, 103642, 27630]),
    (2**40, (2026,), 0, [138178154249, 375995312714, 449384837907]),
    (2**40, (7,), 123456789, [927423972138]),
    (2**62, (1,), 2**62 - 1, [804613827491779890]),
]


@pytest.mark.parametrize("n", range(1, 71))
def test_every_small_permutation_is_a_bijection(n: int) -> None:
    for key in KEYS:
        assert sorted(permute(np.arange(n), n, *key).tolist()) == list(range(n))


@pytest.mark.parametrize("n", [255, 256, 257, 4095, 4097, 2**16 + 1, 105_000, 2**18])
def test_every_large_permutation_is_a_bijection(n: int) -> None:
    places = permute(np.arange(n), n, 11)

    assert (np.bincount(places, minlength=n) == 1).all()


@pytest.mark.parametrize(("n", "key", "first", "places"), GOLDEN)
def test_places_are_the_ones_of_the_format(n: int, key: tuple[int, ...], first: int, places: list[int]) -> None:
    assert permute(np.arange(first, first + len(places)), n, *key).tolist() == places


@pytest.mark.parametrize(("n", "key", "first", "places"), GOLDEN)
def test_places_of_the_format_are_those_of_the_twin(
    n: int, key: tuple[int, ...], first: int, places: list[int]
) -> None:
    assert [naive.permute(first + i, n, *key) for i in range(len(places))] == places


def test_the_twin_agrees_for_random_lengths_keys_and_indices() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        n = int(rng.integers(1, 2 ** int(rng.integers(1, 63))))
        key = tuple(int(word) for word in rng.integers(-(2**63), 2**63 - 1, rng.integers(0, 4)))
        index = int(rng.integers(0, n))

        assert permute(index, n, *key) == naive.permute(index, n, *key)


def test_one_index_gives_the_same_as_an_array_of_it() -> None:
    places = permute(np.arange(100), 100, 5)

    assert [permute(i, 100, 5) for i in range(100)] == places.tolist()
    assert type(permute(3, 100, 5)) is int


def test_an_array_keeps_its_shape_and_is_not_written_to() -> None:
    index = np.arange(12).reshape(3, 4)
    places = permute(index, 12, 5)

    assert places.shape == (3, 4)
    assert places.dtype == np.int64
    assert (index == np.arange(12).reshape(3, 4)).all()


def test_no_index_gives_no_place() -> None:
    assert permute(np.arange(0), 10, 1).tolist() == []


def test_any_kind_of_integer_means_the_same() -> None:
    expected = permute(np.arange(50), 50, 4, 2**63 + 1)

    assert (permute(np.arange(50, dtype=np.uint8), np.int32(50), np.int64(4), np.uint64(2**63 + 1)) == expected).all()


def test_different_keys_give_different_orders() -> None:
    keys = [(), (0,), (1,), (2**64 - 1,), (0, 0), (0, 1), (1, 0), (0, 0, 0)]
    orders = {tuple(permute(np.arange(30), 30, *key).tolist()) for key in keys}

    assert len(orders) == len(keys)


def test_a_negative_key_counts_modulo_two_to_the_64() -> None:
    assert (permute(np.arange(99), 99, -5, 1) == permute(np.arange(99), 99, 2**64 - 5, 1)).all()


@pytest.mark.parametrize("n", [2**40 - 1, 2**40, 2**40 + 1, 2**62])
def test_a_huge_range_is_permuted_without_a_table(n: int) -> None:
    places = permute(np.arange(n - 1000, n), n, 1)

    assert len(set(places.tolist())) == 1000
    assert places.min() >= 0
    assert places.max() < n


@pytest.mark.parametrize("n", [0, -1, 2**62 + 1])
def test_a_length_out_of_range_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=rf"n = {n}, expected 1 <= n <= 2\*\*62"):
        permute(0, n)


@pytest.mark.parametrize("index", [-1, 10, 2**63, 2**64, 0.5, [3, 10], [0.0, 1.0], [True]])
def test_an_index_out_of_range_or_not_whole_is_refused(index: object) -> None:
    with pytest.raises(ValueError, match=r"expected whole numbers in \[0, 10\)"):
        permute(index, 10)


@pytest.mark.parametrize(("n", "key"), [(10.0, 1), (10, 1.0), (10, "1")])
def test_a_length_or_key_that_is_no_integer_is_refused(n: object, key: object) -> None:
    with pytest.raises(TypeError):
        permute(0, n, key)


@pytest.mark.parametrize("n", [3, 5, 6, 11])
def test_every_index_goes_to_every_place_equally_often(n: int) -> None:
    """Chi-square over 1,500 keys: within 4 standard deviations of its mean, the degrees of freedom."""
    keys = 1500
    counts = np.zeros((n, n))
    for key in range(keys):
        counts[np.arange(n), permute(np.arange(n), n, key)] += 1

    freedom = (n - 1) ** 2
    chi_square = ((counts - keys / n) ** 2 / (keys / n)).sum()
    assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5


def test_neighbors_end_a_third_of_the_length_apart() -> None:
    """The mean distance in a random order is (n + 1) / 3; its standard deviation here is 0.24 % of n."""
    n = 10_000
    distance = np.abs(np.diff(permute(np.arange(n), n, 0))).mean()

    assert abs(distance / n - 1 / 3) < 0.01


def test_orders_of_two_epochs_share_no_more_places_than_chance() -> None:
    """Chance gives one in the mean, whatever n."""
    n = 10_000

    for epoch in range(10):
        assert (permute(np.arange(n), n, 0, epoch) == permute(np.arange(n), n, 0, epoch + 1)).sum() <= 6
