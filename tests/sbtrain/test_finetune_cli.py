"""``sbtrain finetune`` at the command line: its tables, what it refuses, and that a stop loses no finished fit."""

import json
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from labeled_sets import labeled_shards
from runs import command as pretrain
from runs import litter, run_apart
from sbformat.manifest import json_digest
from sbformat.schema import TargetSpec
from sbtrain.cli import main
from sbtrain.evaluation.command import interruptible
from sbtrain.evaluation.finetune_cli import FIELD_HELP
from sbtrain.evaluation.finetune_config import FinetuneConfig
from sbtrain.evaluation.fitting import Interrupted
from sbtrain.runtime import EXIT_REQUEUE, only_one


@pytest.fixture
def own_few(few: Path, tmp_path: Path) -> Path:
    """Return a copy of the lab shards that the test may change."""
    return shutil.copytree(few / "lab", tmp_path / "few" / "lab")


def command(run_dir: Path, shards: Path, *more: str) -> list[str]:
    """Return the arguments of four short frozen fits; later options win."""
    few = ("--samples-per-class", "1,2", "--draws", "2", "--min-steps", "2", "--epochs", "1", "--freeze")
    return ["finetune", "--run", str(run_dir), "--shards", str(shards), "--device", "cpu", *few, *more]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def found(run_dir: Path) -> dict[str, list[dict[str, Any]]]:
    """Every result file: its name and its fits without what depends on the clock."""
    files = sorted((run_dir / "results").glob("finetune-*.json"))
    return {
        file.name: [{**fit, "seconds": None} for fit in json.loads(file.read_bytes())["fits"]] for file in files
    }  # fmt: skip


