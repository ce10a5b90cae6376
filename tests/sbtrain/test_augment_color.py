"""Color operations of the augmentation, beside torchvision's on the same parameters."""

from itertools import permutations

import pytest
import torch
from torch import Tensor

from sbtrain.augment.color import (
    JITTER_DRAWS,
    ORDERS,
    drawn_jitter,
    grayed,
    jittered,
    shift_hue,
    slot_table,
    solarized,
)
from sbtrain.augment.recipes import ViewSpec

transforms = pytest.importorskip("torchvision.transforms.functional")
CLOSE = {"atol": 3e-6, "rtol": 0}  # of 1: a thousandth of a stored level


def images(count: int = 8, size: int = 9) -> Tensor:
    """Random pixels, then gray, black, white, primaries and pairs of equal channels: every case of HSV."""
    x = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    special = torch.tensor(
        [[0.5, 0.5, 0.5], [0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0.4, 0.4], [0.7, 0.7, 0.1]]
    )
    x[:, :, 0, : len(special)] = special.t()
    return x


def planes(x: Tensor) -> Tensor:
    return x.transpose(0, 1).contiguous()


def draws(order: tuple[int, ...], brightness: float, contrast: float, saturation: float, hue: float) -> Tensor:
    """Numbers in (0, 1) that give these changes, of a jitter with widths of 0.5, in this order."""
    factors = [(value - 0.5) for value in (brightness, contrast, saturation)]
    return torch.tensor([0.1, *factors, hue + 0.5, (ORDERS.index(order) + 0.5) / len(ORDERS)])


SPEC = ViewSpec(size=9, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5)
OURS = {0: (1.3, 1.0, 1.0, 0.0), 1: (1.0, 0.7, 1.0, 0.0), 2: (1.0, 1.0, 1.4, 0.0), 3: (1.0, 1.0, 1.0, -0.2)}


def torchvision_jitter(x: Tensor, order: tuple[int, ...], values: tuple[float, float, float, float]) -> Tensor:
    functions = (
        transforms.adjust_brightness,
        transforms.adjust_contrast,
        transforms.adjust_saturation,
        transforms.adjust_hue,
    )
    for operation in order:
        x = torch.stack([functions[operation](image, values[operation]) for image in x])
    return x


def our_jitter(x: Tensor, u: Tensor) -> Tensor:
    y = planes(x)
    jittered(y, drawn_jitter(u, SPEC, slot_table()), None, SPEC.hue)
    return planes(y)


@pytest.mark.parametrize("operation", OURS, ids=("brightness", "contrast", "saturation", "hue"))
def test_each_change_of_color_agrees_with_torchvision(operation: int) -> None:
    x, values = images(), OURS[operation]

    y = our_jitter(x, draws((0, 1, 2, 3), *values).repeat(8, 1))

    torch.testing.assert_close(y, torchvision_jitter(x, (operation,), values), **CLOSE)


def test_all_four_in_every_order_agree_with_torchvision() -> None:
    """Clamping between them makes the orders differ; hue is at each of its places."""
    x, values = images(24), (1.4, 1.35, 1.3, 0.08)

    y = our_jitter(x, torch.stack([draws(order, *values) for order in permutations(range(4))]))

    expected = torch.cat([torchvision_jitter(x[k : k + 1], order, values) for k, order in enumerate(ORDERS)])
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("turn", [-0.5, -0.3, -0.1, 0.0, 0.1, 0.3, 0.5])
def test_hue_agrees_with_torchvision_all_around(turn: float) -> None:
    x = images()
    y = planes(x)

    shift_hue(y, torch.full((8, 1, 1), 6 * turn), wraps=True)

    expected = torch.stack([transforms.adjust_hue(image, turn) for image in x])
    torch.testing.assert_close(planes(y), expected, **CLOSE)


def test_an_image_without_jitter_keeps_its_bits() -> None:
    x = images()
    u = draws((3, 1, 0, 2), 1.2, 0.8, 1.3, 0.2).repeat(8, 1)
    u[::2, 0] = 0.9  # not below the probability of 0.8
    jitter = drawn_jitter(u, SPEC, slot_table())
    order = torch.argsort(jitter.group, stable=True)
    y = planes(x[order])

    jittered(y, jitter[order], torch.bincount(jitter.group, minlength=5).cumsum(0).tolist(), SPEC.hue)

    assert torch.equal(planes(y)[4:], x[::2])
    assert not torch.equal(planes(y)[:4], x[1::2])


def test_slots_over_those_that_use_them_and_over_all_give_the_same_bits() -> None:
    """The way of a CPU and the way of a GPU; hue differs by rounding where nothing is to change."""
    x = images(64)
    u = torch.rand(64, JITTER_DRAWS, generator=torch.Generator().manual_seed(1))
    jitter = drawn_jitter(u, SPEC, slot_table())
    order = torch.argsort(jitter.group, stable=True)
    some, every = planes(x[order]), planes(x[order])
    ends = torch.bincount(jitter.group, minlength=5).cumsum(0).tolist()

    jittered(some, jitter[order], ends, SPEC.hue)
    jittered(every, jitter[order], None, SPEC.hue)

    assert torch.equal(some[:, : ends[3]], every[:, : ends[3]])
    torch.testing.assert_close(some, every, **CLOSE)


def test_grayscale_agrees_with_torchvision() -> None:
    x = images()
    y = planes(x)

    grayed(y, torch.tensor([1.0, 0] * 4))

    torch.testing.assert_close(planes(y)[::2], transforms.rgb_to_grayscale(x[::2], 3), **CLOSE)
    assert torch.equal(planes(y)[1::2], x[1::2])


def test_solarize_inverts_levels_of_128_and_more_as_pil_does() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    x = levels.float() / 255

    solarized(x, torch.tensor([1.0, 0]))

    assert torch.equal((x[0] * 255).round().to(torch.uint8), transforms.solarize(levels[0], 128))
    assert torch.equal(x[1], levels[1].float() / 255)
