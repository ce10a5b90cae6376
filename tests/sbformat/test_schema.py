"""Schema 1: datasets and dtypes, values to bins and back, stored images to values."""

import numpy as np
import pytest

from sbformat.colorimetry import lab_from_rgb
from sbformat.errors import ConfigError
from sbformat.schema import (
    COLORSPACES,
    LAB_RANGE,
    ZHANG_DUAL_BINS,
    Colorspace,
    DatasetSpec,
    TargetSpec,
    attribute_label,
    bins_from_values,
    class_dtype,
    class_label,
    fixed_range,
    shard_datasets,
    values_from_bins,
    values_from_image,
    zhang_centers,
)

ZHANG = TargetSpec(size=1, bins="zhang")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(8)


def column(values: list[float]) -> np.ndarray:
    """Values as target maps of one cell, the same in every channel: float32 (N, 3, 1, 1)."""
    return np.repeat(np.array(values, np.float32)[:, None, None, None], 3, axis=1)


def ab_map(ab: np.ndarray) -> np.ndarray:
    """(N, 2) a and b -> target maps of one cell, float32 (N, 3, 1, 1)."""
    return np.concatenate([np.zeros((len(ab), 1)), ab], axis=1).astype(np.float32)[..., None, None]


def zhang_class(ab: np.ndarray) -> np.ndarray:
    return bins_from_values(ab_map(ab), fixed_range("lab"), ZHANG)[1].ravel()


# --------------------------------------------------------------------------------------------------- datasets


def test_datasets_come_in_the_order_of_the_file() -> None:
    names = list(shard_datasets("rescaled_lab", 96, TargetSpec(), class_label()))

    assert names == [
        "image",
        "target_single",
        "target_dual",
        "image_range",
        "target_range",
        "label",
        "source_index",
    ]


@pytest.mark.parametrize("colorspace", ["rgb", "lab"])
def test_ranges_are_stored_for_rescaled_lab_alone(colorspace: Colorspace) -> None:
    assert list(shard_datasets(colorspace, 96, TargetSpec())) == [
        "image",
        "target_single",
        "target_dual",
        "source_index",
    ]


def test_rows_have_the_shape_of_images_and_targets() -> None:
    datasets = shard_datasets("rescaled_lab", 20, TargetSpec(size=7), attribute_label(40))

    assert {name: spec.row_shape for name, spec in datasets.items()} == {
        "image": (3, 20, 20),
        "target_single": (7, 7),
        "target_dual": (7, 7),
        "image_range": (3, 2),
        "target_range": (3, 2),
        "label": (40,),
        "source_index": (),
    }


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (DatasetSpec(dtype=np.dtype("u1"), row_shape=(3, 96, 96)), 27_648),
        (DatasetSpec(dtype=np.dtype("<f4"), row_shape=(3, 2)), 24),
        (DatasetSpec(dtype=np.dtype("<i8"), row_shape=()), 8),
    ],
)
def test_a_row_has_the_bytes_of_its_numbers(spec: DatasetSpec, expected: int) -> None:
    assert spec.row_bytes == expected


@pytest.mark.parametrize(("classes", "dtype"), [(2, "u1"), (256, "u1"), (257, "<u2"), (65_536, "<u2")])
def test_classes_take_two_bytes_from_257_on(classes: int, dtype: str) -> None:
    assert class_dtype(classes) == np.dtype(dtype)


@pytest.mark.parametrize(
    ("target", "single", "dual"),
    [
        (TargetSpec(single=256, dual=16), "u1", "u1"),
        (TargetSpec(single=257, dual=17), "<u2", "<u2"),
        (TargetSpec(single=65_536, dual=256), "<u2", "<u2"),
        (TargetSpec(bins="zhang"), "u1", "<u2"),
    ],
)
def test_each_target_has_the_dtype_of_its_classes(target: TargetSpec, single: str, dual: str) -> None:
    datasets = shard_datasets("lab", 96, target)

    assert (datasets["target_single"].dtype, datasets["target_dual"].dtype) == (np.dtype(single), np.dtype(dual))


# ----------------------------------------------------------------------------------------------- uniform bins


@pytest.mark.parametrize("colorspace", COLORSPACES)
@pytest.mark.parametrize("target", [TargetSpec(size=3), TargetSpec(size=3, single=200, dual=25)])
def test_a_bin_stands_for_its_values_to_within_half_a_bin(
    colorspace: Colorspace, target: TargetSpec, rng: np.random.Generator
) -> None:
    span = fixed_range(colorspace)
    lo, width = span[:, 0, None, None], (span[:, 1] - span[:, 0])[:, None, None]
    values = (lo + width * rng.random((50, 3, 3, 3))).astype(np.float32)

    decoded = values_from_bins(*bins_from_values(values, span, target), span, target)

    half = width / np.array([target.single, target.dual, target.dual])[:, None, None] / 2
    assert decoded.dtype == np.float32
    assert (np.abs(decoded - values) <= half * (1 + 1e-4)).all()


