"""``sbtrain probe``: what each layer's classifier sees, numbers with intervals, and that a stop loses no finished layer."""

import json
import re
import shutil
import signal
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from runs import CPU, litter, run_apart
from runs import command as pretrain
from sbformat.manifest import Manifest, open_manifest
from sbformat.schema import TargetSpec
from sbtrain.build import build_method
from sbtrain.cli import main
from sbtrain.config import PretrainConfig
from sbtrain.evaluation.labeled import Features, Labeled
from sbtrain.evaluation.neighbors import VOTES, Vote
from sbtrain.evaluation.probe_cli import FIELD_HELP
from sbtrain.evaluation.probe_config import ProbeConfig
from sbtrain.evaluation.probe_result import Layer, LayerFit, Neighbors
from sbtrain.methods.supervised import ProbeEncoder
from sbtrain.optim import learning_rate
from sbtrain.runtime import EXIT_REQUEUE, only_one

LAYERS = ["conv1", "conv2", "conv3", "conv4", "logits"]


def command(run_dir: Path, shards: Path, *more: str) -> list[str]:
    """Return the arguments of two short fits on each of two layers; later options win."""
    short = ("--layers", "conv3,conv4", "--draws", "2", "--epochs", "1", "--min-steps", "2", "--dimensions", "400")
    return ["probe", "--run", str(run_dir), "--shards", str(shards), "--device", "cpu", *short, *more]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def found(run_dir: Path) -> dict[str, dict[str, Any]]:
    """Every result file without what depends on the clock."""
    files = {path.name: json.loads(path.read_bytes()) for path in sorted((run_dir / "results").glob("probe-*.json"))}
    for content in files.values():
        content["fits"] = [{**fit, "seconds": None} for fit in content["fits"]]
    return files


def encoder(manifest: Manifest, layer: str, dimensions: int = 9600, **config: Any) -> ProbeEncoder:
    torch.manual_seed(0)
    return ProbeEncoder(build_method(PretrainConfig(**config), manifest), manifest, layer, dimensions).eval()


# ------------------------------------------------------------------------------------------ what a classifier sees


@pytest.mark.parametrize(
    ("stage", "cells", "numbers"), [(0, 10, 9600), (1, 6, 9216), (2, 5, 9600), (3, 5, 9600), (4, 6, 9216)]
)
def test_layers_of_the_papers_widths_get_the_papers_sizes(lab: Manifest, stage: int, cells: int, numbers: int) -> None:
    """Table 7 of the paper: 10 x 10 cells of conv1, 6 x 6 of conv2, 5 x 5 of conv3 and conv4, 6 x 6 of conv5."""
    manifest = replace(lab, image_size=96, target=TargetSpec(size=12))
    method = build_method(PretrainConfig(network="split-alexnet"), manifest)

    made = ProbeEncoder(method, manifest, f"conv{stage + 1}", 9600)

    assert (made.cells, made.width - made.channels) == (cells, numbers)


def test_maps_are_resized_bilinearly_and_their_means_come_first(lab: Manifest, few: Path) -> None:
    made = encoder(lab, "conv2", 48 * 3 * 3)
    batch = Labeled(open_manifest(few, "lab"), "train", ("image",), CPU.device).batch(np.arange(4))
    with torch.no_grad():
        maps = made.backbone.features(batch, "conv2")
        found = made(batch)

    resized = torch.nn.functional.interpolate(maps, size=(3, 3), mode="bilinear")
    torch.testing.assert_close(found[:, :48], maps.mean((2, 3)))
    torch.testing.assert_close(found[:, 48:], resized.flatten(1))


def test_maps_of_fewer_numbers_stay_as_they_are(lab: Manifest, few: Path) -> None:
    made = encoder(lab, "conv4", 1 << 20, method="denoising", network="autoencoder")
    batch = Labeled(open_manifest(few, "lab"), "train", ("image",), CPU.device).batch(np.arange(4))

    with torch.no_grad():
        assert torch.equal(made(batch)[:, made.channels :], made.backbone.features(batch, "conv4").flatten(1))


def test_columns_of_features_are_a_view(few: Path) -> None:
    images = Labeled(open_manifest(few, "lab"), "train", ("image",), CPU.device)
    whole = Features(images, np.array([3, 9]), lambda batch: batch["image"].flatten(1)[:, :10], CPU)

    part = whole.columns(2, 5)

    assert torch.equal(part.table(np.array([9])), whole.table(np.array([9]))[:, 2:5])
    assert part._features.data_ptr() == whole._features[:, 2:].data_ptr()


def test_the_rate_falls_as_in_the_papers_tests() -> None:
    """A tenth after 40,000, 80,000 and 120,000 of 140,000 steps."""
    rates = [learning_rate(s, 140, 10, 1.0, "step-decay", 0, 0.1) for s in (0, 39, 40, 79, 80, 119, 120, 139)]

    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