def edit(shards: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = shards / "manifest.json"
    data = json.loads(path.read_text())
    del data["sha256"]
    change(data)
    path.write_text(json.dumps({**data, "sha256": json_digest(data)}))


# ----------------------------------------------------------------------------------------------------- what it says


def test_the_examples_of_the_help_work(few: Path, own_run: Path) -> None:
    example = re.search(r"Example:\n +sbtrain ([^\n]+)\n\Z", invoke("finetune", "-h").output)
    assert example is not None
    arguments = example[1].replace("runs/NAME", str(own_run)).replace("data_cache", str(few)).split()

    result = invoke(*arguments, "--samples-per-class", "1,4", "--draws", "2", "--min-steps", "1", "--epochs", "1")

    assert result.exit_code == 0, result.output


def test_every_field_of_the_config_has_an_option_with_help() -> None:
    output = invoke("finetune", "-h").output

    assert set(FIELD_HELP) == {field.name for field in fields(FinetuneConfig)}
    assert all("--" + name.replace("_", "-") in output for name in FIELD_HELP)


def test_a_table_gives_means_with_intervals(few: Path, own_run: Path) -> None:
    result = invoke(*command(own_run, few, "--samples-per-class", "all,2,1"))

    rows = [line.strip("| ").split(" | ") for line in result.stdout.splitlines() if line.startswith("|")]
    assert [[cell.strip() for cell in row[:2]] for row in rows[2:]] == [["1", "3"], ["2", "6"], ["all", "24"]]
    assert all(re.fullmatch(r" *\d+\.\d\d ± \d+\.\d\d", row[2]) for row in rows[2:])
    assert "12 images of val, 3 classes, chance 33.3 %; mean ± 95 % interval of 2 draws" in result.stdout


def test_a_comparison_gives_the_gain_draw_by_draw(few: Path, own_run: Path) -> None:
    result = invoke(*command(own_run, few, "--compare"))

    ours, control = (
        fits for _, fits in sorted(found(own_run).items(), key=lambda result: "scratch" in result[0])
    )  # fmt: skip
    gains = [100 * (a["top1"] - b["top1"]) for a, b in zip(ours, control, strict=True) if a["samples"] == 2]
    row = next(line for line in result.stdout.splitlines() if re.match(r"\| +2 \|", line)).split("|")
    assert row[4].strip().startswith(f"{np.mean(gains):.2f} ±")


def test_a_folder_of_several_color_spaces_gives_the_runs_own(few: Path, own_run: Path) -> None:
    result = invoke(*command(own_run, few))

    assert result.exit_code == 0, result.output
    data = json.loads(next((own_run / "results").glob("finetune-*")).read_bytes())["data"]
    assert data["train"]["colorspace"] == "lab"


def test_statistics_of_other_images_are_named(few: Path, shards: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert invoke(*pretrain(shards / "lab", run_dir, "--normalize", "standard", "--stop-after", "1")).exit_code == 0

    result = invoke(*command(run_dir, few))

    assert result.exit_code == 0, result.output
    assert "but it can be judged by them as well: normalized by the statistics of their split train" in result.output


def test_samples_too_few_to_stop_early_by_are_named_once(few: Path, own_run: Path) -> None:
    result = invoke(*command(own_run, few, "--samples-per-class", "1,2,5,all", "--hold-out", "0.2", "--compare"))

    assert result.exit_code == 0, result.output
    assert result.output.count("hold-out 0.2 of 1, 2 per class is no image") == 1


@pytest.mark.parametrize(("more", "times"), [(("--compare",), 1), (("--from-scratch",), 0)])
def test_reporting_the_images_of_pretraining_is_remarked(
    more: tuple[str, ...], times: int, few: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    assert invoke(*pretrain(few / "lab", run_dir, "--split", "val", "--stop-after", "1")).exit_code == 0

    result = invoke(*command(run_dir, few, *more))

    assert result.exit_code == 0, result.output
    assert result.output.count("the run was pretrained on the images of split val, which are reported") == times


# --------------------------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--samples-per-class", "1,two"), 2, "'two' is neither a number from 1 on nor all"),
        (("--samples-per-class", "0"), 2, "'0' is neither"),
        (("--samples-per-class", ""), 2, "'' is neither"),
        (("--samples-per-class", "1,9"), 2, "9 samples per class, class cat has 8 images. Use at most 8, or all"),
        (("--samples-per-class", "9", "--protocol", "report"), 2, "3 classes are 27 images, the split has 24"),
        (("--layer", "conv9"), 2, "layer 'conv9', this run's network has conv1, conv2, conv3, conv4, logits"),
        (("--pool", "5"), 2, "logits has 4 x 4 cells. Use --pool 4 or less"),
        (("--draws", "0"), 2, "draws 0, expected 1 or more"),
        (("--lr", "0"), 2, "lr 0.0, expected more than 0"),
        (("--lr", "nan"), 2, "lr nan, expected a finite number"),
        (("--lr", "inf"), 2, "lr inf, expected a finite number"),
        (("--weight-decay", "inf"), 2, "weight_decay inf, expected a finite number"),
        (("--seed", "99999999999999999999999"), 2, "seed 99999999999999999999999, expected less than 2^63"),
        (("--seed", "-1"), 2, "seed -1, expected 0 or more"),
        (("--lr", "1e38"), 1, "loss or weights were not finite in 2 steps on 3 images"),
        (("--hold-out", "0.6"), 2, "expected a share of 0 to 0.5"),
        (("--eval-split", "train"), 2, "a result on training images says nothing"),
        (("--split", "unlabeled"), 1, "has splits train, val, no unlabeled"),
        (("--eval-split", "test"), 1, "no test. Choose another with --eval-split"),
        (("--device", "cuda:9"), 2, "sees"),
        (("--protocol", "seed"), 2, "report"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_wrong_option_is_refused(options: tuple[str, ...], code: int, message: str, few: Path, own_run: Path) -> None:
    result = invoke(*command(own_run, few, *options))

    assert result.exit_code == code, result.output
    assert message in re.sub(r"\s+", " ", result.output)
    assert found(own_run) == {}


def test_a_split_without_labels_is_refused(shards: Path, own_run: Path) -> None:
    result = invoke(*command(own_run, shards, "--split", "unlabeled"))

    assert result.exit_code == 1
    assert "split unlabeled has no labels. Choose a labeled split" in result.output


def test_shards_of_another_kind_are_refused_field_by_field(own_run: Path, few: Path, tmp_path: Path) -> None:
    other = labeled_shards(tmp_path / "other", 6, 6, image_size=32, target=TargetSpec(size=8))

    result = invoke(*command(own_run, other / "rgb"))

    assert result.exit_code == 1
    assert "colorspace: lab in the run, rgb here" in result.output
    assert "image_size: 64 in the run, 32 here" in result.output
    assert "target_size: 4 in the run, 8 here" in result.output
    assert "{" not in result.output
    assert f"--colorspace lab --out {other}-64-4 --image-size 64 --target-size 4" in result.output


def test_a_label_that_is_no_class_is_damage(own_few: Path, own_run: Path) -> None:
    edit(own_few, lambda data: data.update(label_names=["cat", "dog"]))

    result = invoke(*command(own_run, own_few))

    assert result.exit_code == 1
    assert "the manifest names 2 classes: damaged" in result.output


def test_no_run_is_refused_and_no_folder_made(few: Path, tmp_path: Path) -> None:
    result = invoke(*command(tmp_path / "none", few))

    assert result.exit_code == 1
    assert "Give the folder of a run: sbtrain pretrain" in result.output
    assert not (tmp_path / "none").exists()


def test_a_run_without_a_checkpoint_is_refused(few: Path, own_run: Path) -> None:
    shutil.rmtree(own_run / "checkpoints")

    result = invoke(*command(own_run, few))

    assert result.exit_code == 1
    assert "no checkpoint, its pretraining has not begun" in result.output


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(few: Path, own_run: Path) -> None:
    (own_run / "checkpoints" / "step-00000012" / "model.safetensors").write_bytes(b"")

    result = invoke(*command(own_run, few))

    assert result.exit_code == 0, result.output
    assert "damaged" in result.output
    assert "simplenet, step 9" in result.output


def test_a_run_folder_in_use_is_refused(few: Path, own_run: Path) -> None:
    with only_one(own_run):
        result = invoke(*command(own_run, few))

    assert result.exit_code == 1
    assert "Wait for it or end it" in result.output


def test_a_folder_that_cannot_be_written_is_named(few: Path, own_run: Path) -> None:
    shutil.rmtree(own_run / "results")
    (own_run / "results").write_text("a file where a folder belongs")

    result = invoke(*command(own_run, few))

    assert result.exit_code == 1
    assert f"{own_run}" in result.output
    assert "Traceback" not in result.output


def test_a_damaged_result_is_not_overwritten(few: Path, own_run: Path) -> None:
    assert invoke(*command(own_run, few)).exit_code == 0
    path = next((own_run / "results").glob("finetune-*"))
    path.write_text(path.read_text()[:-20])

    result = invoke(*command(own_run, few))

    assert result.exit_code == 1
    assert f"{path}: damaged (no whole JSON: " in result.output
    assert "Move it away" in result.output


# -------------------------------------------------------------------------------------------------------- stopping

#: A result is written with one fsync of the file and one of its folder: number 2 is in the middle of the second fit's.
SECOND = ("fsync", 2)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, EXIT_REQUEUE), (signal.SIGUSR2, EXIT_REQUEUE), (signal.SIGINT, 130)]
)
def test_a_signal_ends_between_two_steps_and_keeps_finished_fits(
    number: signal.Signals, code: int, few: Path, own_run: Path, tmp_path: Path
) -> None:
    whole = shutil.copytree(own_run, tmp_path / "whole")
    assert invoke(*command(whole, few)).exit_code == 0

    assert run_apart(command(own_run, few), SECOND, number) == code

    assert [len(fits) for fits in found(own_run).values()] == [2]
    again = invoke(*command(own_run, few))
    assert "2 of 2:" in again.output
    assert found(own_run) == found(whole)


def test_a_killed_command_goes_on_and_leaves_nothing_behind(few: Path, own_run: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(own_run, tmp_path / "whole")
    assert invoke(*command(whole, few)).exit_code == 0

    assert run_apart(command(own_run, few), SECOND, signal.SIGKILL) == -signal.SIGKILL

    assert [len(fits) for fits in found(own_run).values()] == [1]
    assert invoke(*command(own_run, few)).exit_code == 0
    assert found(own_run) == found(whole)
    assert litter(own_run) == []


def test_a_full_disk_keeps_finished_fits(few: Path, own_run: Path) -> None:
    assert run_apart(command(own_run, few), SECOND, file_limit=100) == 1

    assert [len(fits) for fits in found(own_run).values()] == [2]
    assert litter(own_run) == []


@pytest.mark.parametrize(
    ("option", "value", "meant"),
    [("--preset", "simsiam-liner", "simsiam-linear"), ("--augmentation", "crop_filp", "crop_flip")],
)
def test_a_misspelled_value_gets_the_nearest_one(option: str, value: str, meant: str, tmp_path: Path) -> None:
    result = invoke("finetune", "--run", str(tmp_path), option, value)

    assert result.exit_code == 2
    assert f"'{value}', did you mean {meant}? There are " in " ".join(result.output.split())


def test_features_that_are_computed_are_said_once_with_their_images(few: Path, own_run: Path) -> None:
    result = invoke(*command(own_run, few, "--samples-per-class", "all"))

    assert result.output.count("computing features") == 1
    assert "computing features of 36 images, once" in result.output


@pytest.mark.parametrize(
    ("fits", "said"), [(0, "Stopped before anything new was finished: the same command goes on"), (1, "Stopped: saved")]
)
def test_a_stop_says_that_fits_are_saved_where_there_are_some(
    fits: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "earlier.json").write_text("{}")

    def work() -> None:
        for fit in range(fits):
            (tmp_path / "results" / f"{fit}.json").write_text("{}")
        raise Interrupted

    with pytest.raises(SystemExit), interruptible("Stopped: saved", tmp_path):
        work()

    assert capsys.readouterr().err.splitlines() == [said]