def test_bins_follow_the_range_of_each_image(rng: np.random.Generator) -> None:
    target = TargetSpec(size=4, single=20, dual=6)
    values = rng.normal(0, 30, (5, 3, 4, 4)).astype(np.float32)
    span = np.stack([values.min(axis=(2, 3)), values.max(axis=(2, 3))], axis=-1)

    single, dual = bins_from_values(values, span, target)

    decoded = values_from_bins(single, dual, span, target)
    half = (span[..., 1] - span[..., 0]) / [20, 6, 6] / 2
    assert (np.abs(decoded - values) <= half[..., None, None] * (1 + 1e-4)).all()
    for image in range(5):
        alone = bins_from_values(values[image : image + 1], span[image], target)
        assert (alone[0][0] == single[image]).all()
        assert (alone[1][0] == dual[image]).all()


@pytest.mark.parametrize("n", [2, 10, 100, 256])
def test_the_center_of_every_bin_lies_in_it(n: int) -> None:
    target = TargetSpec(size=1, single=n, dual=n)
    bins = np.arange(n, dtype=np.uint16).reshape(-1, 1, 1)
    centers = values_from_bins(bins, bins * n + bins[::-1], fixed_range("lab"), target)

    single, dual = bins_from_values(centers, fixed_range("lab"), target)

    assert (single == bins).all()
    assert (dual == bins * n + bins[::-1]).all()


def test_a_value_on_a_border_belongs_to_the_upper_bin_and_the_highest_to_the_last() -> None:
    span = np.array([[0, 8]] * 3, np.float32)
    single, _ = bins_from_values(column([0, 1.9999, 2, 6, 7.9999, 8]), span, TargetSpec(size=1, single=4))

    assert single.ravel().tolist() == [0, 0, 1, 3, 3, 3]


def test_a_value_outside_the_range_goes_to_the_bin_at_that_end() -> None:
    span = np.array([[0, 8]] * 3, np.float32)
    target = TargetSpec(size=1, single=4, dual=4)
    single, dual = bins_from_values(column([-0.01, -1e6, 8.01, 1e6]), span, target)

    assert single.ravel().tolist() == [0, 0, 3, 3]
    assert dual.ravel().tolist() == [0, 0, 15, 15]


def test_a_closed_range_gives_bin_0_and_decodes_to_itself() -> None:
    span = np.array([[[5, 5], [-3, -3], [0, 0]]], np.float32)
    target = TargetSpec(size=1)

    single, dual = bins_from_values(column([7]), span, target)

    assert (single.item(), dual.item()) == (0, 0)
    assert values_from_bins(single, dual, span, target).ravel().tolist() == [5, -3, 0]


def test_the_joint_class_counts_the_third_channel_fastest() -> None:
    values = np.array([[50, 2.5, 4.5]], np.float32)[..., None, None]
    span = np.array([[0, 100], [0, 7], [0, 7]], np.float32)

    assert bins_from_values(values, span, TargetSpec(size=1, dual=7))[1].item() == 2 * 7 + 4


def test_the_last_of_the_most_classes_fits_its_dtype() -> None:
    target = TargetSpec(size=1, single=65_536, dual=256)
    single, dual = bins_from_values(column([255]), fixed_range("rgb"), target)

    assert (single.item(), dual.item()) == (65_535, 65_535)


def test_rgb_bins_span_0_to_255_and_lab_bins_the_gamut() -> None:
    assert fixed_range("rgb").tolist() == [[0, 255]] * 3
    assert (fixed_range("lab") == np.array(LAB_RANGE, np.float32)).all()
    assert (fixed_range("rescaled_lab") == fixed_range("lab")).all()


# ------------------------------------------------------------------------------------------------- zhang bins


def test_there_are_313_centers_on_a_grid_of_step_10_in_order() -> None:
    centers = zhang_centers()

    assert centers.shape == (ZHANG_DUAL_BINS, 2)
    assert (centers % 10 == 0).all()
    assert centers.tolist() == sorted(centers.tolist())
    assert len({tuple(center) for center in centers.tolist()}) == 313


def test_the_centers_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        zhang_centers()[0] = 0


def test_a_center_is_of_its_own_class() -> None:
    assert zhang_class(zhang_centers()).tolist() == list(range(313))


def test_ab_beside_a_center_goes_to_the_nearest(rng: np.random.Generator) -> None:
    ab = rng.uniform(-115, 115, (4000, 2)).astype(np.float32)
    distance = np.abs(ab[:, None] - zhang_centers())
    listed = (distance.max(axis=-1) < 5).any(axis=1)

    nearest = (distance**2).sum(axis=-1).argmin(axis=1)
    assert listed.sum() > 1000
    assert (zhang_class(ab)[listed] == nearest[listed]).all()


def test_ab_off_the_list_goes_to_the_center_nearest_to_its_grid_point(rng: np.random.Generator) -> None:
    ab = rng.uniform(-125, 125, (4000, 2)).astype(np.float32)
    point = np.clip(np.floor(ab / 10 + 0.5), -12, 12) * 10

    squared = ((point[:, None] - zhang_centers()) ** 2).sum(axis=-1)
    off = squared.min(axis=1) > 0
    assert off.sum() > 1000
    assert (zhang_class(ab)[off] == squared.argmin(axis=1)[off]).all()


