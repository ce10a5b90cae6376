"""``sbtrain reconstruct``: pictures and numbers of a run, and what it refuses."""

import json
import re
import shutil
from dataclasses import fields
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import nn

from runs import CPU, command
from sbformat.manifest import open_manifest
from sbformat.permutation import permute
from sbformat.schema import fixed_range, values_from_bins, values_from_image
from sbformat.shard import open_shard
from sbtrain.cli import main
from sbtrain.evaluation.pretrained import open_pretrained
from sbtrain.pictures.decoding import rgb_from_values
from sbtrain.pictures.picture_grid import GAP, HEADING, TILE
from sbtrain.pictures.reconstruct import ReconstructConfig, reconstruct
from sbtrain.pictures.reconstruct_cli import FIELD_HELP

SHORT = ("--epochs", "1", "--limit", "8")
STEP = -(-TILE // 64) * 64 + GAP  # 64 x 64 images, enlarged to a multiple of their size


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def run_of(space: str, shards: Path, tmp_path: Path, *more: str) -> Path:
    result = invoke(*command(shards, tmp_path / "run", "--colorspace", space, *SHORT, *more))
    assert result.exit_code == 0, result.output
    return tmp_path / "run"


def record(run_dir: Path, split: str = "unlabeled") -> dict[str, Any]:
    data: dict[str, Any] = json.loads((run_dir / "results" / f"reconstruct-{split}.json").read_text())
    return data


def picture(run_dir: Path, figure: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(BytesIO((run_dir / "results" / figure["file"]).read_bytes())).convert("RGB"))


def tile(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    y, x = HEADING + row * STEP, GAP + column * STEP
    return sheet[y : y + STEP - GAP, x : x + STEP - GAP]


def test_a_run_gets_a_picture_and_numbers(own_run: Path, shards: Path) -> None:
    result = invoke("reconstruct", "--run", own_run, "--shards", shards, "--split", "unlabeled", "--images", "3")

    assert result.exit_code == 0, result.output
    found = record(own_run)
    assert (found["format"], found["version"], found["scores"]["images"]) == ("sbtrain-reconstruct", 1, 48)
    (figure,) = found["figures"]
    assert figure["columns"] == ["original", "4 × 4 means", "4 × 4 target", "arg-max", "expectation"]
    assert len(figure["rows"]) == 3
    assert picture(own_run, figure).shape == (HEADING + 3 * STEP, 5 * STEP + GAP, 3)
    assert found["run"]["checkpoint"]["step"] == 12


def test_the_picture_shows_the_images_their_means_and_their_own_bins(own_run: Path, shards: Path) -> None:
    invoke("reconstruct", "--run", own_run, "--shards", shards, "--split", "unlabeled", "--images", "2")
    sheet = picture(own_run, record(own_run)["figures"][0])
    manifest = open_manifest(shards, "lab")
    with open_shard(manifest, "unlabeled", manifest.splits["unlabeled"].shards[0]) as shard:
        single, dual = shard.read("target_single", 0, 2), shard.read("target_dual", 0, 2)
        levels = shard.read("image", 0, 2).astype(np.float32)

    means = levels.reshape(2, 3, 4, 16, 4, 16).mean((3, 5))
    downsized = rgb_from_values(values_from_image(means, "lab", None), "lab").astype(int)
    cells = rgb_from_values(values_from_bins(single, dual, fixed_range("lab"), manifest.target), "lab")

    every = (STEP - GAP) // 4
    assert abs(tile(sheet, 1, 1)[::every, ::every] - downsized[1]).max() <= 1
    assert (tile(sheet, 1, 2)[::every, ::every] == cells[1]).all()


@pytest.mark.parametrize("space", ["rgb", "rescaled_lab"])
def test_a_network_that_is_right_reconstructs_its_target(shards: Path, tmp_path: Path, space: str) -> None:
    """Halves that answer with the very bins of the targets: every share is 1, every arg-max error 0."""
    run_dir = run_of(space, shards, tmp_path)
    pretrained = open_pretrained(run_dir, shards, "unlabeled", lambda _: None)
    target, manifest = pretrained.manifest.target, pretrained.manifest
    (first, *_) = manifest.splits["unlabeled"].shards
    with open_shard(manifest, "unlabeled", first) as shard:
        answers = {name: shard.read(name, 0, 8).astype(np.int64) for name in ("target_single", "target_dual")}

    class Right(nn.Module):
        def __init__(self, name: str, classes: int) -> None:
            super().__init__()
            one_hot = nn.functional.one_hot(torch.from_numpy(answers[name]), classes)
            self.logits = one_hot.permute(0, 3, 1, 2) * 50.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.logits

    pretrained.method.F1 = Right("target_dual", target.dual_classes)  # type: ignore[union-attr, assignment]
    pretrained.method.F2 = Right("target_single", target.single_classes)  # type: ignore[union-attr, assignment]
    config = ReconstructConfig(split="unlabeled", images=8, score_images=8)

    scores = reconstruct(pretrained, config, CPU, run_dir / "results", lambda _: None)["scores"]

    assert scores["right_dual"]["mean"] == scores["right_single"]["mean"] == 1
    assert scores["delta_e_argmax"]["mean"] == 0
    assert scores["delta_e_expectation"]["mean"] < 1e-3


def test_a_rescaled_run_is_shown_by_the_fixed_range_too(shards: Path, tmp_path: Path) -> None:
    run_dir = run_of("rescaled_lab", shards, tmp_path)

    invoke("reconstruct", "--run", run_dir, "--shards", shards, "--split", "unlabeled", "--images", "2")

    own, fixed = (picture(run_dir, figure) for figure in record(run_dir)["figures"])
    assert (tile(own, 0, 0) == tile(fixed, 0, 0)).all()
    assert (tile(own, 0, 1) == tile(fixed, 0, 1)).all()
    assert (tile(own, 0, 2) != tile(fixed, 0, 2)).any()


def test_a_regression_run_shows_means(shards: Path, tmp_path: Path) -> None:
    run_dir = run_of("lab", shards, tmp_path, "--loss", "regression")

    result = invoke("reconstruct", "--run", run_dir, "--shards", shards, "--split", "unlabeled")

    assert result.exit_code == 0, result.output
    assert record(run_dir)["figures"][0]["columns"] == ["original", "4 × 4 means", "regression"]
    assert list(record(run_dir)["scores"]) == ["images", "delta_e_regression"]


def test_a_denoising_run_shows_what_was_corrupted(shards: Path, tmp_path: Path) -> None:
    run_dir = run_of("rgb", shards, tmp_path, "--method", "denoising", "--network", "autoencoder")

    result = invoke("reconstruct", "--run", run_dir, "--shards", shards, "--split", "unlabeled", "--images", "2")

    assert result.exit_code == 0, result.output
    sheet = picture(run_dir, record(run_dir)["figures"][0])
    changed = (tile(sheet, 0, 0) != tile(sheet, 0, 1)).any(axis=-1).mean()
    assert 0.1 < changed < 0.16  # of three values 5 % each, some of which were 0 or 255 before


def test_decoding_can_be_one_alone(own_run: Path, shards: Path) -> None:
    invoke("reconstruct", "--run", own_run, "--shards", shards, "--split", "unlabeled", "--decode", "expectation")

    assert record(own_run)["figures"][0]["columns"] == ["original", "4 × 4 means", "4 × 4 target", "expectation"]
    assert "delta_e_argmax" not in record(own_run)["scores"]


def test_a_seed_chooses_images_by_the_permutation() -> None:
    config = ReconstructConfig(images=2, score_images=4, seed=7)

    assert config.rows(100).tolist() == [permute(i, 100, 7, 0) for i in range(4)]
    assert ReconstructConfig(images=2, score_images=4).rows(3).tolist() == [0, 1, 2]


def test_more_images_are_scored_than_shown(own_run: Path, shards: Path) -> None:
    invoke(
        "reconstruct", "--run", own_run, "--shards", shards, "--split", "unlabeled", "--images", "3", "--score-images", "2"
    )  # fmt: skip

    assert record(own_run)["scores"]["images"] == 2
    assert len(record(own_run)["figures"][0]["rows"]) == 3


def test_out_takes_pictures_and_numbers(own_run: Path, shards: Path, tmp_path: Path) -> None:
    invoke("reconstruct", "--run", own_run, "--shards", shards, "--split", "unlabeled", "--out", tmp_path / "a" / "b")

    assert sorted(path.name for path in (tmp_path / "a" / "b").rglob("*")) == [
        "reconstruct", "reconstruct-unlabeled.json", "unlabeled.png",
    ]  # fmt: skip
    assert not (own_run / "results" / "reconstruct").exists()


def test_the_same_command_writes_the_same_bytes(own_run: Path, shards: Path) -> None:
    written = []
    for _ in range(2):
        invoke("reconstruct", "--run", own_run, "--shards", shards, "--split", "unlabeled")
        written.append([path.read_bytes() for path in sorted((own_run / "results").rglob("*unlabeled*"))])

    assert written[0] == written[1]


def test_every_field_of_the_config_has_an_option_with_help() -> None:
    assert list(FIELD_HELP) == [field.name for field in fields(ReconstructConfig)]


def test_the_example_of_the_help_is_a_command(own_run: Path, shards: Path) -> None:
    example = re.search(r"Example:\n +sbtrain ([^\n]+)\n\Z", invoke("reconstruct", "-h").output)
    assert example is not None
    arguments = example[1].replace("runs/NAME", str(own_run)).replace("data_cache", str(shards)).split()

    result = invoke(*arguments, "--split", "unlabeled")

    assert result.exit_code == 0, result.output


# ------------------------------------------------------------------------------------------------------- bad input


def test_a_split_that_is_not_there_is_named_with_those_that_are(own_run: Path, shards: Path) -> None:
    result = invoke("reconstruct", "--run", own_run, "--shards", shards, "--split", "test")

    assert result.exit_code == 1
    assert "has splits unlabeled" in result.output


@pytest.mark.parametrize("option", ["--images", "--score-images"])
def test_a_number_of_images_out_of_range_is_refused(own_run: Path, shards: Path, option: str) -> None:
    result = invoke("reconstruct", "--run", own_run, "--shards", shards, option, "0")

    assert result.exit_code == 2
    assert "expected 1 or more" in result.output


def test_a_run_without_a_checkpoint_is_refused(own_run: Path, shards: Path) -> None:
    shutil.rmtree(own_run / "checkpoints")

    result = invoke("reconstruct", "--run", own_run, "--shards", shards, "--split", "unlabeled")

    assert result.exit_code == 1
    assert "no checkpoint" in result.output


def test_a_missing_shard_is_named(own_run: Path, own_shards: Path) -> None:
    (own_shards / "lab" / "unlabeled" / "shard-00001.h5").unlink()

    result = invoke("reconstruct", "--run", own_run, "--shards", own_shards, "--split", "unlabeled")

    assert result.exit_code == 1
    assert "shard-00001.h5: missing" in result.output


def test_a_network_that_answers_nothing_finite_is_refused(own_run: Path, shards: Path) -> None:
    pretrained = open_pretrained(own_run, shards, "unlabeled", lambda _: None)
    with torch.no_grad():
        next(pretrained.method.parameters()).fill_(float("nan"))

    with pytest.raises(Exception, match="not finite"):
        reconstruct(pretrained, ReconstructConfig(split="unlabeled"), CPU, own_run / "results", lambda _: None)

    assert not (own_run / "results" / "reconstruct").exists()


def test_a_listing_that_is_gone_leaves_numbers(own_run: Path, own_shards: Path) -> None:
    (own_shards / "lab" / "unlabeled" / "sources.txt").unlink()

    result = invoke("reconstruct", "--run", own_run, "--shards", own_shards, "--split", "unlabeled", "--images", "1")

    assert result.exit_code == 0, result.output
    assert re.fullmatch(r"source \d+", record(own_run)["figures"][0]["rows"][0])
