"""Augmented views: functions of sample, epoch, seed and view alone; recipes; how often each change happens."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sbformat.errors import ConfigError
from sbtrain.augment.views import RECIPES, Augment, ViewSpec, plain_view, recipe

PLAIN = ViewSpec(
    size=16, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grayscale=0.0, mean=(0, 0, 0), std=(1, 1, 1)
)
FULL = (
    ViewSpec(size=16, interpolation="bicubic", blur=0.5, solarize=0.3),
    ViewSpec(size=10, scale=(0.05, 0.4), blur=0.5, kernel="twentieth"),
)


def images(count: int, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def views(x: Tensor, index: Tensor, epoch: int | Tensor = 3, seed: int = 0) -> list[Tensor]:
    return Augment(FULL, seed)(x, index, epoch)  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------------------ whose views


def test_a_sample_has_the_same_bits_in_any_batch() -> None:
    """One batch of 64, batches of 16 and of 7, shuffled, and each sample alone."""
    x, index = images(64), torch.arange(64) * 977 + 12
    whole = views(x, index)

    for size in (16, 7, 1):
        order = torch.randperm(64, generator=torch.Generator().manual_seed(size))
        parts = [views(x[some], index[some]) for some in order.split(size)]
        for number, view in enumerate(whole):
            assert torch.equal(torch.cat([part[number] for part in parts]), view[order])


def test_threads_do_not_change_a_bit() -> None:
    x, index = images(64), torch.arange(64)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append((views(x, index), views(x[:1], index[:1])))
    torch.set_num_threads(before)

    (batch, alone), (batch_of_three, alone_of_three) = found
    assert all(map(torch.equal, batch, batch_of_three))
    assert all(map(torch.equal, alone, alone_of_three))


def test_epoch_as_a_tensor_gives_the_same_views() -> None:
    x, index = images(4), torch.arange(4)

    assert all(map(torch.equal, views(x, index, 3), views(x, index, torch.tensor(3))))


@pytest.mark.parametrize("changed", ["epoch", "seed", "index"])
def test_another_epoch_seed_or_row_is_another_view(changed: str) -> None:
    x, index = images(4), torch.arange(4)
    other = {
        "epoch": lambda: views(x, index, 4),
        "seed": lambda: views(x, index, seed=1),
        "index": lambda: views(x, index + 100),
    }[changed]()

    assert not any((a == b).all() for a, b in zip(views(x, index)[0], other[0], strict=True))


def test_two_views_of_one_kind_differ() -> None:
    first, second = Augment((FULL[0],) * 2, 0)(images(4), torch.arange(4), 0)

    assert not (first == second).flatten(1).all(1).any()


def test_the_module_has_no_state_that_a_checkpoint_would_keep() -> None:
    assert Augment(FULL, 0).state_dict() == {}


# ------------------------------------------------------------------------------------------------------- how often


def share(spec: ViewSpec, changed: Tensor | None = None) -> float:
    """Return the share of 4000 samples that differ from the plain view."""
    x = images(1).expand(4000, -1, -1, -1)
    base = plain_view(x[:1], spec)
    (view,) = Augment((spec,), 0)(x, torch.arange(4000), 0)
    return ((view - base).abs().amax((1, 2, 3)) > 1e-3).float().mean().item()


@pytest.mark.parametrize(
    "spec",
    [
        replace(PLAIN, flip=0.3),
        replace(PLAIN, jitter=0.3),
        replace(PLAIN, grayscale=0.3),
        replace(PLAIN, blur=0.3, sigma=(1.0, 2.0), kernel="pil"),
        replace(PLAIN, solarize=0.3),
    ],
    ids=("flip", "jitter", "grayscale", "blur", "solarize"),
)
def test_a_change_happens_as_often_as_asked(spec: ViewSpec) -> None:
    """0.3 within five standard errors of 4000 draws, 0.036."""
    assert share(spec) == pytest.approx(0.3, abs=0.036)


def test_factors_are_uniform_between_their_bounds() -> None:
    """Of brightness, read off a dark image: quartiles within 0.02 of 0.8, 1.0 and 1.2."""
    dark = torch.full((4000, 3, 4, 4), 100, dtype=torch.uint8)
    spec = replace(PLAIN, size=4, jitter=1.0, contrast=0.0, saturation=0.0, hue=0.0)

    factors = Augment((spec,), 0)(dark, torch.arange(4000), 0)[0][:, 0, 0, 0] * 255 / 100

    assert 0.6 <= factors.min() < 0.605
    assert 1.395 < factors.max() <= 1.4001
    quartiles = torch.quantile(factors, torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quartiles, torch.tensor([0.8, 1.0, 1.2]), atol=0.02, rtol=0)


# ------------------------------------------------------------------------------------------------------- plain view


def test_the_plain_view_is_the_image_normalized() -> None:
    x = images(3)
    spec = replace(PLAIN, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))

    expected = (x / 255 - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)
    torch.testing.assert_close(plain_view(x, spec), expected, atol=2e-6, rtol=0)


# ---------------------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_gives_its_views(name: str) -> None:
    specs = recipe(name, 32)
    found = Augment(specs, 0)(images(2, 32), torch.arange(2), 0)

    assert [tuple(view.shape) for view in found] == [(2, 3, spec.size, spec.size) for spec in specs]
    assert all(view.isfinite().all() for view in found)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("dino_multicrop", [224] * 2 + [96] * 6),
        ("self_classifier_report", [224] * 2 + [96] * 6),
        ("self_classifier_native32", [32] * 2 + [18] * 6),
        ("simsiam_cifar", [32] * 2),
    ],
)
def test_published_sizes(name: str, sizes: list[int]) -> None:
    assert [spec.size for spec in recipe(name)] == sizes


def test_the_report_of_simsiam_blurs_above_32_pixels_only() -> None:
    assert recipe("simsiam_report", 32)[0].blur_probability == 0
    assert (recipe("simsiam_report", 96)[0].blur_probability, recipe("simsiam_report", 96)[0].radius) == (0.5, 4)


# --------------------------------------------------------------------------------------------------------- bad input


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="augmentation 'simclr', expected one of simsiam_imagenet, simsiam_cifar"):
        recipe("simclr")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flip": 1.5}, r"flip 1.5, expected a number from 0 to 1"),
        ({"hue": 0.6}, r"hue 0.6, expected a number from 0 to 0.5"),
        ({"scale": (0.5, 0.2)}, r"scale 0.5, 0.2, expected two numbers above 0, the smaller one first"),
        ({"size": 6, "blur": 0.5}, r"views of 6 pixels, expected more than 6: a blur reaches as far"),
        ({"size": 0}, r"views of 0 pixels, expected 1 or more"),
    ],
)
def test_a_view_that_cannot_be_made_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(PLAIN, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "x", [images(2)[:, :1], images(2).float(), images(2)[..., :8]], ids=("one channel", "floats", "not square")
)
def test_other_than_square_rgb_bytes_are_refused_with_the_remedy(x: Tensor) -> None:
    with pytest.raises(ConfigError, match="sbprep build --colorspace rgb"):
        views(x, torch.arange(2))
