"""The recipe as a whole: what a shard stores is what the format promises."""

import numpy as np
import pytest

import naive
from sbformat.colorimetry import lab_from_rgb
from sbformat.schema import COLORSPACES, Colorspace, TargetSpec, fixed_range, values_from_bins, values_from_image
from sbprep.convert import CONSTANT_SPAN, convert

TARGET = TargetSpec(size=4)


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


def test_lab_decodes_to_within_half_a_step(rgb: np.ndarray) -> None:
    decoded = values_from_image(convert(rgb, "lab", TARGET).image, "lab")

    error = np.abs(decoded - lab_from_rgb(rgb).transpose(0, 3, 1, 2)).max(axis=(0, 2, 3))
    assert (error <= np.array([0.5 / 2.55, 0.5, 0.5]) + 1e-3).all()


def test_rescaled_lab_decodes_to_within_half_a_step_of_its_own_range(rgb: np.ndarray) -> None:
    block = convert(rgb, "rescaled_lab", TARGET)

    decoded = values_from_image(block.image, "rescaled_lab", block.image_range)
    step = (block.image_range[..., 1] - block.image_range[..., 0]) / 255
    error = np.abs(decoded - lab_from_rgb(rgb).transpose(0, 3, 1, 2)).max(axis=(2, 3))
    assert (error <= 0.5 * step + 2e-3).all()
    assert (block.image.min(axis=(2, 3)) == 0).all()
    assert (block.image.max(axis=(2, 3)) == 255).all()


def test_rescaled_lab_agrees_with_the_plain_stretch(rgb: np.ndarray) -> None:
    stored = convert(rgb[:1], "rescaled_lab", TARGET).image[0]

    lab = [naive.lab_from_rgb(pixel) for row in rgb[0].tolist() for pixel in row]
    expected = np.array([naive.stretch([pixel[c] for pixel in lab]) for c in range(3)]).reshape(3, 16, 16)
    assert np.abs(stored.astype(int) - expected).max() <= 1
    assert (stored == expected).mean() > 0.999


def test_rgb_is_stored_as_it_is(rgb: np.ndarray) -> None:
    assert (convert(rgb, "rgb", TARGET).image == rgb.transpose(0, 3, 1, 2)).all()


@pytest.mark.parametrize("colorspace", COLORSPACES)
def test_decoded_targets_have_every_channel_in_its_place(colorspace: Colorspace, rgb: np.ndarray) -> None:
    target = TargetSpec(size=4, single=100, dual=25)
    block = convert(rgb, colorspace, target)
    value_range = fixed_range(colorspace) if block.target_range is None else block.target_range

    decoded = values_from_bins(block.target_single, block.target_dual, value_range, target)

    pixels = rgb.astype(float) if colorspace == "rgb" else lab_from_rgb(rgb)
    means = np.array([[naive.area_mean(plane.tolist(), 4) for plane in image.transpose(2, 0, 1)] for image in pixels])
    width = (value_range[..., 1] - value_range[..., 0]) / np.array([100, 25, 25])
    assert (np.abs(decoded - means) <= 0.5 * np.broadcast_to(width, (3, 3))[..., None, None] + 1e-3).all()


def test_rescale_ab_leaves_the_bins_of_L_fixed(rgb: np.ndarray) -> None:
    assert (convert(rgb, "rescaled_lab", TARGET).target_range[:, 0] == [0, 100]).all()


def test_rescale_all_spans_the_map_of_L_too(rgb: np.ndarray) -> None:
    block = convert(rgb, "rescaled_lab", TargetSpec(size=4, rescale="all"))

    assert (block.target_single.min(axis=(1, 2)) == 0).all()
    assert (block.target_single.max(axis=(1, 2)) == 99).all()


def test_gray_images_have_constant_chroma_of_zeros() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), 3, axis=3)
    block = convert(ramp, "rescaled_lab", TARGET)

    assert (block.image[0, 1:] == 0).all()
    assert (block.image_range[0, 1:, 0] == block.image_range[0, 1:, 1]).all()
    assert (block.target_dual == 0).all()
    assert block.image[0, 0].max() == 255


def test_one_code_of_one_channel_is_not_constant() -> None:
    for value in (0, 1, 40, 128, 254):
        for channel in range(3):
            gray = np.full((1, 16, 16, 3), value, np.uint8)
            gray[0, 3, 3, channel] += 1
            block = convert(gray, "rescaled_lab", TARGET)

            spans = block.image_range[0, :, 1] - block.image_range[0, :, 0]
            assert (spans[1:] > 2 * CONSTANT_SPAN).all(), (value, channel, spans)


@pytest.mark.parametrize("colorspace", COLORSPACES)
def test_a_flipped_image_gives_flipped_arrays(colorspace: Colorspace, rgb: np.ndarray) -> None:
    block = convert(rgb, colorspace, TARGET)
    flipped = convert(np.ascontiguousarray(rgb[:, :, ::-1]), colorspace, TARGET)

    assert (flipped.image == block.image[..., ::-1]).all()
    assert (flipped.target_single == block.target_single[..., ::-1]).mean() > 0.99


@pytest.mark.parametrize("colorspace", COLORSPACES)
def test_a_block_equals_its_images_one_by_one(colorspace: Colorspace, rgb: np.ndarray) -> None:
    whole = convert(rgb, colorspace, TARGET)
    single = [convert(image[None], colorspace, TARGET) for image in rgb]

    assert (whole.image == np.concatenate([block.image for block in single])).all()
    assert (whole.target_dual == np.concatenate([block.target_dual for block in single])).all()
    assert (whole.sums == sum(block.sums for block in single)).all()


def test_another_shape_or_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match=r"float64 \(1, 8, 8, 3\), expected uint8"):
        convert(np.zeros((1, 8, 8, 3)), "lab", TARGET)
