"""Crops, resampling and blur of the augmentation, beside torchvision's on the same parameters."""

import pytest
import torch
from torch import Tensor

from sbtrain.augment.crop import CROP_DRAWS, Boxes, Taps, blurring, crop_boxes, resampled, resampling, turned
from sbtrain.augment.recipes import Interpolation
from sbtrain.augment.views import ViewSpec, plain_view

transforms = pytest.importorskip("torchvision.transforms")
functional = pytest.importorskip("torchvision.transforms.functional")
BOXES = [(0, 0, 24, 24), (3, 5, 9, 12), (15, 1, 8, 20), (23, 23, 1, 1), (2, 0, 22, 7)]
MODES = {"bilinear": transforms.InterpolationMode.BILINEAR, "bicubic": transforms.InterpolationMode.BICUBIC}


def images(count: int = len(BOXES), size: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def cropped(x: Tensor, boxes: list[tuple[int, ...]], view: int, mode: Interpolation, mirrored: float = 0.0) -> Tensor:
    top, left, height, width = torch.tensor(boxes, dtype=torch.float32).unbind(1)
    rows = resampling(top, height, None, x.shape[-1], view, mode)
    columns = resampling(left, width, torch.full_like(top, mirrored), x.shape[-1], view, mode)
    return upright(resampled(x, torch.arange(len(x)), rows, columns), None)


def upright(planes: Tensor, blur: Taps | None) -> Tensor:
    out = planes.new_empty(planes.transpose(0, 1).shape)
    turned(planes, torch.arange(len(out)), blur, out)
    return out


# ------------------------------------------------------------------------------------------------------ resampling


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("view", [5, 8, 24, 40])
def test_a_crop_agrees_with_torchvision(view: int, mode: Interpolation) -> None:
    """Shrunk (antialiased) and enlarged, boxes at the borders and of one pixel."""
    x = images()

    y = cropped(x, BOXES, view, mode)

    expected = torch.stack(
        [
            functional.resized_crop(image.float() / 255, *box, [view, view], MODES[mode], antialias=True)
            for image, box in zip(x, BOXES, strict=True)
        ]
    )
    torch.testing.assert_close(y, expected.clamp(0, 1), atol=5e-6, rtol=0)


def test_a_crop_agrees_with_pil_within_its_rounding() -> None:
    """PIL rounds to levels after each direction: a level and a half. A cubic that overshoots it also clips there."""
    x = images()

    y = cropped(x, BOXES, 16, "bilinear")

    expected = [
        functional.pil_to_tensor(
            functional.resized_crop(functional.to_pil_image(image), *box, [16, 16], MODES["bilinear"])
        )
        for image, box in zip(x, BOXES, strict=True)
    ]
    torch.testing.assert_close(y * 255, torch.stack(expected).float(), atol=1.5, rtol=0)


def test_a_whole_image_at_its_own_size_is_the_image() -> None:
    x = images()

    assert torch.equal((cropped(x, [(0, 0, 24, 24)] * 5, 24, "bicubic") * 255).round().to(torch.uint8), x)


def test_a_mirrored_view_is_the_mirror_of_the_view() -> None:
    x = images()

    mirrored = cropped(x, BOXES, 11, "bicubic", mirrored=1.0)

    torch.testing.assert_close(mirrored, cropped(x, BOXES, 11, "bicubic").flip(3), atol=2e-6, rtol=0)


def test_a_part_of_the_plain_view_is_torchvisions_resize_and_center_crop() -> None:
    x = images(3, 20)

    found = plain_view(x, ViewSpec(size=28, mean=(0, 0, 0), std=(1, 1, 1)), part=28 / 32)

    expected = functional.center_crop(functional.resize(x / 255, [32, 32], antialias=True), [28, 28])
    torch.testing.assert_close(found, expected, atol=5e-6, rtol=0)


# ------------------------------------------------------------------------------------------------------------- blur


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_a_blur_agrees_with_torchvision(sigma: float) -> None:
    x = torch.rand(4, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    applied = torch.tensor([1.0, 0, 1, 0])

    y = upright(x.permute(1, 0, 3, 2).contiguous(), blurring(torch.full((4,), sigma), applied, size=20, radius=4))

    torch.testing.assert_close(y[::2], functional.gaussian_blur(x[::2], [9, 9], [sigma, sigma]), atol=2e-6, rtol=0)
    assert torch.equal(y[1::2], x[1::2])


# ------------------------------------------------------------------------------------------------------------ boxes


def drawn(count: int, scale: tuple[float, float], ratio: tuple[float, float], size: int = 32) -> Boxes:
    u = torch.rand(count, CROP_DRAWS, generator=torch.Generator().manual_seed(0))
    return crop_boxes(u, size, scale, ratio)


@pytest.mark.parametrize(
    ("scale", "ratio"),
    [((0.2, 1.0), (3 / 4, 4 / 3)), ((0.05, 0.4), (3 / 4, 4 / 3)), ((0.8, 1.2), (0.5, 2.0)), ((0.3, 0.9), (1.5, 2.0))],
)
def test_boxes_are_distributed_as_torchvision_draws_them(
    scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    """Means of place and sides within five standard errors, and the shares of each side within 0.04 everywhere."""
    torch.manual_seed(0)
    image = torch.empty(3, 32, 32)
    get = transforms.RandomResizedCrop.get_params
    theirs = torch.tensor([get(image, scale, ratio) for _ in range(4000)], dtype=torch.float32)

    box = drawn(20_000, scale, ratio)

    ours = torch.stack([box.top, box.left, box.height, box.width], 1)
    error = (theirs.var(0) / len(theirs) + ours.var(0) / len(ours)).sqrt()
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 5 * error).all()
    levels = torch.arange(33)
    gap = [
        (a[:, None] <= levels).float().mean(0) - (b[:, None] <= levels).float().mean(0)
        for a, b in zip(ours.t(), theirs.t(), strict=True)
    ]
    assert torch.stack(gap).abs().max() < 0.04


def test_boxes_lie_within_the_image() -> None:
    box = drawn(50_000, (0.05, 1.0), (0.5, 2.0))

    assert min(box.top.min(), box.left.min()) == 0
    assert min(box.height.min(), box.width.min()) >= 1
    assert max((box.top + box.height).max(), (box.left + box.width).max()) == 32


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [((3 / 4, 4 / 3), (0, 0, 32, 32)), ((2.0, 2.0), (8, 0, 16, 32)), ((0.5, 0.5), (0, 8, 32, 16))],
)
def test_where_no_try_fits_the_largest_central_box_is_taken(
    ratio: tuple[float, float], expected: tuple[int, ...]
) -> None:
    box = drawn(3, (3.0, 4.0), ratio)

    assert [value[0].item() for value in (box.top, box.left, box.height, box.width)] == list(expected)
