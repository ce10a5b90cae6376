"""Classifiers on pretrained networks: what they see, what they learn from, and that they come out the same again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from builds import CLASSES
from labeled_sets import SMALL, numbers, results
from runs import CPU, command
from sbformat.manifest import Manifest, open_manifest
from sbformat.schema import TargetSpec
from sbtrain.build import build_method
from sbtrain.cli import main
from sbtrain.config import PretrainConfig
from sbtrain.data import Batch, Rows
from sbtrain.evaluation.few_shot import ALL, draw_rows
from sbtrain.evaluation.finetune import finetune
from sbtrain.evaluation.finetune_config import FinetuneConfig
from sbtrain.evaluation.finetune_result import comparison_table
from sbtrain.evaluation.fitting import Fitter, top_counts
from sbtrain.evaluation.labeled import Features, Labeled
from sbtrain.evaluation.pretrained import open_pretrained
from sbtrain.methods.supervised import Classifier, Encoder, Supervised
from sbtrain.reproduce.record import _interval_over, _over
from sbtrain.reproduce.scores import fits_of
from sbtrain.runtime import RunError


@pytest.fixture(scope="module")
def images(few: Path) -> Labeled:
    return Labeled(open_manifest(few, "lab"), "train", ("image",), CPU.device)


def encoder(manifest: Manifest, layer: str | None = None, pool: int = 0, **fields: Any) -> Encoder:
    config = PretrainConfig(**fields)
    torch.manual_seed(0)
    return Encoder(build_method(config, manifest), manifest, layer, pool)


# ------------------------------------------------------------------------------------------ what a classifier sees


def test_the_reports_classifier_sees_28800_numbers(lab: Manifest) -> None:
    """Of images of 96 pixels: 100 classes of each half in 12 x 12 cells."""
    manifest = replace(lab, image_size=96, target=TargetSpec(size=12))

    assert encoder(manifest).width == 28_800
    assert encoder(manifest, network="resnet18").width == 28_800
    assert Classifier(28_800, 1000).linear.weight.numel() + 1000 == 28_801_000


def test_the_denoising_classifier_sees_the_code(lab: Manifest) -> None:
    manifest = replace(lab, image_size=96, target=TargetSpec(size=12))

    assert encoder(manifest, method="denoising", network="autoencoder").width == 3_456


def test_a_pooled_layer_is_the_mean_of_its_cells(lab: Manifest, images: Labeled) -> None:
    whole, pooled = encoder(lab, "conv3"), encoder(lab, "conv3", 2)
    batch = images.batch(np.arange(4))

    maps = whole.eval()(batch).reshape(4, 96, 2, 6, 2, 6)

    torch.testing.assert_close(pooled.eval()(batch), maps.mean(dim=(3, 5)).flatten(1))


def test_standardized_features_have_mean_0_and_variance_1() -> None:
    feature = torch.randn(64, 5, generator=torch.Generator().manual_seed(1)) * 7 + 3
    standardized = Classifier(5, 2, standardize=True).norm(feature)

    torch.testing.assert_close(standardized.mean(0), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(standardized.var(0, correction=0), torch.ones(5), atol=1e-4, rtol=0)


def test_features_computed_once_are_those_of_each_image(lab: Manifest, images: Labeled) -> None:
    made = encoder(lab, "conv4", 1).eval()
    features = Features(images, np.array([7, 3, 20]), made, CPU)

    batch = features.batch(np.array([20, 7]))

    with torch.no_grad():
        torch.testing.assert_close(batch["feature"], made(images.batch(np.array([20, 7]))))
    assert batch["label"].tolist() == images.labels[[20, 7]].tolist()


# -------------------------------------------------------------------------------------------------------- learning


def model_of(manifest: Manifest) -> Supervised:
    made = encoder(manifest, "conv4", 4)
    return Supervised(made, Classifier(made.width, 3))


def test_a_classifier_learns_its_images_by_heart(lab: Manifest, images: Labeled) -> None:
    model = model_of(lab)
    before = [parameter.clone() for parameter in model.encoder.backbone.F1.conv1.parameters()]

    Fitter(images, FinetuneConfig(min_steps=20, lr=3e-3), CPU).fit(model, np.arange(24), 0)

    model.eval()
    with torch.no_grad():
        assert model(images.batch(np.arange(24))).argmax(1).tolist() == images.labels.tolist()
    assert all(not a.equal(b) for a, b in zip(before, model.encoder.backbone.F1.conv1.parameters(), strict=True))


def test_dropout_in_a_fit_does_not_depend_on_the_fits_before(lab: Manifest, images: Labeled) -> None:
    """AlexNet has some; after an interruption the fits that are left are the first of their process."""
    weights = []
    for before in (0, 1):
        model = model_of(lab)
        model.encoder.backbone.F1.conv1.append(torch.nn.Dropout(0.5))
        torch.manual_seed(before)
        Fitter(images, FinetuneConfig(epochs=1, min_steps=2), CPU).fit(model, np.arange(24), 0)
        weights.append(model.state_dict())

    assert all(a.equal(b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True))


def test_a_fit_ends_with_the_statistics_of_its_images(lab: Manifest, images: Labeled) -> None:
    """Running ones would still be near the 0 that they began with."""
    model, rows = model_of(lab), np.arange(0, 24, 2)

    Fitter(images, FinetuneConfig(epochs=1, min_steps=3), CPU).fit(model, rows, 0)

    backbone = model.encoder.backbone
    convolution, norm = backbone.F1.conv1[:2]
    with torch.no_grad():
        maps = convolution(backbone.inputs(images.batch(rows))[:, :1])
    torch.testing.assert_close(norm.running_mean, maps.mean(dim=(0, 2, 3)))
    assert norm.momentum == 0.1


def test_top_5_counts_the_five_best() -> None:
    logits = torch.arange(7.0).expand(3, 7)

    assert top_counts(logits, torch.tensor([6, 2, 1])).tolist() == [1, 2]


class _Watched:
    """Notes which rows are asked for while a model trains."""

    def __init__(self, images: Labeled, model: torch.nn.Module) -> None:
        self.labels, self._images, self._model = images.labels, images, model
        self.learned: set[int] = set()
        self.looked_at: set[int] = set()

    def batch(self, rows: Rows) -> Batch:
        (self.learned if self._model.training else self.looked_at).update(rows.tolist())
        return self._images.batch(rows)


def test_early_stopping_looks_at_held_out_labels_of_the_draw_alone(lab: Manifest, images: Labeled) -> None:
    model = model_of(lab)
    watched = _Watched(images, model)
    rows = draw_rows(images.labels, CLASSES, 4, "balanced", 0, 0)

    config = FinetuneConfig(min_steps=200, batch_size=6, lr=1e-2, hold_out=0.5)
    steps = Fitter(watched, config, CPU).fit(model, rows, 0)

    assert steps < 200
    assert watched.learned == set(rows[:6].tolist())
    assert watched.looked_at == set(rows[6:].tolist())


def test_an_early_stop_brings_the_best_weights_back(lab: Manifest, images: Labeled) -> None:
    model = model_of(lab)
    rows = draw_rows(images.labels, CLASSES, 4, "balanced", 0, 0)
    losses = []

    class Noted(Fitter):
        def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
            loss = super().loss(model, batch)
            if not model.training:
                losses.append(loss.item())
            return loss

    config = FinetuneConfig(min_steps=60, batch_size=6, lr=1e-2, hold_out=0.5)
    Noted(images, config, CPU).fit(model, rows, 0)

    model.eval()
    with torch.no_grad():
        assert Fitter(images, config, CPU).loss(model, images.batch(rows[6:])).item() == min(losses)


def test_a_loss_that_is_not_finite_ends_the_fit(lab: Manifest, images: Labeled) -> None:
    with pytest.raises(RunError, match=r"not finite in 5 steps on 24 images\. Lower --lr 1e\+30"):
        Fitter(images, FinetuneConfig(epochs=1, min_steps=5, lr=1e30), CPU).fit(model_of(lab), np.arange(24), 0)


# --------------------------------------------------------------------------------------------------------- results


def test_the_same_command_gives_the_same_bits(few: Path, own_run: Path, undisturbed: Path, tmp_path: Path) -> None:
    other = shutil.copytree(undisturbed, tmp_path / "other")

    assert numbers(results(own_run, few)) == numbers(results(other, few))


def test_a_fit_does_not_depend_on_what_else_is_asked_for(few: Path, own_run: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(own_run, tmp_path / "alone")

    many = numbers(results(own_run, few, freeze=True, samples_per_class=(1, 2, ALL), draws=3))
    one = numbers(results(alone, few, freeze=True, samples_per_class=(2,), draws=2))

    assert one == [fit for fit in many if fit["samples"] == 2 and fit["draw"] < 2]


def test_more_draws_go_into_the_same_file(few: Path, own_run: Path) -> None:
    before = results(own_run, few, freeze=True, draws=1).to_json()["fits"]
    said: list[str] = []

    after = results(own_run, few, said, freeze=True, draws=2)

    assert sum(line.endswith(" s") for line in said) == 2
    assert [fit for fit in after.to_json()["fits"] if fit["draw"] == 0] == before
    assert len(list((own_run / "results").glob("finetune-*"))) == 1


def test_the_control_has_the_same_images_and_steps(few: Path, own_run: Path) -> None:
    ours, control = (results(own_run, few, from_scratch=scratch) for scratch in (False, True))

    assert [(f["draw"], f["images"], f["steps"]) for f in numbers(ours)] == [
        (f["draw"], f["images"], f["steps"]) for f in numbers(control)
    ]
    assert ours.path != control.path
    assert numbers(ours) != numbers(control)


@pytest.mark.parametrize("freeze", [False, True])
def test_the_control_owes_nothing_to_the_run(freeze: bool, few: Path, own_run: Path) -> None:
    """An earlier checkpoint of the run gives the very same result file."""
    late = results(own_run, few, from_scratch=True, freeze=freeze)
    expected = numbers(late)
    late.path.unlink()
    shutil.rmtree(own_run / "checkpoints" / "step-00000012")

    early = results(own_run, few, from_scratch=True, freeze=freeze)

    assert (early.path, numbers(early)) == (late.path, expected)


def test_another_checkpoint_of_the_run_is_another_result(few: Path, own_run: Path) -> None:
    late = results(own_run, few, freeze=True)
    shutil.rmtree(own_run / "checkpoints" / "step-00000012")

    assert results(own_run, few, freeze=True).path != late.path


def test_fine_tuning_leaves_the_run_as_it_is(few: Path, own_run: Path) -> None:
    pretrained = open_pretrained(own_run, few, "train", print)
    before = {name: tensor.clone() for name, tensor in pretrained.method.state_dict().items()}

    finetune(pretrained, FinetuneConfig(**SMALL), CPU, lambda _: None)

    assert all(tensor.equal(before[name]) for name, tensor in pretrained.method.state_dict().items())


def test_a_result_says_what_it_was_made_of(few: Path, own_run: Path) -> None:
    result = json.loads(results(own_run, few, protocol="report", layer="conv4", pool=1).path.read_bytes())

    assert result["config"]["protocol"] == "report"
    assert result["run"]["checkpoint"]["step"] == 12
    assert result["run"]["config"]["network"] == "simplenet"
    assert set(result["data"]) == {"train", "val"}
    assert len(result["data"]["val"]["digest"]) == 64
    assert (result["classes"], result["eval_images"]) == (3, 12)
    assert [(fit["samples"], fit["draw"], fit["images"]) for fit in result["fits"]] == [
        (1, 0, 3), (1, 1, 3), (2, 0, 6), (2, 1, 6),
    ]  # fmt: skip
    top1 = [fit["top1"] for fit in result["fits"]]
    assert result["results"][0]["top1"]["mean"] == pytest.approx((top1[0] + top1[1]) / 2)
    assert result["results"][0]["top1"]["ci95"] == pytest.approx(12.7062 * abs(top1[0] - top1[1]) / 2, rel=1e-4)


def test_a_fit_says_how_many_of_its_images_were_held_out(few: Path, own_run: Path) -> None:
    result = results(own_run, few, freeze=True, hold_out=0.2, samples_per_class=(4, 5, ALL), draws=1)

    again = results(own_run, few, freeze=True, hold_out=0.2, samples_per_class=(4, 5, ALL), draws=1)

    assert [(fit["images"], fit["held_out"]) for fit in numbers(result)] == [(12, 0), (15, 3), (24, 3)]
    assert again.to_json() == result.to_json()


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "denoising", "--network", "autoencoder"),
        ("--network", "resnet18-head", "--batch-size", "2"),
        ("--input", "lab", "--colorspace", "rescaled_lab"),
    ],
    ids=["denoising", "resnet18-head", "rescaled"],
)
@pytest.mark.parametrize("freeze", [False, True], ids=["end to end", "frozen"])
def test_every_kind_of_run_can_be_classified_by(
    freeze: bool, options: tuple[str, ...], shards: Path, few: Path, tmp_path: Path
) -> None:
    colorspace = () if "--colorspace" in options else ("--colorspace", "lab")
    arguments = command(shards, tmp_path / "run", *colorspace, *options, "--stop-after", "1")
    assert CliRunner().invoke(main, arguments).exit_code == 0

    few = results(tmp_path / "run", few, samples_per_class=(1,), draws=1, min_steps=1, freeze=freeze)

    assert len(numbers(few)) == 1


# -------------------------------------------------------------------------------------------------- fits that are one


def test_frozen_ridge_regression_on_every_label_is_one_fit(few: Path, own_run: Path) -> None:
    fields: dict[str, Any] = {"freeze": True, "head": "ridge", "samples_per_class": (2, ALL), "draws": 3}

    ours, control = (results(own_run, few / "lab", from_scratch=scratch, **fields) for scratch in (False, True))

    found = ours.to_json()["results"]
    assert [(shot["samples_per_class"], shot["draws"]) for shot in found] == [("2", 3), ("all", 1)]
    assert found[1]["top1"]["ci95"] is None
    assert control.to_json()["results"][1]["draws"] == 3  # new weights are others in every draw
    shown = comparison_table(ours.shots(), control.shots())
    assert "all, one fit" in shown
    assert ours.shots()[1].gain(control.shots()[1]).half_width is not None


def test_identical_fits_of_an_earlier_version_count_as_one(few: Path, own_run: Path) -> None:
    fields: dict[str, Any] = {"freeze": True, "head": "ridge", "samples_per_class": (ALL,), "draws": 3}
    path = results(own_run, few / "lab", **fields).path
    data = json.loads(path.read_text())
    fits = [{**data["fits"][0], "draw": draw} for draw in range(3)]
    path.write_text(json.dumps({**data, "fits": fits}))

    again = results(own_run, few / "lab", **fields)

    assert len(again.shots()[0].fits) == 1
    assert fits_of(path, ALL) == [{"top1": fits[0]["top1"], "top5": fits[0]["top5"]}]


def test_an_interval_is_over_runs_each_the_mean_of_its_draws() -> None:
    first, second = [{"top1": 0.1}, {"top1": 0.3}], [{"top1": 0.5}, {"top1": 0.7}]

    over = _over([first, second], "top1")

    # Runs of means 0.2 and 0.6: as four draws of one run it would be narrower by three times.
    assert over.mean == pytest.approx(0.4)
    assert over.half_width == pytest.approx(12.706 * 0.2, abs=1e-3)
    assert _interval_over(3, [first, second]) == "2 pretraining runs, each the mean of 2 draws, 1 more to come"
    assert _interval_over(1, [first]) == "2 draws of one pretraining run"
    assert _interval_over(1, [first[:1]]) == "none: one fit"
