"""What a run says of itself before its first step."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from runs import command
from sbformat.words import counted
from sbtrain.cli import main
from sbtrain.networks.backbones import TIMM

PLAIN = ("--method", "simsiam", "--network", "resnet18-cifar", "--colorspace", "rgb")
SIMSIAM = ("--method", "simsiam", "--network", "half:simplenet", "--projector", "report", "--colorspace", "rgb")


def said(*arguments: str) -> str:
    result = CliRunner().invoke(main, [*arguments, "--stop-after", "0"])
    assert result.exit_code == 0, result.output
    return result.output


def bare(shards: Path, run_dir: Path, *more: str) -> list[str]:
    """Return the arguments of a run without a word of how it learns."""
    return ["pretrain", "--shards", str(shards), "--run-dir", str(run_dir), "--batch-size", "8", "--limit", "16", *more]


@pytest.mark.parametrize(
    ("network", "named"),
    [
        ("pit_ti", "--preset report/simsiam-celeba-pit_ti, --preset report/simsiam-stl10-pit_ti\n"),
        ("half:simplenet", "--preset modern/simsiam-cifar10, "),
    ],
)
def test_a_method_of_views_that_would_learn_by_other_settings_names_its_presets(
    network: str, named: str, shards: Path, tmp_path: Path
) -> None:
    if network in TIMM:
        pytest.importorskip("timm")
    output = said(*bare(shards, tmp_path / "run", *PLAIN, "--network", network))

    assert "simsiam learns by split_brain's settings (adam, peak learning rate 0.0001, epoch-decay 0.1)" in output
    assert f"Made for it: {named}" in output


@pytest.mark.parametrize("chosen", [("--lr", "0.01"), ("--schedule", "cosine"), ("--preset", "modern/simsiam-cifar10")])
def test_settings_that_somebody_chose_are_not_remarked_on(
    chosen: tuple[str, str], shards: Path, tmp_path: Path
) -> None:
    output = said(*bare(shards, tmp_path / "run", *PLAIN, *chosen, "--split", "unlabeled"))

    assert "split_brain's settings" not in output


def test_other_methods_learn_by_the_defaults_without_a_remark(shards: Path, tmp_path: Path) -> None:
    assert "note:" not in said(*bare(shards / "lab", tmp_path / "run"))


def test_the_header_says_how_a_run_learns_and_what_it_sees(shards: Path, tmp_path: Path) -> None:
    more = ("--augmentation", "simsiam_cifar", "--view-size", "52", "--optimizer", "sgd", "--warmup", "3")

    output = said(*command(shards, tmp_path / "run", *SIMSIAM, *more, "--accumulate", "2"))

    learning = "batches of 8 in 2 micro-batches, sgd, peak learning rate 0.001, cosine after a warm-up of 3 steps"
    assert f"\n  {learning}\n  2 views of an image by simsiam_cifar, 52 x 52 pixels\n" in output
    assert "note:" not in output


@pytest.mark.parametrize(
    ("options", "remark"),
    [
        (
            ("--warmup-epochs", "4", "--lr", "0.8"),
            "the warm-up takes 24 steps, the run 12 steps: its learning rate rises to 0.4, never to 0.8. "
            "Lower --warmup-epochs, or use more --epochs",
        ),
        (("--warmup-epochs", "1", "--warmup", "7"), "Lower --warmup-epochs or --warmup, or use more --epochs"),
        (("--warmup", "13"), "Lower --warmup, or use more --epochs"),
    ],
)
def test_a_warm_up_longer_than_the_run_is_remarked_on(
    options: tuple[str, ...], remark: str, shards: Path, tmp_path: Path
) -> None:
    assert remark in said(*command(shards / "lab", tmp_path / "run", *options))


@pytest.mark.parametrize("options", [("--warmup-epochs", "2"), ("--warmup", "12")])
def test_a_warm_up_as_long_as_the_run_reaches_the_peak(options: tuple[str, ...], shards: Path, tmp_path: Path) -> None:
    assert "note:" not in said(*command(shards / "lab", tmp_path / "run", *options))


def test_one_of_a_kind_is_said_in_the_singular(shards: Path, tmp_path: Path) -> None:
    output = said(*command(shards / "lab", tmp_path / "run", "--epochs", "1", "--batch-size", "48"))

    assert ": 48 images, 1 epoch of 1 step\n" in output
    assert re.search(r"\n  CPU, 1 thread, ", output)
    assert [counted(count, "pass", "passes") for count in (0, 1, 1200)] == ["0 passes", "1 pass", "1,200 passes"]
