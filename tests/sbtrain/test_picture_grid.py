"""Pictures side by side."""

import numpy as np

from sbtrain.pictures.picture_grid import GAP, HEADING, enlarged, grid


def colors(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(side).integers(0, 200, (count, side, side, 3), np.uint8)


def test_pictures_of_other_sizes_are_shown_at_one_size_with_equal_pixels() -> None:
    images, cells = colors(2, 96), colors(2, 12)

    sheet = grid({"original": images, "target": cells})

    step = 192 + GAP
    assert sheet.shape == (HEADING + 2 * step, 2 * step + GAP, 3)
    y = HEADING + step
    assert (sheet[y : y + 192 : 2, GAP : GAP + 192 : 2] == images[1]).all()
    assert (sheet[y : y + 192 : 16, GAP + step : GAP + step + 192 : 16] == cells[1]).all()


def test_gaps_between_pictures_are_white() -> None:
    sheet = grid({"a": colors(2, 48), "b": colors(2, 48)})

    assert (sheet[HEADING:, :GAP] == 255).all()
    assert (sheet[HEADING:, GAP + 144 : 2 * GAP + 144] == 255).all()
    assert (sheet[HEADING + 144 : HEADING + 144 + GAP] == 255).all()


def test_a_heading_stands_over_each_column() -> None:
    sheet = grid({"first": colors(1, 48), "": colors(1, 48)})

    assert (sheet[:HEADING, : 144 + GAP] < 128).any()
    assert (sheet[:HEADING, 144 + 2 * GAP :] == 255).all()


def test_sizes_without_a_near_common_multiple_are_shown_too() -> None:
    sheet = grid({"original": colors(1, 96), "target": colors(1, 25)})

    assert sheet.shape[0] == HEADING + 192 + GAP


def test_enlarged_pixels_are_repeated_not_blended() -> None:
    picture = colors(1, 5)[0]

    large = enlarged(picture, 15)

    assert (large[1::3, 1::3] == picture).all()
    assert (large[0::3, 2::3] == picture).all()
