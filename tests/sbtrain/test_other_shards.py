"""Shards that are not what a command needs: it says so before anything else, with an option or a command that helps."""

import re
import shlex
from dataclasses import replace
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
    assert "not the shards that the run learned from, but it can be judged by them as well\n" in result.output


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


def test_a_command_that_builds_the_like_can_be_pasted_where_paths_have_blanks(few: Path) -> None:
    base = open_manifest(few, "lab")
    source = {"option": "train", "path": "/my images/it's"}
    base = replace(base, splits={"train": replace(base.splits["train"], source=source)})

    made = shlex.split(build_command(base, "lab", 96, TargetSpec(), Path("my shards")))

    assert made[:4] == ["sbprep", "build", "--train", "/my images/it's"]
    assert made[made.index("--out") + 1] == "my shards"


@pytest.mark.parametrize(("place", "given"), [("rgb", "."), ("", "rgb")])
def test_shards_named_from_inside_are_built_anew_beside_their_folder(
    place: str, given: str, siamese: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = labeled_shards(tmp_path / "other", 9, 6, image_size=32)
    monkeypatch.chdir(made / place)

    result = judge("finetune", siamese, Path(given))

    assert result.exit_code == 1
    assert f"--out {tmp_path / 'other-64-4'} " in result.output, result.output


def test_rgb_of_shards_named_from_inside_is_built_in_the_folder_above(
    own_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_shards / "lab")

    result = invoke(*command(Path(), tmp_path / "run", *SIMSIAM))

    assert result.exit_code == 1
    assert f"--colorspace rgb --out {own_shards} " in result.output


def test_an_export_names_no_option_that_it_does_not_have(few: Path, shards: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    begun = invoke(*command(shards / "rgb", run_dir, *SIMSIAM, "--split", "unlabeled"))
    assert begun.exit_code == 0, begun.output

    result = invoke("export", "--run", str(run_dir), "--shards", str(few / "rgb"), "--out", str(tmp_path / "encoder"))

    assert result.exit_code == 1
    assert "has splits train, val, no unlabeled. Choose shards that have it, --shards, or build it" in result.output
