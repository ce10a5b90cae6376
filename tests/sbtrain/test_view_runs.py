"""Runs of SimSiam and Self-Classifier: they learn, and go on after a stop to the same bits, queue and LARC included."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from ranked import PLAIN, losses, run_ranks
from runs import CPU, command, lines, outcome, small_parts
from sbformat.manifest import Manifest, open_manifest
from sbtrain.build import count_flops
from sbtrain.cli import main
from sbtrain.config import PretrainConfig
from sbtrain.methods import SelfClassifier
from sbtrain.methods.supervised import Encoder
from sbtrain.networks import backbones
from sbtrain.networks.trunks import alexnet
from sbtrain.prepare import Request
from sbtrain.pretrain import default_name
from sbtrain.step import Step

SIMSIAM = (
    "--method", "simsiam", "--network", "half:simplenet", "--projector", "report", "--augmentation", "simsiam_cifar",
    "--optimizer", "sgd", "--lr", "0.05",
)  # fmt: skip
SELF_CLASSIFIER = (
    "--method", "self_classifier", "--network", "half:resnet18", "--augmentation", "self_classifier_native32",
    "--view-size", "16", "--head", "32-16", "--classes", "4,6", "--queue", "8", "--queue-replace", "--optimizer", "larc",
    "--lr", "2", "--warmup-epochs", "1", "--warmup-lr", "0.3", "--final-lr", "0.002", "--weight-decay", "1e-6",
)  # fmt: skip


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def assert_a_stop_changes_nothing(shards: Path, folder: Path, *options: str) -> None:
    """Run once as a whole, and once stopped after a step and gone on with: to the same bits, in ``whole`` and ``parts``."""
    whole, parts = (command(shards, folder / name, *options) for name in ("whole", "parts"))
    result = invoke(*whole)
    assert result.exit_code == 0, result.output
    assert invoke(*parts, "--stop-after", "1").exit_code == 0
    assert invoke(*parts).exit_code == 0

    assert outcome(folder / "parts") == outcome(folder / "whole")


@pytest.mark.parametrize("method", [SIMSIAM, SELF_CLASSIFIER], ids=["simsiam", "self-classifier"])
def test_a_stopped_run_goes_on_to_the_same_bits(method: tuple[str, ...], shards: Path, tmp_path: Path) -> None:
    """Moments, BatchNorm, the queue and the views of every sample."""
    short = (*method, "--limit", "16", "--epochs", "2")
    assert_a_stop_changes_nothing(shards / "rgb", tmp_path, *short)
    logged = lines(tmp_path / "whole")[-1]
    assert {"feature_std", "class_entropy"} & set(logged)


@pytest.mark.parametrize(
    ("method", "network"),
    [
        ("simsiam", "resnet18-cifar"), ("self_classifier", "efficientnet_b0"), ("simsiam", "pit_ti"),
        ("self_classifier", "timm:vit_tiny_patch16_224"), ("simsiam", "timm:ghostnet_050"),
    ],
)  # fmt: skip
def test_a_stopped_run_of_another_backbone_goes_on_to_the_same_bits(
    method: str, network: str, shards: Path, tmp_path: Path
) -> None:
    """Four images a step at 32 pixels, two steps an epoch: what these networks keep beside their weights counts alone.

    GhostNet has a dropout of timm's own, which draws from torch's generator.
    """
    short = ("--method", method, "--network", network, "--augmentation", "simsiam_cifar", "--view-size", "32",
             "--optimizer", "sgd", "--momentum", "0", "--batch-size", "4", "--limit", "8", "--checkpoint-every", "99",
             *{"simsiam": ("--projector", "report"), "self_classifier": ("--head", "16", "--classes", "4")}[method])  # fmt: skip
    assert_a_stop_changes_nothing(shards / "rgb", tmp_path, *short)


@pytest.mark.parametrize(
    ("method", "network", "evaluation"),
    [
        ("self_classifier", "alexnet", ("cluster", "--split", "val")),
        ("simsiam", "vit_small_2021", ("probe", "--layers", "backbone", "--labels-per-class", "2", "--draws", "1",
                                       "--epochs", "1", "--min-steps", "1", "--eval-split", "val")),
    ],
)  # fmt: skip
def test_a_network_of_a_report_goes_on_to_the_same_bits_and_is_judged(
    method: str, network: str, evaluation: tuple[str, ...], few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AlexNet, of small hidden layers here, draws dropout; the Vision Transformer has one block here."""
    name, changes = backbones.TIMM["vit_small_2021"]
    monkeypatch.setitem(backbones.TIMM, "vit_small_2021", (name, changes | {"depth": 1}))
    monkeypatch.setattr(backbones, "alexnet", partial(alexnet, 64))
    short = ("--method", method, "--network", network, "--augmentation", "simsiam_cifar", "--view-size", "64",
             "--optimizer", "sgd", "--momentum", "0", "--batch-size", "4", "--limit", "8", "--checkpoint-every", "99",
             "--epochs", "1", "--split", "train", "--precision", "float32",
             *{"simsiam": ("--projector", "report"), "self_classifier": ("--head", "16", "--classes", "3")}[method])  # fmt: skip
    assert_a_stop_changes_nothing(few / "rgb", tmp_path, *short)
    kind, *options = evaluation
    result = invoke(kind, "--run", str(tmp_path / "parts"), "--shards", str(few), "--device", "cpu", *options)
    assert result.exit_code == 0, result.output