# ----------------------------------------------------------------------------------------------------- what it says


def test_the_example_of_the_help_works(few: Path, own_run: Path) -> None:
    example = re.search(r"Example:\n +sbtrain ([^\n]+)\n\Z", invoke("probe", "-h").output)
    assert example is not None
    arguments = example[1].replace("runs/NAME", str(own_run)).replace("data_cache", str(few)).split()

    result = invoke(*arguments, "--draws", "2", "--epochs", "1", "--min-steps", "1")

    assert result.exit_code == 0, result.output


def test_every_field_of_the_config_has_an_option_with_help() -> None:
    output = invoke("probe", "-h").output

    assert set(FIELD_HELP) == {field.name for field in fields(ProbeConfig)}
    assert all("--" + name.replace("_", "-") in output for name in FIELD_HELP)


def test_every_layer_is_probed_and_the_file_says_how(few: Path, own_run: Path) -> None:
    result = invoke(*command(own_run, few, "--layers", ""))

    assert result.exit_code == 0, result.output
    (content,) = found(own_run).values()
    assert content["format"] == "sbtrain-probe"
    assert [(layer["layer"], layer["features"], layer["draws"]) for layer in content["results"]] == [
        ("conv1", 384, 2), ("conv2", 192, 2), ("conv3", 384, 2), ("conv4", 192, 2), ("logits", 200, 2)
    ]  # fmt: skip
    assert all(set(layer["top1"]) == {"mean", "ci95"} == set(layer["top5"]) for layer in content["results"])
    assert [(vote["layer"], vote["k"], vote["temperature"]) for vote in content["neighbors"]] == [
        (layer, vote.k, vote.temperature) for layer in LAYERS for vote in VOTES
    ]
    assert content["classes"] == 3
    assert content["eval_images"] == 12
    assert content["run"]["checkpoint"]["step"] == 12
    assert [line.split("|")[1].strip() for line in result.stdout.splitlines() if line.startswith("|")][2:] == LAYERS
    assert "24 labeled images of train, mean ± 95 % interval of 2 draws" in result.stdout


def test_a_comparison_gives_the_gains_over_new_weights(few: Path, own_run: Path) -> None:
    result = invoke(*command(own_run, few, "--compare"))

    assert result.exit_code == 0, result.output
    ours, control = sorted(found(own_run).values(), key=lambda content: content["config"]["from_scratch"])
    assert control["run"]["checkpoint"] is None
    assert [len(fit["neighbors"]) for fit in ours["fits"]] == [4, 0, 4, 0]
    assert [len(fit["neighbors"]) for fit in control["fits"]] == [4, 4, 4, 4]
    gains = [100 * (a["top1"] - b["top1"]) for a, b in zip(ours["fits"], control["fits"], strict=True)]
    rows = [line.split("|") for line in result.stdout.splitlines() if line.startswith("| ")][2:]
    assert rows[0][4].strip().startswith(f"{np.mean(gains[:2]):.2f} ±")
    nearest = (
        100
        * (  # of 20: 200 neighbors are more than a class has
            ours["fits"][0]["neighbors"][2]["top1"]
            - np.mean([fit["neighbors"][2]["top1"] for fit in control["fits"][:2]])
        )
    )
    assert "20-NN top-1 %" in result.stdout
    assert rows[0][7].strip().startswith(f"{nearest:.2f} ±")


def test_fewer_labels_are_other_labels_in_each_draw(few: Path, own_run: Path) -> None:
    assert invoke(*command(own_run, few, "--labels-per-class", "2")).exit_code == 0

    ((name, content),) = found(own_run).items()
    assert name.startswith("probe-2-")
    assert [fit["images"] for fit in content["fits"]] == [6] * 4
    assert [len(fit["neighbors"]) for fit in content["fits"]] == [4] * 4


def test_intervals_are_of_the_draws() -> None:
    votes = [Neighbors(k=1, temperature=None, top1=share, top5=1.0) for share in (0.5, 0.7)]
    common = {"layer": "conv1", "features": 4, "cells": 1, "images": 3, "steps": 1, "top5": 1.0, "seconds": 0.0}
    layer = Layer(tuple(LayerFit(draw=i, top1=t, neighbors=(v,), **common) for i, (t, v) in enumerate(zip((0.2, 0.4), votes, strict=True))))  # fmt: skip

    assert layer.top1.text() == "30.00 ± 127.06"
    assert layer.neighbors(Vote(1)).top1.text() == "60.00 ± 127.06"


