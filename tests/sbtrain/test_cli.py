"""The trainer's command line: what it accepts, what it refuses and how it says so."""

import json
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import sbformat
from builds import environment, tree
from runs import command
from sbformat.manifest import Manifest, json_digest
from sbtrain.cli import COMMANDS, main
from sbtrain.config import PretrainConfig
from sbtrain.pretrain_cli import FIELD_HELP


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_the_trainer_says_its_version() -> None:
    result = invoke("--version")

    assert result.exit_code == 0
    assert sbformat.__version__ in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_short_help_works_everywhere_and_ends_with_an_example(name: str) -> None:
    result = invoke(name, "-h")

    assert result.exit_code == 0
    assert "Example:" in result.output
    assert name in invoke("-h").output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pretrian"], "no command 'pretrian', did you mean pretrain? There are pretrain, "),
        (["zzz"], "no command 'zzz', expected one of pretrain, "),
    ],
)
def test_a_command_that_is_none_gets_the_nearest_one(arguments: list[str], said: str) -> None:
    result = invoke(*arguments)

    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_help_does_not_load_torch() -> None:
    code = "import sys; from sbtrain.cli import main; main(['-h'], standalone_mode=False); sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True).returncode == 0


def test_every_field_of_the_config_has_an_option_with_help() -> None:
    output = invoke("pretrain", "-h").output

    assert set(FIELD_HELP) == {field.name for field in fields(PretrainConfig)}
    assert all("--" + name.replace("_", "-") in output for name in FIELD_HELP)


def test_a_run_leaves_config_metrics_events_checkpoints_and_result(undisturbed: Path) -> None:
    names = {path.name for path in undisturbed.iterdir()} - {".lock"}
    result = json.loads((undisturbed / "results" / "pretrain.json").read_text())
    record = json.loads((undisturbed / "config.json").read_text())

    assert names == {"config.json", "metrics.jsonl", "events.out.tfevents.0.sbtrain", "checkpoints", "results"}
    assert (result["steps"], result["images"], result["parameters"]) == (12, 96, 779_072)
    assert result["images_per_s"] > 0
    assert (record["config"]["lr"], record["data"]["colorspace"]) == (1e-3, "lab")
    assert record["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize(
    "options",
    [
        ("--network", "resnet18-head", "--precision", "bfloat16"),
        ("--loss", "regression", "--input", "lab", "--colorspace", "rescaled_lab"),
        ("--preset", "modern/denoising", "--noise", "gaussian", "--reconstruction", "mse", "--colorspace", "rgb"),
        ("--optimizer", "adamw", "--schedule", "one-cycle", "--accumulate", "2", "--mode", "fast", "--keep-best"),
    ],
    ids=lambda options: options[1],
)
def test_kinds_of_runs_train(options: tuple[str, ...], shards: Path, tmp_path: Path) -> None:
    colorspace = () if "--colorspace" in options else ("--colorspace", "lab")

    result = invoke(*command(shards, tmp_path / "run", "--stop-after", "2", *colorspace, *options))

    assert result.exit_code == 0, result.output
    assert "step 2 of 12 is saved" in result.output


def test_a_preset_brings_its_color_space(shards: Path, tmp_path: Path) -> None:
    result = invoke(*command(shards, tmp_path / "run", "--preset", "report/simplenet-lab", "--stop-after", "0"))

    assert result.exit_code == 0, result.output
    assert "on lab" in result.output


def test_a_dry_run_estimates_and_leaves_nothing(shards: Path, tmp_path: Path) -> None:
    result = invoke(*command(shards / "lab", tmp_path / "run", "--dry-run"))

    assert result.exit_code == 0, result.output
    for word in (
        "measuring steps, a save and a resume",
        "one step, one save and one resume went well",
        "time:",
        "disk:",
        "memory:",
    ):
        assert word in result.output
    assert not (tmp_path / "run").exists()


