"""Split-brain and denoising: their losses at chance, whom a gradient reaches, and that they learn."""

import math

import pytest
import torch
from torch import Tensor, nn

from runs import IMAGES, small_parts
from sbformat.errors import ConfigError
from sbformat.manifest import Manifest
from sbtrain.build import build_method, count_flops
from sbtrain.config import PretrainConfig
from sbtrain.corrupt import corrupt
from sbtrain.data import Batch
from sbtrain.flops import flops_per_image
from sbtrain.inputs import Inputs
from sbtrain.keyed import uniform
from sbtrain.methods import Denoising, Method, SplitBrain
from sbtrain.networks import HALVES


def batch_of(manifest: Manifest, count: int = 8, **fields: object) -> tuple[Method, Batch]:
    _, method, loader = small_parts(manifest, batch_size=count, **fields)
    return method, next(loader.batches(0, 1))


def test_equal_logits_give_the_loss_of_chance_in_each_half(lab: Manifest) -> None:
    method, batch = batch_of(lab)
    for half in (method.F1, method.F2):
        torch.nn.init.zeros_(half.logits[0].weight)
        torch.nn.init.zeros_(half.logits[0].bias)

    loss, logs = method.loss(batch)

    assert logs["loss_dual"].item() == pytest.approx(math.log(100), abs=1e-5)
    assert logs["loss_single"].item() == pytest.approx(math.log(100), abs=1e-5)
    assert loss.item() == pytest.approx(2 * math.log(100), abs=1e-5)


def test_fresh_networks_begin_near_chance(lab: Manifest) -> None:
    method, batch = batch_of(lab, 32)

    loss, _ = method.loss(batch)

    assert loss.item() == pytest.approx(2 * math.log(100), rel=0.1)


@pytest.mark.parametrize("part", ["loss_dual", "loss_single"])
def test_a_half_gets_no_gradient_from_the_others_target(lab: Manifest, part: str) -> None:
    """F1 predicts the dual channels; with other single targets its gradient stays the same, bit for bit."""
    method, batch = batch_of(lab)
    other = "target_single" if part == "loss_dual" else "target_dual"
    changed = Batch(batch.index, {**batch.fields, other: (batch[other] + 7) % 100})
    half, rest = (method.F1, method.F2) if part == "loss_dual" else (method.F2, method.F1)

    assert _gradient(method, half, batch).equal(_gradient(method, half, changed))
    assert not _gradient(method, rest, batch).equal(_gradient(method, rest, changed))


def _gradient(method: Method, half: torch.nn.Module, batch: Batch) -> Tensor:
    method.zero_grad()
    method.loss(batch)[0].backward()
    return torch.cat([p.grad.flatten().clone() for p in half.parameters() if p.grad is not None])


@pytest.mark.parametrize(("half", "own"), [("F1", [0]), ("F2", [1, 2])])
def test_a_half_sees_its_own_channels_alone(lab: Manifest, half: str, own: list[int]) -> None:
    method, batch = batch_of(lab)
    image = batch["image"].clone()
    image[:, [c for c in range(3) if c not in own]] = 0

    before = method.features(batch)
    after = method.features(Batch(batch.index, {**batch.fields, "image": image}))

    place = slice(0, 100) if half == "F1" else slice(100, 200)
    assert before[:, place].equal(after[:, place])
    assert not before.equal(after)


