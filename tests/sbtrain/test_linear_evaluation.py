"""Linear evaluation and fine-tuning as the reports and papers do them: views in every pass, a network that stays as it is."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from runs import CPU, command
from sbformat.manifest import open_manifest
from sbtrain.cli import main
from sbtrain.data import Batch
from sbtrain.evaluation import finetune
from sbtrain.evaluation.augmented import Augmented, Centered, seen_size, views_of
from sbtrain.evaluation.finetune_config import FinetuneConfig
from sbtrain.evaluation.finetune_presets import PRESETS
from sbtrain.evaluation.fitting import Fitter
from sbtrain.evaluation.labeled import Features, Labeled
from sbtrain.evaluation.pretrained import open_pretrained
from sbtrain.methods.supervised import Classifier, Encoder

SIMSIAM = (
    "--method", "simsiam", "--network", "half:simplenet", "--augmentation", "simsiam_cifar", "--view-size", "48",
    "--epochs", "1", "--split", "train",
)  # fmt: skip


@pytest.fixture(scope="module")
def siamese(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small run of SimSiam that sees images of 64 pixels at 48."""
    run_dir = tmp_path_factory.mktemp("siamese") / "run"
    result = CliRunner().invoke(main, command(few / "rgb", run_dir, *SIMSIAM))
    assert result.exit_code == 0, result.output
    return run_dir


@pytest.fixture(scope="module")
def images(few: Path) -> Labeled:
    return Labeled(open_manifest(few, "rgb"), "train", ("image",), CPU.device)


def invoke(run_dir: Path, shards: Path, *more: str) -> Result:
    arguments = ["finetune", "--run", str(run_dir), "--shards", str(shards), "--device", "cpu", "--draws", "1", *more]
    return CliRunner().invoke(main, arguments)


# ------------------------------------------------------------------------------------------------------------- views


def test_views_are_bytes_of_the_size_that_the_network_sees_other_ones_in_every_pass(images: Labeled) -> None:
    views = Augmented(images, views_of("crop_flip", 48, 0))
    rows = np.arange(6)

    first, second = views.batch(rows, 0), views.batch(rows, 1)

    assert (first["image"].dtype, first["image"].shape) == (torch.uint8, (6, 3, 48, 48))
    assert torch.equal(first["label"], images.batch(rows)["label"])
    assert not torch.equal(first["image"], second["image"])
    assert torch.equal(first["image"], views.batch(rows, 0)["image"])
    assert torch.equal(views.batch(rows[3:4], 0)["image"], first["image"][3:4])  # of the image, not of the batch


def test_views_of_a_whole_image_are_the_image_or_its_mirror(images: Labeled) -> None:
    """Crops of (0.8, 1.2) of the area leave at least 80 % of it: nothing is far from the original's mean."""
    rows = np.arange(24)

    views = Augmented(images, views_of("crop_flip_report", 64, 0)).batch(rows, 0)["image"].float()

    plain = images.batch(rows)["image"].float()
    assert (views.mean((1, 2, 3)) - plain.mean((1, 2, 3))).abs().max() < 10


def test_the_center_is_the_middle_of_the_image(images: Labeled) -> None:
    """48 of 64 pixels at 48: nothing is resampled."""
    rows = np.arange(4)

    center = Centered(images, 48, 0.75).batch(rows)["image"]

    assert torch.equal(center, images.batch(rows)["image"][:, :, 8:56, 8:56])


def test_the_size_that_a_network_sees_is_its_views(few: Path, siamese: Path, own_run: Path) -> None:
    there = open_pretrained(siamese, few, "train", lambda _: None)
    halves = open_pretrained(own_run, few, "train", lambda _: None)

    assert seen_size(there.method, 64) == 48
    assert seen_size(halves.method, 64) == 64


# -------------------------------------------------------------------------------------------------------------- fits