def test_halfway_between_two_centers_belongs_to_the_upper() -> None:
    assert zhang_centers()[zhang_class(np.array([[5, -5], [-15, 14.999]]))].tolist() == [[10, 0], [-10, 10]]


def test_colors_reach_261_of_the_313_classes() -> None:
    """Every fourth code of each channel, and the highest; all 2**24 colors reach no more (docs/color.md)."""
    codes = np.array([*range(0, 256, 4), 255], np.uint8)
    cube = np.stack(np.meshgrid(codes, codes, codes, indexing="ij"), axis=-1)

    assert len(np.unique(zhang_class(lab_from_rgb(cube).reshape(-1, 3)[:, 1:]))) == 261


def test_zhang_bins_of_lightness_are_two_wide() -> None:
    lightness = np.array([0, 1.99, 2, 50, 98, 100], np.float32)
    values = np.zeros((6, 3, 1, 1), np.float32)
    values[:, 0, 0, 0] = lightness

    assert bins_from_values(values, fixed_range("lab"), ZHANG)[0].ravel().tolist() == [0, 0, 1, 25, 49, 49]


def test_a_zhang_class_stands_for_its_center() -> None:
    single, dual = np.array([[[25]]], np.uint8), np.array([[[312]]], np.uint16)

    assert values_from_bins(single, dual, fixed_range("lab"), ZHANG).ravel().tolist() == [51, 100, 0]


# ------------------------------------------------------------------------------------------------ stored images


def levels(r: int, g: int, b: int) -> np.ndarray:
    return np.array([r, g, b], np.uint8).reshape(1, 3, 1, 1)


def test_rgb_decodes_to_itself() -> None:
    assert values_from_image(levels(0, 128, 255), "rgb").ravel().tolist() == [0, 128, 255]


def test_lab_decodes_by_scale_and_offset() -> None:
    assert values_from_image(levels(255, 128, 20), "lab").ravel().tolist() == pytest.approx([100, 0, -108])


def test_rescaled_lab_decodes_by_the_range_of_its_image() -> None:
    span = np.array([[[10, 61], [-5, 5], [7, 7]]], np.float32)

    assert values_from_image(levels(255, 0, 0), "rescaled_lab", span).ravel().tolist() == pytest.approx([61, -5, 7])
    assert values_from_image(levels(5, 51, 0), "rescaled_lab", span).ravel().tolist() == pytest.approx([11, -3, 7])


def test_rescaled_lab_without_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="image_range"):
        values_from_image(levels(0, 0, 0), "rescaled_lab")


@pytest.mark.parametrize("colorspace", COLORSPACES)
def test_values_are_float32(colorspace: Colorspace) -> None:
    span = np.zeros((1, 3, 2), np.float32)

    assert values_from_image(levels(1, 2, 3), colorspace, span).dtype == np.float32


# -------------------------------------------------------------------------------------------------- TargetSpec


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "target size 0, expected 1 to 4096 cells"),
        ({"size": 4097}, "target size 4097"),
        ({"bins": "equal"}, "bins 'equal', expected one of uniform, zhang"),
        ({"rescale": "L"}, "rescale 'L', expected one of ab, all"),
        ({"single": 1}, "1 bins of the single channel, expected 2 to 65536"),
        ({"single": 65_537}, "65537 bins of the single channel"),
        ({"dual": 1}, "1 bins of each dual channel, expected 2 to 256"),
        ({"dual": 257}, "257 bins of each dual channel"),
        ({"bins": "zhang", "single": 50}, "bins zhang are fixed"),
        ({"bins": "zhang", "dual": 20}, "bins zhang are fixed"),
    ],
)
def test_a_target_that_cannot_be_says_why(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TargetSpec(**options)


@pytest.mark.parametrize("colorspace", ["rgb", "rescaled_lab"])
def test_zhang_bins_mean_nothing_outside_of_lab(colorspace: Colorspace) -> None:
    with pytest.raises(ConfigError, match=f"not on {colorspace}. Use --colorspace lab"):
        TargetSpec(bins="zhang").check_colorspace(colorspace)

    TargetSpec(bins="zhang").check_colorspace("lab")


@pytest.mark.parametrize("target", [TargetSpec(), TargetSpec(size=25, single=200, dual=16, rescale="all"), ZHANG])
def test_a_target_survives_json(target: TargetSpec) -> None:
    assert TargetSpec.from_json(target.to_json()) == target


def test_a_target_with_an_unknown_member_is_refused() -> None:
    with pytest.raises(TypeError, match="stride"):
        TargetSpec.from_json({**TargetSpec().to_json(), "stride": 2})


def test_a_target_without_a_member_is_refused() -> None:
    with pytest.raises(KeyError, match="size"):
        TargetSpec.from_json({name: value for name, value in TargetSpec().to_json().items() if name != "size"})
