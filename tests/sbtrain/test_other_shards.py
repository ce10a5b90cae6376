"""Shards that are not what a command needs: it says so before anything else, with an option or a command that helps."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from labeled_sets import labeled_shards
from runs import command
from sbformat.manifest import open_manifest
from sbformat.rebuild import build_command
from sbformat.schema import TargetSpec
from sbtrain.cli import main

SIMSIAM = ("--method", "simsiam", "--network", "half:simplenet", "--split", "train", "--stop-after", "0")
#: The least that each command does.
JUDGES = {
    "finetune": (
        "--samples-per-class",
        "1",
        "--draws",
        "1",
        "--epochs",
        "1",
        "--min-steps",
        "1",
        "--eval-split",
        "val",
    ),
    "probe": (
        "--layers",
        "backbone",
        "--labels-per-class",
        "1",
        "--draws",
        "1",
        "--epochs",
        "1",
        "--eval-split",
        "val",
    ),
    "cluster": ("--draws", "1", "--split", "val"),
}


@pytest.fixture(scope="module")
def siamese(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run of SimSiam without a step, on images of 64 x 64 with targets of 4 x 4."""
    run_dir = tmp_path_factory.mktemp("siamese") / "run"
    assert invoke(*command(few / "rgb", run_dir, *SIMSIAM)).exit_code == 0
    return run_dir


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def judge(name: str, run_dir: Path, shards: Path, *more: str) -> Result:
    options = ("--run", str(run_dir), "--shards", str(shards), "--device", "cpu")
    return invoke(name, *options, *JUDGES[name], *more)


@pytest.mark.parametrize("name", JUDGES)
def test_other_target_maps_are_no_obstacle_for_a_method_without_targets(
    name: str, siamese: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "other-targets"
    if not folder.exists():
        labeled_shards(folder, 9, 6, target=TargetSpec(size=8, dual=5))

    result = judge(name, siamese, folder / "rgb")

    assert result.exit_code == 0, result.output
    assert "not the images that the run learned from, which it can be judged by as well\n" in result.output


@pytest.mark.parametrize(
    ("name", "given", "option"),
    [
        ("cluster", ("--learn-split", "unlabeled"), "--learn-split"),
        ("cluster", ("--split", "unlabeled"), "--split"),
        ("cluster", ("--split", "train", "--learn-split", "test"), "--learn-split"),
        ("finetune", ("--eval-split", "test"), "--eval-split"),
        ("probe", ("--split", "test"), "--split"),
    ],
)
def test_a_split_that_is_not_there_is_said_first_with_the_option_that_named_it(
    name: str, given: tuple[str, ...], option: str, few: Path, siamese: Path
) -> None:
    result = judge(name, siamese, few, *given)

    split = given[-1]
    assert result.exit_code == 1
    assert result.output.startswith(
        f"Error: {few / 'rgb'} has splits train, val, no {split}. Choose another with {option},"
    )


def test_a_split_without_labels_is_said_before_any_remark(siamese: Path, shards: Path) -> None:
    result = judge("cluster", siamese, shards, "--split", "unlabeled")

    assert result.exit_code == 1
    assert result.output.startswith(
        f"Error: {shards / 'rgb'}: split unlabeled has no labels. Choose a labeled split with"
    )
    assert "--split (train, val), or build one" in result.output


@pytest.mark.parametrize("place", ["", "lab"])
@pytest.mark.parametrize("more", [(), ("--preset", "modern/simsiam-cifar10")])
def test_a_method_that_sees_rgb_alone_names_the_command_that_makes_it(
    place: str, more: tuple[str, ...], own_shards: Path, tmp_path: Path
) -> None:
    """Where no other color space could be chosen, none is offered."""
    result = invoke(*command(own_shards / place, tmp_path / "run", *SIMSIAM, *more))

    assert result.exit_code == 1
    assert "no rgb here, it holds lab, and simsiam sees rgb alone" in result.output
    assert "--colorspace with" not in result.output
    assert re.search(
        rf"sbprep build .*--colorspace rgb --out {own_shards} --image-size 64 --target-size 4", result.output
    )


def test_a_method_that_sees_rgb_alone_takes_it_where_there_are_several(few: Path, tmp_path: Path) -> None:
    result = invoke(*command(few, tmp_path / "run", *SIMSIAM))

    assert result.exit_code == 0, result.output
    assert "on rgb" in result.output


def test_a_command_that_builds_the_like_names_bins_that_are_not_uniform(few: Path) -> None:
    made = build_command(open_manifest(few, "lab"), "lab", 96, TargetSpec(bins="zhang"), Path("out"))

    assert "--colorspace lab --out out --bins zhang --" in made