@pytest.mark.parametrize(
    "fields",
    [{}, {"loss": "regression"}, {"method": "denoising", "network": "autoencoder"}],
    ids=["classification", "regression", "denoising"],
)
def test_every_method_overfits_one_batch(rescaled: Manifest, fields: dict[str, str]) -> None:
    method, batch = batch_of(rescaled, 4, **fields)
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss, _ = method.loss(batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    bar = {"classification": 0.25, "regression": 0.2, "bce": 0.97}
    kind = "bce" if isinstance(method, Denoising) else method.kind
    assert losses[-1] < bar[kind] * losses[0]


@pytest.mark.parametrize("colorspace", ["lab", "rescaled_lab"])
@pytest.mark.parametrize("network", HALVES)
def test_every_network_has_a_loss_and_features_on_every_color_space(
    network: str, colorspace: str, lab: Manifest, rescaled: Manifest
) -> None:
    manifest = lab if colorspace == "lab" else rescaled
    with torch.device("meta"):
        method = build_method(PretrainConfig(network=network, input="lab"), manifest)
    specs = manifest.datasets("unlabeled")
    fields = {d: torch.zeros((2, *specs[d].row_shape), dtype=torch.uint8, device="meta") for d in method.datasets}
    batch = Batch(torch.zeros(2, dtype=torch.int64, device="meta"), fields)

    assert method.loss(batch)[0].shape == ()
    assert method.features(batch).shape == (2, 200, 4, 4)
    assert method.layers()[-1] == "logits"


def test_lab_inputs_of_both_lab_spaces_agree(lab: Manifest, rescaled: Manifest) -> None:
    """Both decode to the same Lab image, to the rounding of 8 bits; images are matched by their source."""
    seen = {}
    for manifest in (lab, rescaled):
        _, method, loader = small_parts(manifest, batch_size=IMAGES, input="lab")
        batch = next(loader.batches(0, 1))
        seen[manifest.colorspace] = method.inputs(batch)

    assert seen["lab"].sub(seen["rescaled_lab"]).abs().max() < 1 / 150
    assert seen["lab"].min() >= -0.005
    assert seen["lab"].max() <= 1.005


def test_standardized_inputs_have_mean_0_and_deviation_1(lab: Manifest) -> None:
    _, method, loader = small_parts(lab, batch_size=IMAGES, normalize="standard")

    x = method.inputs(next(loader.batches(0, 1)))

    assert x.mean((0, 2, 3)).abs().max() < 1e-3
    assert (x.std((0, 2, 3)) - 1).abs().max() < 1e-3


def test_rgb_cannot_be_shown_as_lab(shards, lab: Manifest) -> None:  # type: ignore[no-untyped-def]
    from sbformat.manifest import open_manifest

    with pytest.raises(ConfigError, match="the shards hold rgb"):
        Inputs(open_manifest(shards, "rgb"), "unlabeled", "lab")


def test_noise_belongs_to_the_sample_and_the_epoch() -> None:
    index = torch.tensor([5, 9, 5])

    u, other = uniform(index, 1000, 0, 0), uniform(index, 1000, 0, 1)

    assert u[0].equal(u[2])
    assert not u[0].equal(u[1])
    assert not u.equal(other)
    assert abs(u.mean().item() - 0.5) < 0.02


@pytest.mark.parametrize("level", [0.05, 0.5])
def test_noise_has_the_share_that_was_asked_for(level: float) -> None:
    x, index = torch.full((4, 3, 64, 64), 0.5), torch.arange(4)

    masked = corrupt(x, index, "masking", level, 0, 0)
    salted = corrupt(x, index, "salt-and-pepper", level, 0, 0)
    normal = corrupt(x, index, "gaussian", 0.05, 0, 0)

    assert (masked == 0).float().mean().item() == pytest.approx(level, abs=0.01)
    assert (salted == 0).float().mean().item() == pytest.approx(level / 2, abs=0.01)
    assert (salted == 1).float().mean().item() == pytest.approx(level / 2, abs=0.01)
    assert normal.std().item() == pytest.approx(0.05, abs=0.002)


def test_flops_of_simplenet_are_those_counted_by_hand(lab: Manifest) -> None:
    """2 a multiply-add; backward twice the forward pass, less the gradient of the image that nobody needs."""
    # Maps of 64 x 64 images: 32, 16, 12, 8, 4. (side of the output, kernel, channels in and out)
    layers = [(16, 4, 12, 24), (12, 5, 24, 48), (8, 5, 48, 96), (4, 5, 96, 100)]
    deep = 2 * sum(3 * 2 * side**2 * kernel**2 * a * b for side, kernel, a, b in layers)
    first = sum(2 * 2 * 32**2 * 4**2 * channels * 12 for channels in (1, 2))

    assert count_flops(PretrainConfig(), lab) == deep + first


class Grouped(nn.Module):
    """A convolution of three channels into eight, and one of groups on these."""

    datasets = ("image",)

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 16, 3, padding=1, groups=groups, bias=False)
        )

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.layers(batch.fields["image"].float()).mean(), {}


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_flops_of_a_grouped_convolution_are_those_counted_by_hand(groups: int, lab: Manifest) -> None:
    """An output of a group of channels sees 8 / groups inputs, forward and in both gradients."""
    with torch.device("meta"):
        method = Grouped(groups)
    pointwise = 2 * 64**2 * 3 * 8
    grouped = 2 * 64**2 * 3**2 * (8 // groups) * 16

    counted = flops_per_image(method, lab, "unlabeled")  # type: ignore[arg-type]

    assert counted == 2 * pointwise + 3 * grouped


def test_methods_name_the_datasets_that_they_need(lab: Manifest, rescaled: Manifest) -> None:
    split_brain = build_method(PretrainConfig(input="lab"), rescaled)
    assert isinstance(split_brain, SplitBrain)

    assert split_brain.datasets == ("image", "image_range", "target_single", "target_dual")
    assert build_method(PretrainConfig(method="denoising", network="autoencoder"), lab).datasets == ("image",)


def test_images_too_small_for_simplenet_are_refused(prepared: Manifest) -> None:
    with pytest.raises(ConfigError, match="need 52 or more"):
        build_method(PretrainConfig(split="train"), prepared)