def test_a_frozen_network_sees_views_in_its_eval_mode_and_stays_as_it_is(few: Path, siamese: Path) -> None:
    pretrained = open_pretrained(siamese, few, "train", lambda _: None)
    images = Labeled(pretrained.manifest, "train", ("image",), CPU.device)
    encoder = Encoder(pretrained.method, pretrained.manifest).eval()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    modes: list[bool] = []

    @torch.no_grad()
    def encode(batch: Batch) -> torch.Tensor:
        modes.append(encoder.training)
        features: torch.Tensor = encoder(batch)
        return features

    views = Augmented(images, views_of("crop_flip", 48, 0), encode).batch
    plain = Features(images, np.arange(24), encode, CPU)
    classifier = Classifier(encoder.width, 3, normal=True)
    config = FinetuneConfig(min_steps=4, batch_size=12, optimizer="larc", lr=0.8, freeze=True, standardize=False)
    steps = Fitter(plain, config, CPU, views=views).fit(classifier, np.arange(24), 0)

    assert steps == 16
    assert len(modes) == 1 + steps  # one block of plain images
    assert not any(modes)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_normal_weights_are_of_deviation_a_hundredth_without_bias() -> None:
    torch.manual_seed(0)

    linear = Classifier(2048, 10, normal=True).linear

    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert linear.bias.abs().max() == 0


def test_the_layer_is_named_and_steps_that_compute_anew_are_shown(
    few: Path, siamese: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "LINE_SECONDS", 0.0)
    run_dir = shutil.copytree(siamese, tmp_path / "run")
    more = ("--preset", "simsiam-linear-cifar10", "--eval-split", "val", "--epochs", "3", "--batch-size", "8")

    result = invoke(run_dir, few, *more)

    assert result.exit_code == 0, result.output
    assert "\n  classified by layer backbone, frozen\n" in result.output
    assert "computing features of 36 images, once; those of augmented images anew in every pass\n" in result.output
    assert re.findall(r"  step (\d) of 9\n", result.output) == list("12345678")


@pytest.mark.parametrize("name", PRESETS)
def test_every_protocol_runs_and_a_given_option_wins(name: str, few: Path, siamese: Path) -> None:
    result = invoke(siamese, few, "--preset", name, "--epochs", "1", "--batch-size", "12")

    assert result.exit_code == 0, result.output
    fields = {**PRESETS[name].fields, "epochs": 1, "batch_size": 12}
    expected = FinetuneConfig(**fields).to_json()
    expected = {key: value for key, value in expected.items() if key not in ("samples_per_class", "draws")}
    made = [json.loads(path.read_bytes()) for path in (siamese / "results").glob("finetune-*.json")]
    assert [data["fits"][0]["steps"] for data in made if data["config"] == expected] == [2]


def test_the_same_command_with_views_comes_out_the_same(few: Path, siamese: Path) -> None:
    def fits() -> list[float]:
        result = invoke(siamese, few, "--preset", "simsiam-finetune-report", "--epochs", "2", "--batch-size", "8")
        assert result.exit_code == 0, result.output
        paths = list((siamese / "results").glob("finetune-*crop_flip_report*.json"))
        (data,) = (each for each in map(_taken, paths) if each["config"]["epochs"] == 2)
        return [fit["top1"] for fit in data["fits"]]

    assert fits() == fits()


def test_results_of_before_there_were_views_are_found_again() -> None:
    """Their config has none of the later fields: it would be another name."""
    assert {"augmentation", "center", "folds"} & set(FinetuneConfig().to_json()) == set()
    assert FinetuneConfig(augmentation="crop_flip").to_json()["augmentation"] == "crop_flip"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--preset", "linear"), "preset 'linear'"),
        (("--center", "0"), "center 0.0, expected a part of the sides"),
        (("--augmentation", "crop_flip", "--head", "ridge", "--freeze"), "is solved on the images as they are"),
    ],
)
def test_what_cannot_be_is_refused(options: tuple[str, ...], message: str, few: Path, siamese: Path) -> None:
    result = invoke(siamese, few, *options)

    assert result.exit_code == 2
    assert message in re.sub(r"\s+", " ", result.output)


def _taken(path: Path) -> dict[str, object]:
    """Read a result, and take it away: the same command then makes it again."""
    data: dict[str, object] = json.loads(path.read_bytes())
    path.unlink()
    return data