def test_separable_features_are_told_apart(few: Path, own_run: Path) -> None:
    """By the classifier and by the nearest neighbor, of the images that they know."""
    shards = shutil.copytree(few / "lab", own_run / "same")
    data = json.loads((shards / "manifest.json").read_text())
    data["splits"]["val"] = data["splits"]["train"]
    del data["sha256"]
    from sbformat.manifest import json_digest

    (shards / "manifest.json").write_text(json.dumps({**data, "sha256": json_digest(data)}))
    shutil.rmtree(shards / "val")
    shutil.copytree(shards / "train", shards / "val")

    assert invoke(*command(own_run, shards, "--layers", "conv4", "--min-steps", "60")).exit_code == 0

    (content,) = found(own_run).values()
    assert content["results"][0]["top1"]["mean"] == 1.0
    assert content["neighbors"][0]["top1"] == 1.0


@pytest.mark.parametrize("method", [("--method", "denoising", "--network", "autoencoder")])
def test_other_methods_are_probed_too(method: tuple[str, ...], few: Path, tmp_path: Path) -> None:
    assert (
        invoke(*pretrain(few / "lab", tmp_path / "run", "--split", "train", "--stop-after", "1", *method)).exit_code
        == 0
    )

    result = invoke(*command(tmp_path / "run", few, "--layers", ""))

    assert result.exit_code == 0, result.output
    (content,) = found(tmp_path / "run").values()
    assert [layer["layer"] for layer in content["results"]] == ["conv1", "conv2", "conv3", "conv4"]


# --------------------------------------------------------------------------------------------- refused and stopped


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--layers", "conv9"), 2, "layer 'conv9', this run's network has conv1, conv2, conv3, conv4, logits"),
        (("--labels-per-class", "1,2"), 2, "labels per class '1,2', expected one number from 1 on, or all"),
        (("--labels-per-class", "9"), 2, "class cat has 8 images. Use at most 8, or all"),
        (("--labels-per-class", "x"), 2, "'x' is neither a number from 1 on nor all"),
        (("--dimensions", "0"), 2, "dimensions 0, expected 1 or more"),
        (("--draws", "0"), 2, "draws 0, expected 1 or more"),
        (("--lr", "1e38"), 1, "not finite"),
        (("--eval-split", "train"), 2, "a result on training images says nothing"),
        (("--eval-split", "test"), 1, "no test. Choose another with --eval-split"),
        (("--layer", "conv1"), 2, "--layers"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_wrong_option_is_refused(options: tuple[str, ...], code: int, message: str, few: Path, own_run: Path) -> None:
    result = invoke(*command(own_run, few, *options))

    assert result.exit_code == code, result.output
    assert message in re.sub(r"\s+", " ", result.output)
    assert found(own_run) == {}


def test_a_split_without_labels_is_refused(shards: Path, own_run: Path) -> None:
    result = invoke(*command(own_run, shards / "lab", "--split", "unlabeled"))

    assert result.exit_code == 1
    assert "no val" in result.output or "has no label" in result.output


def test_a_run_folder_in_use_is_refused(few: Path, own_run: Path) -> None:
    with only_one(own_run):
        result = invoke(*command(own_run, few))

    assert result.exit_code == 1
    assert "Wait for it or end it" in result.output


def test_a_damaged_result_is_not_overwritten(few: Path, own_run: Path) -> None:
    assert invoke(*command(own_run, few)).exit_code == 0
    path = next((own_run / "results").glob("probe-*"))
    path.write_text(path.read_text().replace('"steps"', '"stops"'))

    result = invoke(*command(own_run, few))

    assert result.exit_code == 1
    assert f"{path}: not a result of this command" in result.output


def test_more_layers_and_draws_go_into_the_same_file(few: Path, own_run: Path) -> None:
    assert invoke(*command(own_run, few, "--layers", "conv4", "--draws", "1")).exit_code == 0
    again = invoke(*command(own_run, few, "--draws", "2"))

    assert again.exit_code == 0
    assert "3 of 3:" in again.output
    (content,) = found(own_run).values()
    assert [(fit["layer"], fit["draw"]) for fit in content["fits"]] == [
        (f"conv{n}", draw) for n in (3, 4) for draw in (0, 1)
    ]


#: A result is written with one fsync of the file and one of its folder: number 2 is in the middle of the second fit's.
SECOND = ("fsync", 2)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, EXIT_REQUEUE), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_a_stop_keeps_finished_layers_and_the_same_command_does_the_rest(
    number: signal.Signals, code: int, few: Path, own_run: Path, tmp_path: Path
) -> None:
    whole = shutil.copytree(own_run, tmp_path / "whole")
    assert invoke(*command(whole, few)).exit_code == 0

    assert run_apart(command(own_run, few), SECOND, number) == code

    assert [len(content["fits"]) for content in found(own_run).values()] == [1 if number == signal.SIGKILL else 2]
    assert invoke(*command(own_run, few)).exit_code == 0
    assert found(own_run) == found(whole)
    assert litter(own_run) == []


def test_features_that_are_computed_are_said_once_with_their_images(few: Path, own_run: Path) -> None:
    result = invoke(*command(own_run, few))

    assert result.output.count("computing features") == 1
    assert "computing features of 36 images, for every layer" in result.output
