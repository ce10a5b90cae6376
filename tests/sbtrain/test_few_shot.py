"""Draws of few labels a class, and the intervals that are said of them."""

import math

import numpy as np
import pytest

from sbformat.errors import ConfigError
from sbtrain.evaluation.few_shot import ALL, Protocol, draw_rows, hold_out, interval, student_quantile

CLASSES = ("cat", "dog", "eel")
LABELS = np.random.default_rng(3).permutation(np.repeat(np.arange(3, dtype=np.int32), (10, 20, 30)))


def drawn(samples: int, draw: int = 0, protocol: Protocol = "balanced", seed: int = 0) -> np.ndarray:
    return draw_rows(LABELS, CLASSES, samples, protocol, seed, draw)


@pytest.mark.parametrize("samples", [1, 2, 3, 10])
def test_a_balanced_draw_has_exactly_as_many_of_each_class(samples: int) -> None:
    rows = drawn(samples)

    assert np.bincount(LABELS[rows]).tolist() == [samples] * 3
    assert len(set(rows.tolist())) == 3 * samples


@pytest.mark.parametrize("protocol", ["balanced", "report"])
def test_a_smaller_draw_is_the_beginning_of_a_larger_one(protocol: Protocol) -> None:
    largest = drawn(10, 4, protocol).tolist()

    assert all(drawn(k, 4, protocol).tolist() == largest[: 3 * k] for k in range(1, 10))


@pytest.mark.parametrize("protocol", ["balanced", "report"])
def test_draws_and_seeds_differ(protocol: Protocol) -> None:
    sets = {tuple(sorted(drawn(3, draw, protocol, seed))) for draw in range(5) for seed in range(5)}

    assert len(sets) == 25


def test_every_image_of_a_class_is_drawn_equally_often() -> None:
    """1,000 draws of 3 from 10: each comes 300 times in the mean, with a standard deviation of 14.5."""
    counts = np.bincount(np.concatenate([drawn(3, draw) for draw in range(1000)]), minlength=60)[LABELS == 0]

    assert counts.min() > 300 - 5 * 14.5
    assert counts.max() < 300 + 5 * 14.5


def test_the_reports_draw_takes_no_heed_of_classes() -> None:
    """1,000 of 64,000 images, 64 of each class: about 365 of the 1,000 classes get none, 131 at 2, 16 at 4."""
    labels = np.repeat(np.arange(1000, dtype=np.int32), 64)
    names = [str(c) for c in range(1000)]

    empty = [1000 - len(np.unique(labels[draw_rows(labels, names, k, "report", 0, 0)])) for k in (1, 2, 4)]

    assert empty == pytest.approx([365, 131, 16], abs=35)
    assert len(draw_rows(labels, names, 2, "report", 0, 0)) == 2000


@pytest.mark.parametrize("protocol", ["balanced", "report"])
def test_all_is_every_image(protocol: Protocol) -> None:
    assert drawn(ALL, 3, protocol).tolist() == list(range(60))


def test_more_than_a_class_has_names_the_class_and_its_count() -> None:
    with pytest.raises(ConfigError, match=r"11 samples per class, class cat has 10 images\. Use at most 10, or all"):
        drawn(11)


def test_a_class_without_an_image_allows_no_balanced_draw() -> None:
    with pytest.raises(ConfigError, match=r"class fox has 0 images\. Use all, or --protocol report"):
        draw_rows(LABELS, (*CLASSES, "fox"), 1, "balanced", 0, 0)


def test_more_than_the_split_has_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"3 classes are 63 images, the split has 60\. Use at most 20, or all"):
        drawn(21, protocol="report")


@pytest.mark.parametrize(("share", "held"), [(0.0, 0), (0.2, 2), (0.3, 3), (0.5, 5)])
def test_the_held_out_share_is_taken_from_each_class(share: float, held: int) -> None:
    learn, stop = hold_out(drawn(10), LABELS, share)

    assert np.bincount(LABELS[stop], minlength=3).tolist() == [held] * 3
    assert np.bincount(LABELS[learn]).tolist() == [10 - held] * 3
    assert sorted([*learn, *stop]) == sorted(drawn(10))


def test_of_one_image_a_class_none_is_held_out() -> None:
    learn, stop = hold_out(drawn(1), LABELS, 0.5)

    assert (len(learn), len(stop)) == (3, 0)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (29, 2.0452), (120, 1.9799)],
)
def test_quantiles_match_the_printed_table_of_student(freedom: int, quantile: float) -> None:
    assert student_quantile(freedom) == pytest.approx(quantile, abs=5e-5)


def test_an_interval_is_t_times_the_standard_error() -> None:
    found = interval([0.1, 0.2, 0.4])

    assert found.mean == pytest.approx(0.7 / 3)
    assert found.half_width == pytest.approx(4.3026527 * np.std([0.1, 0.2, 0.4], ddof=1) / math.sqrt(3))
    assert found.text() == "23.33 ± 37.95"


def test_one_draw_has_no_interval() -> None:
    assert interval([0.25]).half_width is None
    assert interval([0.25]).text() == "25.00"
