"""Images with several yes-or-no labels: scores worked out by hand and scikit-learn's, fits, tables, what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from sklearn import metrics
from torch.nn import functional

from builds import pixels_of, small_config
from runs import CPU
from sbformat.errors import ShardError
from sbformat.manifest import open_manifest
from sbformat.schema import TargetSpec
from sbprep.pipeline import build
from sbtrain.cli import main
from sbtrain.evaluation.attribute_result import AttributeFit, attribute_table
from sbtrain.evaluation.attributes import attribute_scores, roc_auc
from sbtrain.evaluation.few_shot import draw_rows, hold_out
from sbtrain.evaluation.finetune_config import FinetuneConfig
from sbtrain.evaluation.fitting import Fitter
from sbtrain.evaluation.labeled import Labeled
from sbtrain.methods.supervised import Classifier

A = 5


def labels_of(images: int) -> np.ndarray:
    """Five attributes, of which all images have the fourth and none the last."""
    labels = np.random.default_rng(3).integers(0, 2, (images, A)).astype(np.uint8)
    labels[:, 3], labels[:, 4] = 1, 0
    return labels


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images with five attributes each to learn from, 12 to report. Not to be changed."""
    root = tmp_path_factory.mktemp("faces")
    for split, count in (("train", 24), ("val", 12)):
        images = np.stack([pixels_of(f"{split}{i}", 64) for i in range(count)])
        np.savez(root / f"{split}.npz", images=images, labels=labels_of(count))
    paths = {split: root / f"{split}.npz" for split in ("train", "val")}
    build(small_config(None, root / "shards", "lab", paths=paths, image_size=64, target=TargetSpec(size=4)))
    return root / "shards"


def invoke(run_dir: Path, shards: Path, *more: str) -> Result:
    few = ("--samples-per-class", "4,all", "--draws", "2", "--min-steps", "2", "--epochs", "1", "--freeze")
    arguments = ["finetune", "--run", str(run_dir), "--shards", str(shards), "--device", "cpu", *few, *more]
    return CliRunner().invoke(main, arguments)


def found(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in sorted((run_dir / "results").glob("attributes-*.json"))]


# ------------------------------------------------------------------------------------------------------------ scores


def test_scores_of_three_images_are_those_worked_out_by_hand() -> None:
    """Said 10, 11, 00 where 11, 01, 00 is true: by attribute 0 of 2 and 1 of 2, together 2 of 4."""
    logits = np.array([[2.0, -1.0], [1.0, 3.0], [-2.0, -3.0]], np.float32)
    labels = np.array([[1, 1], [0, 1], [0, 0]], np.uint8)

    scores = attribute_scores(logits, labels)

    assert scores.jaccard_macro == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert scores.jaccard_micro == pytest.approx(2 / 4)
    assert scores.accuracy == pytest.approx(4 / 6)
    assert scores.auc_macro == pytest.approx((1 + 1) / 2)
    assert scores.auc_micro == pytest.approx(8 / 9)  # of 3 x 3 pairs all but (-1, 1)
    assert scores.auc_left_out == 0


def test_an_attribute_that_nobody_has_or_is_said_to_have_counts_0() -> None:
    """The report's formula: 0 / (0 + 1e-10)."""
    logits = np.array([[1.0, -1.0], [-1.0, -1.0]], np.float32)
    labels = np.array([[1, 0], [0, 0]], np.uint8)

    assert attribute_scores(logits, labels).jaccard_macro == pytest.approx(0.5)


def test_attributes_without_both_answers_are_left_out_of_the_macro_area_and_counted() -> None:
    logits = np.random.default_rng(0).normal(size=(9, A)).astype(np.float32)

    scores = attribute_scores(logits, labels_of(9))

    assert scores.auc_left_out == 2
    assert attribute_scores(logits[:, 3:], labels_of(9)[:, 3:]).auc_macro is None
    assert roc_auc(logits[:, 3], labels_of(9)[:, 3] > 0) is None


@pytest.mark.parametrize("digits", [1, 6])
def test_scores_are_scikit_learns(digits: int) -> None:
    """To 1e-6, of 300 images with 40 attributes, rare and frequent ones; rounded to one digit many scores tie."""
    generator = np.random.default_rng(1)
    labels = (generator.random((300, 40)) < np.linspace(0.02, 0.9, 40)).astype(np.uint8)
    logits = (labels - 0.5 + generator.normal(0, 1.5, labels.shape)).round(digits).astype(np.float32)
    said = (logits > 0).astype(np.uint8)

    scores = attribute_scores(logits, labels)

    assert scores.jaccard_macro == pytest.approx(metrics.jaccard_score(labels, said, average="macro"), abs=1e-6)
    assert scores.jaccard_micro == pytest.approx(metrics.jaccard_score(labels, said, average="micro"), abs=1e-6)
    assert scores.accuracy == pytest.approx(metrics.accuracy_score(labels.ravel(), said.ravel()), abs=1e-6)
    assert scores.auc_macro == pytest.approx(metrics.roc_auc_score(labels, logits, average="macro"), abs=1e-6)
    assert scores.auc_micro == pytest.approx(metrics.roc_auc_score(labels, logits, average="micro"), abs=1e-6)


# -------------------------------------------------------------------------------------------------------------- fits


def test_the_loss_is_the_mean_binary_cross_entropy_over_images_and_attributes(faces: Path) -> None:
    images = Labeled(open_manifest(faces), "train", ("image",), CPU.device, attributes=True)
    batch = images.batch(np.arange(6))
    logits = torch.linspace(-2, 2, 6 * A).view(6, A)
    model = torch.nn.Identity()
    model.forward = lambda _: logits  # type: ignore[method-assign]

    loss = Fitter(images, FinetuneConfig(), CPU).loss(model, batch)

    true = torch.from_numpy(images.labels[:6]).float()
    by_hand = -(true * functional.logsigmoid(logits) + (1 - true) * functional.logsigmoid(-logits)).sum() / (6 * A)
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-6)