def test_two_ranks_are_one_batch_of_self_classifier(shards: Path, tmp_path: Path) -> None:
    """The softmax is over all of it, and so is the queue: four rows a rank alone would be another loss."""
    found = {}
    for size in (1, 2):
        run_dir = tmp_path / str(size) / "run"
        arguments = command(shards / "rgb", run_dir, *SELF_CLASSIFIER, *PLAIN, "--limit", "24", "--epochs", "1")
        assert [rank.code for rank in run_ranks(tmp_path / str(size), arguments, size)] == [0] * size
        found[size] = losses(run_dir)

    assert len(found[1]) == 3
    assert found[2] == pytest.approx(found[1], abs=1e-4)


def test_a_run_of_an_earlier_version_goes_on(shards: Path, undisturbed: Path, own_run: Path) -> None:
    """Its config.json knows nothing of the fields that came since."""
    path = own_run / "config.json"
    record = json.loads(path.read_text())
    old = {"method", "network", "split", "input", "normalize", "loss", "noise", "noise_level", "reconstruction", "epochs",
           "batch_size", "accumulate", "optimizer", "lr", "weight_decay", "momentum", "schedule", "decay", "warmup", "clip",
           "shuffle", "seed", "precision", "mode", "compile", "limit", "bad_steps", "rollbacks"}  # fmt: skip
    record["config"] = {name: value for name, value in record["config"].items() if name in old}
    path.write_text(json.dumps(record))

    result = invoke(*command(shards / "lab", own_run))

    assert result.exit_code == 0, result.output
    assert outcome(own_run) == outcome(undisturbed)


@pytest.fixture
def rgb(shards: Path) -> Manifest:
    return open_manifest(shards, "rgb")


FIELDS = {
    "simsiam": {"network": "half:simplenet", "augmentation": "simsiam_cifar", "projector": "report"},
    "self_classifier": {"network": "half:simplenet", "augmentation": "simsiam_cifar", "head": "16", "classes": "4"},
}


def test_a_run_is_named_after_its_backbone_without_a_colon(rgb: Manifest) -> None:
    """Copying tools take what stands before one for a host."""
    config = PretrainConfig(method="simsiam", network="half:simplenet")

    assert default_name(Request(config=config, shards=rgb.root), rgb) == "simsiam-half-simplenet-rgb-seed0"


@pytest.mark.parametrize("method", FIELDS)
def test_a_method_learns_its_views(method: str, rgb: Manifest) -> None:
    config, made, loader = small_parts(rgb, method=method, batch_size=24, optimizer="adam", **FIELDS[method])
    step = Step(config, made, CPU)
    batch = next(loader.batches(0, 1))
    losses = []
    for _ in range(25):
        before = step.totals.read()[:1] or [0.0]
        step(batch, 3e-3)
        losses.append(step.totals.read()[0] - before[0])

    assert losses[-1] < losses[0] - 0.2


@pytest.mark.parametrize("method", FIELDS)
def test_a_micro_batch_is_a_part_of_the_step(method: str, rgb: Manifest) -> None:
    config, made, loader = small_parts(rgb, method=method, batch_size=24, accumulate=2, **FIELDS[method])

    Step(config, made, CPU)(next(loader.batches(0, 1)), 1e-3)

    assert all(bool(parameter.isfinite().all()) for parameter in made.parameters())


@pytest.mark.parametrize("method", FIELDS)
def test_an_encoder_sees_rows_or_maps(method: str, rgb: Manifest) -> None:
    _, made, loader = small_parts(rgb, method=method, batch_size=24, **FIELDS[method])
    batch = next(loader.batches(0, 1))

    assert Encoder(made, rgb)(batch).shape == (24, 96)
    assert Encoder(made, rgb, "projection")(batch).dim() == 2
    assert Encoder(made, rgb, "conv4", 2)(batch).shape == (24, 96 * 4)


@pytest.mark.parametrize("method", FIELDS)
def test_flops_are_counted_without_computing(method: str, rgb: Manifest) -> None:
    config = PretrainConfig(method=method, **FIELDS[method])  # type: ignore[arg-type]

    assert count_flops(config, rgb) > 1e6


def test_a_step_that_is_not_finite_leaves_the_queue_finite(rgb: Manifest) -> None:
    config, made, loader = small_parts(
        rgb, method="self_classifier", queue=16, batch_size=24, **FIELDS["self_classifier"]
    )
    assert isinstance(made, SelfClassifier)
    step = Step(config, made, CPU)
    batch = next(loader.batches(0, 1))
    step(batch, 1e-3)
    with torch.no_grad():
        kept = made.head[0].weight.clone()  # type: ignore[operator]
        made.head[0].weight.fill_(torch.nan)  # type: ignore[operator]

    step(batch, 1e-3)
    with torch.no_grad():
        made.head[0].weight.copy_(kept)  # type: ignore[operator]
    step(batch, 1e-3)

    assert step.guard.in_row == 0
    assert made.queue is not None
    assert made.queue.rows.isfinite().all()
