"""Folds: ten subsets of a split named by places in its source, one fit each."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from builds import small_config
from runs import CPU
from sbformat.errors import ConfigError
from sbformat.manifest import open_manifest
from sbformat.schema import TargetSpec
from sbprep.pipeline import build
from sbtrain.cli import main
from sbtrain.evaluation.few_shot import interval
from sbtrain.evaluation.folds import read_folds
from sbtrain.evaluation.labeled import Labeled

IMAGES = 300  # more than a byte counts


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 images in a known order, image i of class i % 3. Not to be changed."""
    root = tmp_path_factory.mktemp("digits")
    generator = np.random.default_rng(0)
    for split, count in (("train", IMAGES), ("val", 12)):
        images = generator.integers(0, 256, (count, 64, 64, 3)).astype(np.uint8)
        np.savez(root / f"{split}.npz", images=images, labels=np.arange(count) % 3)
    paths = {split: root / f"{split}.npz" for split in ("train", "val")}
    build(small_config(None, root / "shards", "lab", paths=paths, image_size=64, target=TargetSpec(size=4)))
    return root / "shards"


def write_folds(path: Path, size: int = 6) -> list[list[int]]:
    """Ten folds, the first of the last images: places that need more than a byte."""
    folds = [list(range(IMAGES - size * (k + 1), IMAGES - size * k)) for k in range(10)]
    path.write_text("\n".join(" ".join(map(str, fold)) for fold in folds) + "\n")
    return folds


def invoke(run_dir: Path, shards: Path, path: Path, *more: str) -> Result:
    few = ("--min-steps", "2", "--epochs", "1", "--freeze", "--device", "cpu")
    arguments = ["finetune", "--run", str(run_dir), "--shards", str(shards), "--folds", str(path), *few, *more]
    return CliRunner().invoke(main, arguments)


def test_a_fold_is_the_rows_of_its_images_wherever_the_shards_have_them(digits: Path, tmp_path: Path) -> None:
    folds = write_folds(tmp_path / "fold_indices.txt")
    manifest = open_manifest(digits)

    rows = read_folds(tmp_path / "fold_indices.txt", manifest, "train").rows

    labels = Labeled(manifest, "train", ("image",), CPU.device).labels
    assert [labels[mine].tolist() for mine in rows] == [[place % 3 for place in fold] for fold in folds]
    assert all(mine.dtype == np.int64 for mine in rows)
    assert len(np.unique(np.concatenate(rows))) == 60


def test_ten_fits_give_a_mean_with_the_interval_over_folds(digits: Path, own_run: Path, tmp_path: Path) -> None:
    write_folds(tmp_path / "fold_indices.txt")

    result = invoke(own_run, digits, tmp_path / "fold_indices.txt")

    assert result.exit_code == 0, result.output
    (path,) = (own_run / "results").glob("finetune-*-folds-*.json")
    data = json.loads(path.read_bytes())
    assert [(fit["draw"], fit["images"]) for fit in data["fits"]] == [(draw, 6) for draw in range(10)]
    assert data["results"][0]["top1"] == interval([fit["top1"] for fit in data["fits"]]).to_json()
    assert data["config"]["folds"] == 10
    assert str(tmp_path) not in path.read_text()
    assert "mean ± 95 % interval of 10 draws, one a fold" in result.stdout


def test_other_folds_are_another_result(digits: Path, own_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "fold_indices.txt"
    for size in (6, 9):
        write_folds(path, size)
        assert invoke(own_run, digits, path, "--draws", "1").exit_code == 0

    assert len(list((own_run / "results").glob("finetune-*-folds-*.json"))) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:9], "9 lines, expected 10, one a fold"),
        (lambda lines: [*lines, lines[0]], "11 lines, expected 10"),
        (lambda lines: ["300 " + lines[0][4:], *lines[1:]], "line 1: '300', expected a number from 0 to 299"),
        (lambda lines: ["-1 " + lines[0][4:], *lines[1:]], "line 1: '-1', expected a number from 0"),
        (lambda lines: [*lines[:9], lines[9] + " x"], "line 10: 'x', expected a number"),
        (lambda lines: [*lines[:9], lines[9].rsplit(" ", 1)[0]], "folds of 6, 6, 6, 6, 6, 6, 6, 6, 6, 5 images"),
        (lambda lines: ["294 294 295 296 297 298", *lines[1:]], "line 1: image 294 twice"),
    ],
)
def test_a_file_that_cannot_be_is_refused(change: object, message: str, digits: Path, tmp_path: Path) -> None:
    path = tmp_path / "fold_indices.txt"
    write_folds(path)
    path.write_text("\n".join(change(path.read_text().splitlines())))  # type: ignore[operator]

    with pytest.raises(ConfigError, match=re.escape(message)):
        read_folds(path, open_manifest(digits), "train")


def test_a_file_that_is_not_there_is_named(digits: Path, own_run: Path, tmp_path: Path) -> None:
    result = invoke(own_run, digits, tmp_path / "none.txt")

    assert result.exit_code == 2
    assert "Give fold_indices.txt of STL-10" in re.sub(r"\s+", " ", result.output)


@pytest.mark.parametrize("more", [("--samples-per-class", "4"), ("--draws", "11")])
def test_folds_leave_no_choice_of_images(more: tuple[str, ...], digits: Path, own_run: Path, tmp_path: Path) -> None:
    write_folds(tmp_path / "fold_indices.txt")

    result = invoke(own_run, digits, tmp_path / "fold_indices.txt", *more)

    assert result.exit_code == 2
    assert "folds say which images: use --samples-per-class all, and at most 10 draws" in re.sub(
        r"\s+", " ", result.output
    )


def test_shards_of_some_images_alone_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", images=np.zeros((9, 16, 16, 3), np.uint8), labels=np.arange(9) % 2)
    build(small_config(None, tmp_path / "shards", "lab", paths={"train": tmp_path / "some.npz"}, limit=6))
    write_folds(tmp_path / "fold_indices.txt")

    with pytest.raises(ConfigError, match="built with --limit 6"):
        read_folds(tmp_path / "fold_indices.txt", open_manifest(tmp_path / "shards"), "train")


def test_places_of_stl10_are_those_of_its_own_files(tmp_path: Path) -> None:
    """As sbprep reads them: image i of train_X.bin has the label i of train_y.bin."""
    source, generator = tmp_path / "stl10_binary", np.random.default_rng(0)
    source.mkdir()
    labels = generator.integers(1, 11, 60).astype(np.uint8)
    (source / "train_X.bin").write_bytes(generator.integers(0, 256, 60 * 27_648, np.uint8).tobytes())
    (source / "train_y.bin").write_bytes(labels.tobytes())
    folds = [[6 * k + i for i in range(6)] for k in range(10)]
    (source / "fold_indices.txt").write_text("\n".join(" ".join(map(str, fold)) for fold in folds))
    build(small_config(source, tmp_path / "shards", "rgb"))
    manifest = open_manifest(tmp_path / "shards")

    rows = read_folds(source / "fold_indices.txt", manifest, "train").rows

    stored = Labeled(manifest, "train", ("image",), CPU.device).labels
    assert [stored[mine].tolist() for mine in rows] == [(labels[fold].astype(int) - 1).tolist() for fold in folds]
