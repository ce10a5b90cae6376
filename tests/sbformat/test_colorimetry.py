"""The color convention against other people's numbers, and the ranges that the schema draws from it."""

import numpy as np
import pytest
from skimage.color import lab2rgb, rgb2lab

from sbformat.colorimetry import (
    CONVENTION,
    D65_WHITE,
    XYZ_FROM_RGB,
    lab_from_rgb,
    linear_from_lab,
    rgb_from_lab,
    srgb_from_lab,
)
from sbformat.schema import LAB_RANGE

#: CIE-Lab of sRGB primaries under D65 by the unrounded matrix, as published color calculators give them.
PUBLISHED = {
    (255, 0, 0): (53.2408, 80.0925, 67.2032),
    (0, 255, 0): (87.7347, -86.1827, 83.1793),
    (0, 0, 255): (32.2970, 79.1875, -107.8602),
    (0, 255, 255): (91.1132, -48.0875, -14.1312),
    (255, 0, 255): (60.3242, 98.2343, -60.8249),
    (255, 255, 0): (97.1393, -21.5537, 94.4780),
    (255, 255, 255): (100.0, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
}


def cube(step: int) -> np.ndarray:
    codes = np.arange(0, 256, step, dtype=np.uint8)
    return np.stack(np.meshgrid(codes, codes, codes, indexing="ij"), axis=-1)


def faces() -> np.ndarray:
    """All colors with a channel at 0 or 255: the extremes of Lab are among them."""
    u, v = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    sides = [
        np.roll(np.stack([np.full_like(u, end), u, v], axis=-1), axis, -1) for end in (0, 255) for axis in range(3)
    ]
    return np.stack(sides)


@pytest.mark.parametrize("rgb", PUBLISHED)
def test_primaries_agree_with_published_values(rgb: tuple[int, int, int]) -> None:
    """To 0.005: what our six-digit matrix differs from the unrounded one (docs/color.md)."""
    assert np.abs(lab_from_rgb(np.array(rgb, np.uint8)) - PUBLISHED[rgb]).max() < 0.005


def test_lab_agrees_with_scikit_image() -> None:
    """To 2e-4: scikit-image rounds the two constants of CIE."""
    colors = cube(5)

    assert np.abs(lab_from_rgb(colors) - rgb2lab(colors)).max() < 2e-4


def test_grays_are_neutral_to_five_thousandths() -> None:
    gray = lab_from_rgb(np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1))

    assert gray[:, 1].min() == pytest.approx(-0.0025, abs=5e-5)
    assert gray[:, 2].max() == pytest.approx(0.0047, abs=5e-5)
    assert (gray[:, 1] <= 0).all()
    assert (gray[:, 2] >= 0).all()
    assert (np.diff(gray[:, 0]) > 0).all()


def test_white_has_lightness_100_and_black_0() -> None:
    assert lab_from_rgb(np.array([[255, 255, 255], [0, 0, 0]], np.uint8))[:, 0] == pytest.approx([100, 0], abs=1e-12)


def test_colors_come_back_from_lab_exactly() -> None:
    colors = cube(5)

    assert (rgb_from_lab(lab_from_rgb(colors)) == colors).all()


def test_colors_between_two_codes_are_rounded_to_the_nearer() -> None:
    between = lab_from_rgb(np.array([[99.6, 100.4, 100.6], [0.4, 254.6, 0.6]]))

    assert rgb_from_lab(between).tolist() == [[100, 100, 101], [0, 255, 1]]


def test_lab_outside_the_gamut_is_clipped() -> None:
    beyond = np.array([[150, 0, 0], [-20, 0, 0], [50, 300, 0]], np.float64)

    lighter_than_white, darker_than_black, redder_than_red = rgb_from_lab(beyond).tolist()
    assert lighter_than_white == [255, 255, 255]
    assert darker_than_black == [0, 0, 0]
    assert redder_than_red[:2] == [255, 0]


def test_extremes_of_the_gamut_are_the_ranges_of_the_schema() -> None:
    """To 3e-4; a color beyond an end belongs to the last bin there."""
    lab = lab_from_rgb(faces()).reshape(-1, 3)

    assert np.abs(np.stack([lab.min(axis=0), lab.max(axis=0)], axis=-1) - LAB_RANGE).max() < 3e-4


def test_no_color_inside_the_cube_exceeds_its_faces() -> None:
    on_faces, inside = lab_from_rgb(faces()).reshape(-1, 3), lab_from_rgb(cube(5)).reshape(-1, 3)

    assert (inside.min(axis=0) >= on_faces.min(axis=0)).all()
    assert (inside.max(axis=0) <= on_faces.max(axis=0)).all()


def test_any_leading_shape_is_converted() -> None:
    colors = cube(51)

    assert lab_from_rgb(colors).shape == (6, 6, 6, 3)
    assert (lab_from_rgb(colors)[1, 2, 3] == lab_from_rgb(colors[1, 2, 3])).all()


def test_the_convention_of_the_manifest_is_the_one_computed_with() -> None:
    assert CONVENTION["xyz_from_linear_rgb"] == XYZ_FROM_RGB.tolist()
    assert CONVENTION["white"] == D65_WHITE.tolist()


def test_srgb_of_lab_agrees_with_scikit_image() -> None:
    """To 1e-5: scikit-image rounds the two constants of CIE."""
    lab = lab_from_rgb(cube(15))

    assert np.abs(srgb_from_lab(lab) - lab2rgb(lab)).max() < 1e-5
    assert np.abs(srgb_from_lab(lab) * 255 - cube(15)).max() < 1e-6


def test_colors_of_the_gamut_have_linear_values_between_0_and_1_and_others_have_not() -> None:
    inside, beyond = linear_from_lab(lab_from_rgb(cube(51))), linear_from_lab(np.array([[50.0, 120.0, 0.0]]))

    assert inside.min() > -1e-9
    assert inside.max() < 1 + 1e-9
    assert beyond.min() < 0