def test_labels_are_the_rows_of_the_source(faces: Path) -> None:
    labels = Labeled(open_manifest(faces), "train", ("image",), CPU.device, attributes=True).labels

    assert (labels.dtype, labels.shape) == (np.uint8, (24, A))
    assert sorted(map(tuple, labels.tolist())) == sorted(map(tuple, labels_of(24).tolist()))


def test_samples_of_attributes_are_images_in_all_and_smaller_numbers_a_beginning() -> None:
    labels = labels_of(24)

    rows = draw_rows(labels, ["a"] * A, 16, "balanced", 0, 1)

    assert len(np.unique(rows)) == 16
    assert np.array_equal(draw_rows(labels, ["a"] * A, 4, "balanced", 0, 1), rows[:4])
    assert [len(part) for part in hold_out(rows, labels, 0.25)] == [12, 4]


def test_ridge_regression_learns_attributes_that_can_be_told() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 8, generator=generator)
    labels = (features[:, :3] > 0).to(torch.uint8)
    classifier = Classifier(8, 3)

    classifier.solve(features, labels)

    assert ((classifier.classify(features) > 0) == labels.bool()).float().mean() > 0.9


@pytest.mark.parametrize("more", [(), ("--head", "ridge"), ("--augmentation", "crop_flip", "--head", "normal")])
def test_a_frozen_network_gives_every_score_with_its_interval(
    more: tuple[str, ...], faces: Path, own_run: Path
) -> None:
    result = invoke(own_run, faces, *more)

    assert result.exit_code == 0, result.output
    (data,) = found(own_run)
    # All images by a solved head: every draw would be the same fit.
    once = "ridge" in more
    assert [(fit["images"], fit["draw"]) for fit in data["fits"]] == [(4, 0), (4, 1), (24, 0), (24, 1)][: 4 - once]
    assert all(0 <= fit["jaccard_macro"] <= 1 and 0 <= fit["auc_micro"] <= 1 for fit in data["fits"])
    assert data["results"][0]["jaccard_micro"]["ci95"] is not None
    assert data["results"][0]["auc_left_out"] == 2
    assert "AUC macro leaves out 2 that all of these images have or none" in result.stdout


def test_end_to_end_and_from_scratch_stand_side_by_side(faces: Path, own_run: Path) -> None:
    arguments = ["finetune", "--run", str(own_run), "--shards", str(faces), "--device", "cpu", "--compare"]

    result = CliRunner().invoke(
        main, [*arguments, "--samples-per-class", "all", "--draws", "2", "--min-steps", "1", "--epochs", "1"]
    )

    assert result.exit_code == 0, result.output
    ours, control = sorted(found(own_run), key=lambda data: data["config"]["from_scratch"])
    gains = [100 * (a["accuracy"] - b["accuracy"]) for a, b in zip(ours["fits"], control["fits"], strict=True)]
    row = next(line for line in result.stdout.splitlines() if re.match(r"\| +24 \| +accuracy ", line)).split("|")
    assert row[5].strip().startswith(f"{np.mean(gains):.2f} ±")


def test_the_same_command_finds_its_fits(faces: Path, own_run: Path) -> None:
    assert invoke(own_run, faces).exit_code == 0
    first = found(own_run)

    again = invoke(own_run, faces)

    assert "1 of" not in again.output
    assert found(own_run) == first


def test_a_score_that_is_not_defined_is_a_dash() -> None:
    fit = AttributeFit(
        samples=0, draw=0, images=2, steps=1, seconds=0.0, jaccard_macro=0.5, jaccard_micro=0.5, accuracy=0.5,
        auc_macro=None, auc_micro=None, auc_left_out=2,
    )  # fmt: skip

    assert attribute_table([(fit,)]).splitlines()[-1].split("|")[-3:-1] == ["           – ", "           – "]


# ---------------------------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--samples-per-class", "25"), "25 labeled images, the split has 24. Use at most that many, or all"),
        (("--samples-per-class", "1,all"), "1 labeled images of train leave fewer than two to learn from"),
        (("--protocol", "report"), "protocol report draws images by classes, but those of train have attributes"),
    ],
)
def test_what_means_nothing_for_attributes_is_refused(
    options: tuple[str, ...], message: str, faces: Path, own_run: Path
) -> None:
    result = invoke(own_run, faces, *options)

    assert result.exit_code == 2
    assert message in re.sub(r"\s+", " ", result.output)
    assert found(own_run) == []


@pytest.mark.parametrize("command", ["probe", "cluster"])
def test_commands_of_classes_name_the_one_of_attributes(command: str, faces: Path, own_run: Path) -> None:
    more = ("--split", "val") if command == "cluster" else ()

    result = CliRunner().invoke(
        main, [command, "--run", str(own_run), "--shards", str(faces), "--device", "cpu", *more]
    )

    assert result.exit_code == 2
    assert "expected one class. Use sbtrain finetune, which knows attributes" in re.sub(r"\s+", " ", result.output)


def test_an_attribute_that_is_no_bit_is_damage(faces: Path) -> None:
    manifest = open_manifest(faces)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sbtrain.evaluation.labeled.read_checked", lambda shard, name, out: out.fill(2))
        with pytest.raises(ShardError, match="image 0: attribute attribute_0 2, expected 0 or 1: damaged"):
            Labeled(manifest, "train", ("image",), CPU.device, attributes=True)
