"""SimSiam: its loss by hand, whom a gradient reaches, its layers as published, and the predictor's own learning rate."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from runs import CPU
from sbformat.errors import ConfigError
from sbformat.manifest import Manifest, open_manifest
from sbtrain.build import build_method
from sbtrain.config import PretrainConfig
from sbtrain.data import Batch
from sbtrain.methods.simsiam import SimSiam, build_projector, negative_cosine, spread
from sbtrain.networks import parameter_count
from sbtrain.step import Step

SMALL = {"method": "simsiam", "network": "half:simplenet", "augmentation": "simsiam_cifar", "projector": "report"}


@pytest.fixture
def rgb(shards: Path) -> Manifest:
    return open_manifest(shards, "rgb")


def batch_of(count: int = 8) -> Batch:
    images = torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Batch(torch.arange(count), {"image": images})


def built(manifest: Manifest, **fields: object) -> SimSiam:
    torch.manual_seed(0)
    method = build_method(PretrainConfig(**{**SMALL, **fields}), manifest)  # type: ignore[arg-type]
    assert isinstance(method, SimSiam)
    return method


def test_the_distance_is_minus_1_for_one_direction_and_1_for_opposite_ones() -> None:
    p = torch.tensor([[3.0, 4.0], [0.0, 2.0]])

    assert negative_cosine(p, 7 * p).item() == pytest.approx(-1)
    assert negative_cosine(p, -p).item() == pytest.approx(1)
    assert negative_cosine(p, torch.tensor([[4.0, -3.0], [1.0, 2.0]])).item() == pytest.approx(-1 / math.sqrt(5))


def test_the_spread_is_1_around_the_sphere_and_0_at_a_point() -> None:
    around = torch.randn(4096, 64, generator=torch.Generator().manual_seed(0))

    assert spread(around).item() == pytest.approx(1, abs=0.02)
    assert spread(around[:1].expand(64, 64)).item() == pytest.approx(0, abs=1e-6)


def test_the_loss_is_within_minus_1_and_1_and_the_same_for_views_swapped(rgb: Manifest) -> None:
    method, batch = built(rgb).eval(), batch_of()  # BatchNorm's running statistics: rows do not depend on one another
    x1, x2 = method.inputs(batch)

    losses = []
    for views in ([x1, x2], [x2, x1]):
        method.inputs.forward = lambda _, views=views: views  # type: ignore[method-assign]
        losses.append(method.loss(batch)[0].item())

    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert -1 <= losses[0] <= 1
    z1, z2 = (method.projector(method.backbone(x)) for x in (x1, x2))
    terms = [functional.cosine_similarity(method.predictor(a), b).mean() for a, b in ((z1, z2), (z2, z1))]
    assert losses[0] == pytest.approx(-(terms[0] + terms[1]).item() / 2, abs=1e-6)


def gradient(method: SimSiam, batch: Batch, module: torch.nn.Module) -> Tensor:
    method.zero_grad()
    method.loss(batch)[0].backward()
    return torch.cat([p.grad.flatten().clone() for p in module.parameters() if p.grad is not None])


def test_no_gradient_comes_from_a_target(rgb: Manifest) -> None:
    """With a predictor that gives the same whatever it sees, only targets depend on the backbone."""
    for stop, reached in ((True, False), (False, True)):
        method = built(rgb, stop_gradient=stop)
        torch.nn.init.zeros_(method.predictor[-1].weight)  # type: ignore[arg-type]

        found = gradient(method, batch_of(), method.backbone)

        assert bool((found.abs() > 1e-8).any()) == reached


def test_the_stop_gradient_changes_no_value(rgb: Manifest) -> None:
    batch = batch_of()

    assert built(rgb).loss(batch)[0].equal(built(rgb, stop_gradient=False).loss(batch)[0])


def test_without_the_stop_gradient_the_loss_falls_where_it_means_nothing(rgb: Manifest) -> None:
    """Of noise there is nothing to learn: -0.26 and -0.56 after twelve steps."""
    losses = {}
    for stop in (True, False):
        method = built(rgb, stop_gradient=stop)
        optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
        for _ in range(13):
            optimizer.zero_grad()
            loss, _ = method.loss(batch_of(16))
            loss.backward()
            optimizer.step()
        losses[stop] = loss.item()

    assert losses[False] < losses[True] - 0.15


#: Projector -> on 512 features: its parameters, those of its predictor, the number of projections. Counted by hand.
SIZES = {
    "three-layer": (2 * (512 * 512 + 2 * 512) + 512 * 2048, 2048),
    "two-layer": (512 * 2048 + 2 * 2048 + 2048 * 2048, 2048),
    "report": (512 * 1024 + 2 * 1024 * 1024 + 3 * 1024 + 3 * 2 * 1024, 1024),
}


@pytest.mark.parametrize(("kind", "sizes"), SIZES.items())
def test_projectors_have_the_published_layers(kind: str, sizes: tuple[int, int]) -> None:
    with torch.device("meta"):
        projector, P = build_projector(kind, 512)  # type: ignore[arg-type]

    assert (parameter_count(projector), P) == sizes
    assert isinstance(projector[-1], torch.nn.BatchNorm1d)
    assert projector[-1].affine == (kind == "report")


def test_the_predictor_is_a_bottleneck_of_a_quarter(rgb: Manifest) -> None:
    predictor = built(rgb).predictor

    assert parameter_count(predictor) == 1024 * 256 + 2 * 256 + 256 * 1024 + 1024


@pytest.mark.parametrize("constant", [True, False])
def test_the_predictor_keeps_the_peak_rate_if_asked_to(constant: bool, rgb: Manifest) -> None:
    config = PretrainConfig(**SMALL, constant_predictor_lr=constant, lr=0.05)  # type: ignore[arg-type]
    step = Step(config, built(rgb, constant_predictor_lr=constant), CPU)

    step.set_lr(0.01)

    assert [group["lr"] for group in step.optimizer.param_groups] == ([0.01, 0.05] if constant else [0.01])
    counts = [sum(p.numel() for p in group["params"]) for group in step.optimizer.param_groups]
    assert sum(counts) == parameter_count(step.method)
    assert not constant or counts[1] == parameter_count(built(rgb).predictor)


def test_features_are_of_the_whole_image_and_nothing_random(rgb: Manifest) -> None:
    method, batch = built(rgb).eval(), batch_of()

    assert method.layers() == ["conv1", "conv2", "conv3", "conv4", "projection", "backbone"]
    assert method.features(batch).equal(method.features(Batch(batch.index + 1, batch.fields, 3)))
    assert method.features(batch).shape == (8, 96)
    assert method.features(batch, "projection").shape == (8, 1024)
    assert method.features(batch, "conv4").shape == (8, 96, 8, 8)


def test_views_belong_to_the_sample_and_the_epoch(rgb: Manifest) -> None:
    method, batch = built(rgb), batch_of()
    again = Batch(batch.index, batch.fields, 1)

    assert method.inputs(batch)[0].equal(method.inputs(batch)[0])
    assert not method.inputs(batch)[0].equal(method.inputs(again)[0])
    assert not method.inputs(batch)[0].equal(method.inputs(batch)[1])


def test_another_number_of_views_than_two_is_refused(rgb: Manifest) -> None:
    """Said before a network is refused for the size of local views, 27 pixels here."""
    with pytest.raises(ConfigError, match="8 views, but simsiam compares 2"):
        built(rgb, network="half:simplenet", augmentation="dino_multicrop")


def test_lab_shards_are_refused_with_the_remedy(lab: Manifest) -> None:
    with pytest.raises(ConfigError, match=r"holds lab, .*sbprep build --colorspace rgb"):
        built(lab)


def test_one_image_a_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match="BatchNorm needs 2"):
        PretrainConfig(**SMALL, batch_size=4, accumulate=4)  # type: ignore[arg-type]
