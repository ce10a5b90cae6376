"""Known colors through targets and back, and what the scores count."""

import numpy as np
import pytest
import torch

from sbformat.colorimetry import lab_from_rgb
from sbformat.manifest import Manifest, open_manifest
from sbformat.schema import Colorspace, TargetSpec, fixed_range
from sbprep.convert import convert
from sbtrain.batch import Batch
from sbtrain.inputs import Inputs
from sbtrain.pictures.decoding import (
    color_difference,
    rgb_from_values,
    unit_centers,
    values_from_inputs,
    values_from_logits,
)

#: Sixteen colors far apart, of which none stays itself where a and b, or G and B, are swapped.
COLORS = np.array(
    [
        (200, 40, 30), (30, 160, 60), (40, 60, 200), (220, 200, 40), (30, 170, 180), (190, 40, 170), (240, 130, 20), (90, 40, 150),
        (10, 90, 20), (120, 70, 30), (250, 180, 190), (150, 220, 250), (180, 250, 150), (20, 30, 90), (110, 10, 30), (230, 230, 150),
    ], np.uint8,
)  # fmt: skip


def painted(side: int = 16) -> np.ndarray:
    """One image of 4 x 4 squares, each of one color: uint8 (1, side, side, 3)."""
    square = side // 4
    return COLORS.reshape(1, 4, 4, 3).repeat(square, axis=1).repeat(square, axis=2)


def certain(classes: np.ndarray, count: int) -> torch.Tensor:
    """Logits of a network that is sure of `classes` (N, t, t): (N, count, t, t)."""
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(classes.astype(np.int64)), count)
    return 100.0 * one_hot.permute(0, 3, 1, 2).float()


@pytest.mark.parametrize("decode", ["argmax", "expectation"])
@pytest.mark.parametrize("space", ["rgb", "lab", "rescaled_lab"])
def test_known_colors_come_back_through_targets_and_decoder(space: Colorspace, decode: str) -> None:
    """A network that is sure of the right bins gives the colors back to within half a bin: no channel is swapped."""
    target = TargetSpec(size=4, single=200, dual=100)
    block = convert(painted(), space, target)
    span = block.target_range if block.target_range is not None else fixed_range(space)
    single = certain(block.target_single, target.single_classes)
    dual = certain(block.target_dual, target.dual_classes)

    values = values_from_logits(single, dual, span, target, decode)

    found = rgb_from_values(values, space).reshape(-1, 3).astype(int)
    error = np.abs(lab_from_rgb(found) - lab_from_rgb(COLORS)).max()
    assert error < 2.5
    swapped = rgb_from_values(values[:, [0, 2, 1]], space).reshape(-1, 3)
    assert np.abs(lab_from_rgb(swapped) - lab_from_rgb(COLORS)).max(axis=1).min() > 4 * error


def test_the_original_papers_bins_come_back_to_their_grid_points() -> None:
    target = TargetSpec(size=4, bins="zhang")
    block = convert(painted(), "lab", target)

    values = values_from_logits(
        certain(block.target_single, 50), certain(block.target_dual, 313), fixed_range("lab"), target, "expectation"
    )

    assert np.abs(values - lab_from_rgb(COLORS).T.reshape(1, 3, 4, 4)).max() < 5.01


def test_an_expectation_lies_between_the_bins_by_their_probabilities() -> None:
    target = TargetSpec(size=1, single=2, dual=2)
    single = torch.log(torch.tensor([0.25, 0.75])).view(1, 2, 1, 1)
    dual = torch.log(torch.tensor([0.1, 0.2, 0.3, 0.4])).view(1, 4, 1, 1)  # first · 2 + second

    values = values_from_logits(single, dual, np.array([[0, 4], [0, 4], [0, 4]], np.float32), target, "expectation")

    # Centers are at 1 and 3: the first of the dual channels is in its upper bin with 0.3 + 0.4, the second with 0.2 + 0.4.
    assert values.ravel() == pytest.approx([2.5, 2.4, 2.2])


def test_centers_are_numbered_as_joint_classes_are() -> None:
    single, dual = unit_centers(TargetSpec(single=4, dual=2))

    assert single.tolist() == [0.125, 0.375, 0.625, 0.875]
    assert dual.tolist() == [[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]]


@pytest.mark.parametrize(
    ("space", "kind", "normalize"),
    [
        ("rgb", "stored", "unit"), ("rgb", "stored", "standard"), ("lab", "stored", "unit"), ("lab", "stored", "standard"),
        ("lab", "lab", "unit"), ("rescaled_lab", "stored", "standard"), ("rescaled_lab", "lab", "unit"),
    ],
)  # fmt: skip
def test_what_a_network_sees_decodes_to_the_image(shards: object, space: Colorspace, kind: str, normalize: str) -> None:
    manifest: Manifest = open_manifest(shards, space)  # type: ignore[arg-type]
    block = convert(painted(), space, TargetSpec(size=4))
    fields = {"image": torch.from_numpy(block.image)}
    if block.image_range is not None:
        fields["image_range"] = torch.from_numpy(block.image_range)
    inputs = Inputs(manifest, "unlabeled", kind, normalize)  # type: ignore[arg-type]

    values = values_from_inputs(inputs(Batch(torch.zeros(1), fields)), inputs, manifest, block.image_range)

    assert np.abs(rgb_from_values(values, space).astype(int) - painted()).max() <= 4  # 8-bit Lab


def test_the_color_difference_is_the_distance_in_lab() -> None:
    a = np.array([50, 10, -20], np.float32).reshape(1, 3, 1, 1)
    b = np.array([53, 14, -8], np.float32).reshape(1, 3, 1, 1)

    assert color_difference(a, b, "lab").item() == pytest.approx(13)


def test_the_color_difference_of_rgb_is_taken_in_lab() -> None:
    white, black = (np.full((1, 3, 1, 1), level, np.float32) for level in (255, 0))

    assert color_difference(white, black, "rgb").item() == pytest.approx(100, abs=0.01)