def test_without_run_dir_the_folder_is_named_after_the_run(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    result = invoke("pretrain", "--shards", str(shards / "lab"), "--batch-size", "8", "--stop-after", "0")

    assert result.exit_code == 0, result.output
    assert (tmp_path / "runs" / "split_brain-simplenet-lab-seed0" / "config.json").is_file()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--preset", "modern/simplnet"), 2, "did you mean modern/simplenet?"),
        (("--epoch", "3"), 2, "--epochs"),
        (("--network", "simplnet"), 2, "did you mean simplenet?"),
        (("--method", "simsiam", "--network", "vit_smal"), 2, "did you mean vit_small?"),
        (
            ("--method", "simsiam", "--network", "resnet18", "--augmentation", "simsiam_cifr"),
            2,
            "did you mean simsiam_cifar?",
        ),
        (("--method", "simsiam", "--network", "resnet50"), 2, "did you mean timm:resnet50? There are resnet18, "),
        (
            ("--preset", "simplenet"),
            2,
            "there are modern/simplenet, report/simplenet-lab, report/simplenet-rescaled_lab, ",
        ),
        (("--epochs", "0"), 2, "epochs 0: nothing would be learned"),
        (("--method", "denoising"), 2, "network 'simplenet' of the denoising method"),
        (("--shuffle", "random"), 2, "expected exact or window=K"),
        (("--batch-size", "100"), 2, "the split has 48 images"),
        (("--device", "tpu"), 2, "expected auto, cpu, cuda or cuda:N"),
        (("--device", "cuda:9"), 2, "sees"),
        (("--split", "test"), 1, "has splits"),
        (("--method", "supervised"), 2, "sbtrain finetune --from-scratch"),
        (("--method", "denoise"), 2, "did you mean denoising?"),
        (("--lr", "inf"), 2, "lr inf, expected a finite number"),
        (("--weight-decay", "inf"), 2, "weight_decay inf, expected a finite number"),
        (("--clip", "nan"), 2, "clip nan, expected a finite number"),
        (("--seed", "99999999999999999999999"), 2, "seed 99999999999999999999999, expected less than 2^63"),
        (("--seed", "-1"), 2, "seed -1, expected 0 or more"),
        (("--colorspace", "rgb"), 1, "rgb"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_wrong_option_is_refused(
    options: tuple[str, ...], code: int, message: str, shards: Path, tmp_path: Path
) -> None:
    if "timm:" in message:
        pytest.importorskip("timm")
    result = invoke(*command(shards / "lab", tmp_path / "run", *options))

    assert result.exit_code == code, result.output
    assert message in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [("--monitor", "knn"), ("--stage", "/dev/null/stage"), ("--verify",)])
def test_a_run_that_fails_before_its_first_checkpoint_leaves_nothing(
    options: tuple[str, ...], own_shards: Path, tmp_path: Path
) -> None:
    if options == ("--verify",):
        damaged = next((own_shards / "lab" / "unlabeled").glob("*.h5"))
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 1
        damaged.write_bytes(content)
    more = () if options != ("--monitor", "knn") else ("--monitor-split", "test")
    (tmp_path / "there").mkdir()

    for place in ("made/run", "there"):
        assert invoke(*command(own_shards, tmp_path / place, *options, *more)).exit_code in (1, 2)
    assert not (tmp_path / "made").exists()
    assert list((tmp_path / "there").iterdir()) == []


def test_a_run_that_is_there_stays_whatever_is_refused_later(own_run: Path, shards: Path) -> None:
    before = tree(own_run)

    assert invoke(*command(shards / "lab", own_run, "--lr", "1")).exit_code == 1
    assert invoke(*command(shards / "lab", own_run, "--stage", "/dev/null/stage")).exit_code == 1
    assert tree(own_run) == before


@pytest.mark.parametrize(
    ("place", "reason"), [("file", "File exists"), ("file/run", "Not a directory"), ("x" * 300, "File name too long")]
)
def test_a_place_where_no_folder_can_be_is_refused(place: str, reason: str, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here already")

    result = invoke(*command(shards / "lab", tmp_path / place))

    assert result.exit_code == 1
    assert f"{tmp_path / place}: cannot be the folder of a run" in result.output
    assert reason in result.output


def test_a_result_that_cannot_be_written_is_named(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results").write_text("a file where a folder belongs")

    result = invoke(*command(shards / "lab", tmp_path / "run", "--epochs", "1"))

    assert result.exit_code == 1
    assert f"{tmp_path / 'run'}: cannot be written" in result.output


def test_no_shards_are_refused_with_the_command_that_makes_them(tmp_path: Path) -> None:
    result = invoke(*command(tmp_path, tmp_path / "run"))

    assert result.exit_code == 1
    assert "no prepared shards here" in result.output
    assert "sbprep build" in result.output


def test_several_color_spaces_need_a_choice(shards: Path, tmp_path: Path) -> None:
    result = invoke(*command(shards, tmp_path / "run"))

    assert result.exit_code == 1
    assert "choose one with --colorspace" in result.output


def test_shards_of_another_schema_are_refused(own_shards: Path, tmp_path: Path) -> None:
    path = own_shards / "lab" / "manifest.json"
    data = json.loads(path.read_text())
    del data["sha256"]
    data["schema"] = 99
    path.write_text(json.dumps({**data, "sha256": json_digest(data)}))

    result = invoke(*command(own_shards, tmp_path / "run"))

    assert result.exit_code == 1
    assert "schema 99, this version reads 1" in result.output


def test_a_split_without_images_is_refused(own_shards: Path, tmp_path: Path) -> None:
    path = own_shards / "lab" / "manifest.json"
    data = json.loads(path.read_text())
    del data["sha256"]
    data["splits"]["unlabeled"]["shards"] = []
    path.write_text(json.dumps({**data, "sha256": json_digest(data)}))

    result = invoke(*command(own_shards, tmp_path / "run"))

    assert result.exit_code == 1
    assert "split unlabeled has no images" in result.output


def test_the_data_may_move_between_two_calls(shards: Path, tmp_path: Path) -> None:
    """A run knows its data by their digest, not by their path."""
    assert invoke(*command(shards / "lab", tmp_path / "run", "--stop-after", "1")).exit_code == 0
    moved = shutil.copytree(shards / "lab", tmp_path / "elsewhere" / "lab")

    result = invoke(*command(moved, tmp_path / "run", "--stop-after", "2"))

    assert Manifest.read(moved).colorspace == "lab"
    assert result.exit_code == 0, result.output


def test_a_command_refused_before_its_first_step_is_no_run_in_the_way(shards: Path, tmp_path: Path) -> None:
    options = ["--shards", str(shards), "--colorspace", "lab", "--run-dir", str(tmp_path / "run")]
    refused = CliRunner().invoke(main, ["pretrain", *options, "--batch-size", "100000"])
    mended = CliRunner().invoke(main, ["pretrain", *options, "--batch-size", "8", "--stop-after", "1"])

    assert "Use a smaller --batch-size" in refused.output
    assert mended.exit_code == 0
    assert "To go on: without --stop-after, or with more" in mended.output


def test_a_run_goes_on_in_its_color_space_when_others_have_joined(shards: Path, tmp_path: Path) -> None:
    options = ["--shards", str(shards), "--run-dir", str(tmp_path / "run"), "--batch-size", "8", "--stop-after", "1"]
    begun = CliRunner().invoke(main, ["pretrain", *options, "--colorspace", "lab"])
    again = CliRunner().invoke(main, ["pretrain", *options])

    assert begun.exit_code == again.exit_code == 0, again.output
    assert "going on from step 1" in again.output


def test_a_run_among_prepared_images_is_refused(shards: Path) -> None:
    result = CliRunner().invoke(
        main, ["pretrain", "--shards", str(shards), "--colorspace", "lab", "--run-dir", str(shards)]
    )

    assert result.exit_code == 1
    assert "holds prepared images, expected a folder for the run alone" in result.output


def test_where_no_split_is_named_train_will_do(few: Path, tmp_path: Path) -> None:
    """Twice: the run that is there is found again."""
    for _ in range(2):
        result = invoke(*command(few / "lab", tmp_path / "run"))
        assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run" / "config.json").read_bytes())["config"]["split"] == "train"

    named = invoke(*command(few / "lab", tmp_path / "named", "--split", "unlabeled"))
    assert named.exit_code == 1
    assert "has splits train, val, no unlabeled. Use one of them: --split train" in named.output
