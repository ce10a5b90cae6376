"""Reproductions for real, very small: what is missing is made, what fails is said, and a stop loses nothing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import sbtrain.reproduce.cli  # noqa: F401 - before its tables are patched here
from builds import environment, small_config
from labeled_sets import labeled_shards
from sbformat.schema import TargetSpec
from sbprep.pipeline import build
from sbtrain import guard
from sbtrain.cli import main
from sbtrain.evaluation.chosen import chosen_rows
from sbtrain.reproduce import plan as reproduce_plan
from sbtrain.reproduce import scales as reproduce_scales
from sbtrain.reproduce.plan import Setting, Table
from sbtrain.reproduce.scales import Budget, Scale
from sbtrain.reproduce.sets import MissingShards, find_sets
from sbtrain.runtime import EXIT_REQUEUE

#: Two short fits of features, of all three networks that are small.
FEW = {"frozen": {"freeze": True, "head": "ridge", "draws": 2, "eval_limit": 8}}
SHORT: dict[str, Any] = {"epochs": 1, "limit": 16, "batch_size": 8, "precision": "float32"}


def budget(**fields: Any) -> Budget:
    return Budget(pretrain={**SHORT, **fields}, evaluations=FEW, images_per_s=100, features_per_s=100)


SCALE = Scale(
    name="tiny",
    about="for a test",
    budgets={"simplenet": budget(), "autoencoder": budget()},
    samples=(1, 2),
    headline=2,
)


def two_cells(setting: Setting) -> Table:
    """SimpleNet in Lab, and the denoising autoencoder."""
    rows = [
        reproduce_plan._row(setting, "SimpleNet, Lab", reproduce_plan._halves(setting, "simplenet", "lab"), None),
        reproduce_plan._row(setting, "DAE", reproduce_plan._denoising(setting, "salt-and-pepper", 0.05), None),
    ]
    return Table(name="table1", about="two cells", rows=tuple(rows))


@pytest.fixture(autouse=True)
def _small_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reproduce_scales.SCALES, "tiny", SCALE)
    monkeypatch.setattr(reproduce_plan, "TABLES", {"table1": two_cells})


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images of three classes to learn from, 12 to report, in three color spaces. Not to be changed."""
    return labeled_shards(tmp_path_factory.mktemp("few") / "shards")


def arguments(shards: Path, out: Path, *more: str) -> list[str]:
    return [
        "reproduce", "table1", "--shards", str(shards), "--out", str(out), "--scale", "tiny", "--device", "cpu", *more,
    ]  # fmt: skip


def reproduce(shards: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(main, arguments(shards, out, *more))


def record(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "tiny" / "reproduce.json").read_bytes())
    return found


def numbers(out: Path) -> list[Any]:
    """Return top-1 of every row, and the fits behind them without what depends on the clock."""
    found: list[Any] = []
    for row in record(out)["tables"]["table1"]["rows"]:
        for evaluation in row["evaluations"]:
            (result,) = evaluation["results"]
            fits = json.loads((out / "tiny" / result["file"]).read_bytes())["fits"]
            found.append((row["name"], evaluation["top1"], [{**fit, "seconds": None} for fit in fits]))
    return found


def states(out: Path) -> dict[str, set[str]]:
    return {cell["run_dir"]: {step["state"] for step in cell["steps"].values()} for cell in record(out)["cells"]}


def stamps(out: Path) -> dict[str, int]:
    files = [*out.glob("tiny/*/results/pretrain.json"), *out.glob("tiny/*/results/finetune-*.json")]
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in files}


@pytest.fixture(scope="module")
def whole(labeled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a reproduction that went through. Not to be changed."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(reproduce_scales.SCALES, "tiny", SCALE)
        patch.setattr(reproduce_plan, "TABLES", {"table1": two_cells})
        result = reproduce(labeled, out)
    assert result.exit_code == 0, result.output
    return out


# ----------------------------------------------------------------------------------------------------- what is made


def test_every_cell_is_a_run_with_results_and_the_record_tells_their_numbers(whole: Path) -> None:
    assert states(whole) == {"simplenet-lab-seed0": {"done"}, "autoencoder-salt-and-pepper-5-seed0": {"done"}}
    for _, top1, fits in numbers(whole):
        assert len(fits) == 2
        assert top1["mean"] == pytest.approx(np.mean([fit["top1"] for fit in fits]))


def test_a_page_and_markdown_are_written(whole: Path) -> None:
    assert "SimpleNet" in (whole / "tiny" / "report.html").read_text()
    assert (whole / "tiny" / "report.md").stat().st_size > 0


def test_figures_are_drawn_once_and_shown_on_the_page(
    labeled: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def figures(setting: Setting) -> Table:
        made = two_cells(setting)
        rows = tuple(replace(row, about={**row.about, "pictures": True}) for row in made.rows)
        return replace(made, name="figures", rows=rows)

    monkeypatch.setattr(reproduce_plan, "TABLES", {"figures": figures})
    out = shutil.copytree(whole, tmp_path / "out")
    command = [word.replace("table1", "figures") for word in arguments(labeled, out)]

    times = []
    for _ in range(2):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
        times.append({path.name: path.stat().st_mtime_ns for path in out.glob("tiny/*/results/reconstruct-*.json")})

    pictures = sorted(
        path.relative_to(out / "tiny").as_posix() for path in out.glob("tiny/*/results/reconstruct-*.json")
    )
    assert pictures == [
        "autoencoder-salt-and-pepper-5-seed0/results/reconstruct-val.json",
        "simplenet-lab-seed0/results/reconstruct-colors.json",
        "simplenet-lab-seed0/results/reconstruct-val.json",
    ]
    assert times[0] == times[1]
    page = (out / "tiny" / "report.html").read_text()
    assert page.count("data:image/png") >= 2


def test_the_same_command_makes_nothing_again(labeled: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, out := tmp_path / "out")
    before = stamps(out)

    result = reproduce(labeled, out)

    assert (result.exit_code, stamps(out)) == (0, before)
    assert numbers(out) == numbers(whole)


def test_only_the_missing_cell_is_made(labeled: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, out := tmp_path / "out")
    before = stamps(out)
    shutil.rmtree(out / "tiny" / "autoencoder-salt-and-pepper-5-seed0")

    assert reproduce(labeled, out).exit_code == 0

    assert {name for name, stamp in stamps(out).items() if before[name] != stamp} == {
        name for name in before if "autoencoder" in name
    }
    assert numbers(out) == numbers(whole)


def test_several_seeds_give_an_interval_over_runs(labeled: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, out := tmp_path / "out")

    assert reproduce(labeled, out, "--seeds", "2").exit_code == 0

    for row in record(out)["tables"]["table1"]["rows"]:
        (evaluation,) = row["evaluations"]
        assert [result["seed"] for result in evaluation["results"]] == [0, 1]
        assert evaluation["interval_over"].startswith("2 pretraining runs, each the mean of ")


def stopped(labeled: Path, out: Path, patch: pytest.MonkeyPatch, number: int, step: int) -> Result:
    """Reproduce until a signal comes in the given step of this call, counted over all runs."""
    calls, keep = [0], guard.Guard.keep

    def kept(self: guard.Guard, *values: Any) -> Any:
        calls[0] += 1
        if calls[0] == step:
            signal.raise_signal(number)
        return keep(self, *values)

    patch.setattr(guard.Guard, "keep", kept)
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return reproduce(labeled, out)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, EXIT_REQUEUE), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_same_command_goes_on(
    number: int, code: int, labeled: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = stopped(labeled, tmp_path, monkeypatch, number, step=3)  # the first of the second run

    assert result.exit_code == code, result.output
    assert states(tmp_path)["autoencoder-salt-and-pepper-5-seed0"] == {"waiting"}
    assert reproduce(labeled, tmp_path).exit_code == 0
    assert numbers(tmp_path) == numbers(whole)


def test_a_later_cell_that_an_earlier_call_made_does_not_read_as_waiting_after_a_signal(
    labeled: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole, out := tmp_path / "out")
    shutil.rmtree(out / "tiny" / "simplenet-lab-seed0")

    stopped(labeled, out, monkeypatch, signal.SIGTERM, step=1)

    assert states(out) == {"simplenet-lab-seed0": {"waiting"}, "autoencoder-salt-and-pepper-5-seed0": {"done"}}


# --------------------------------------------------------------------------------------------------- what goes wrong


def test_a_cell_without_its_color_space_is_recorded_with_the_build_command_and_the_others_go_on(
    labeled: Path, tmp_path: Path
) -> None:
    result = reproduce(labeled / "rgb", tmp_path)

    assert result.exit_code == 1
    assert "sbprep build --source" in result.output
    assert "--colorspace lab" in result.output
    assert states(tmp_path) == {"simplenet-lab-seed0": {"failed"}, "autoencoder-salt-and-pepper-5-seed0": {"done"}}


def test_too_few_labels_fail_an_evaluation_and_not_the_others(
    labeled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = Scale(name="tiny", about="", budgets=SCALE.budgets, samples=(1,), headline=9)
    monkeypatch.setitem(reproduce_scales.SCALES, "tiny", many)

    result = reproduce(labeled, tmp_path)

    assert result.exit_code == 1
    assert "9 samples per class, class cat has 8 images" in result.output
    steps = record(tmp_path)["cells"][0]["steps"]
    assert (steps["pretrain"]["state"], steps["frozen"]["state"]) == ("done", "failed")


def test_a_run_that_diverges_is_recorded_and_the_others_go_on(
    labeled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wild = {"simplenet": budget(lr=1e30, bad_steps=1, rollbacks=0), "autoencoder": budget()}
    monkeypatch.setitem(reproduce_scales.SCALES, "tiny", Scale(name="tiny", about="", budgets=wild, headline=2))

    result = reproduce(labeled, tmp_path)

    assert result.exit_code == 1
    assert "failed: simplenet-lab-seed0: pretrain; frozen: pretraining: " in result.output
    assert states(tmp_path) == {"simplenet-lab-seed0": {"failed"}, "autoencoder-salt-and-pepper-5-seed0": {"done"}}


def test_a_run_made_with_other_options_is_recorded_and_left_alone(labeled: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, out := tmp_path / "out")
    config = out / "tiny" / "simplenet-lab-seed0" / "config.json"
    config.write_text(config.read_text().replace('"lr": 0.0001', '"lr": 0.5'))

    result = reproduce(labeled, out)

    assert result.exit_code == 1
    assert "lr: 0.5 in the run, 0.0001 now" in result.output
    assert states(out) == {"simplenet-lab-seed0": {"failed"}, "autoencoder-salt-and-pepper-5-seed0": {"done"}}


def test_runs_of_other_images_are_refused_before_anything_is_made(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, out := tmp_path / "out")
    other = labeled_shards(tmp_path / "other", train=27)
    before = stamps(out)

    result = reproduce(other, out)

    assert result.exit_code == 1
    assert "was pretrained on other images" in result.output
    assert stamps(out) == before


@pytest.mark.parametrize(
    ("more", "message"),
    [(("table9",), "table 'table9', expected one of"), (("--scale", "huge"), "scale 'huge', expected one of")],
)
def test_unknown_names_are_refused(more: tuple[str, ...], message: str, labeled: Path, tmp_path: Path) -> None:
    given = arguments(labeled, tmp_path)
    given = [given[0], more[0], *given[2:]] if len(more) == 1 else [*given, *more]

    result = CliRunner().invoke(main, given)

    assert result.exit_code == 2
    assert message in result.output


# --------------------------------------------------------------------------------------------------- other ways to run


def test_job_scripts_run_by_themselves_give_the_same_numbers(labeled: Path, whole: Path, tmp_path: Path) -> None:
    out, jobs, bin_ = tmp_path / "out", tmp_path / "jobs", tmp_path / "bin"
    assert reproduce(labeled, out, "--jobs", str(jobs)).exit_code == 0
    bin_.mkdir()
    (bin_ / "sbtrain").write_text(f'#!/bin/sh\nexec {sys.executable} -m sbtrain "$@"\n')
    (bin_ / "sbtrain").chmod(0o755)

    names = sorted(path.name for path in jobs.iterdir())
    (jobs / "collect.sh").write_text("exit 0\n")  # the plan of this test is known to this process alone
    path = f"{bin_}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", str(jobs / "submit.sh")],
        env=environment(PATH=path, OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
    )

    assert names == [
        "001-simplenet-lab-seed0.sh", "002-autoencoder-salt-and-pepper-5-seed0.sh", "collect.sh", "submit.sh",
    ]  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    before = stamps(out)
    assert reproduce(labeled, out).exit_code == 0
    assert stamps(out) == before
    assert numbers(out) == numbers(whole)


def test_a_dry_run_lists_cells_and_time_and_writes_nothing(labeled: Path, tmp_path: Path) -> None:
    result = reproduce(labeled, tmp_path / "out", "--dry-run")

    assert result.exit_code == 0
    assert "simplenet-lab-seed0: pretrain; frozen: about" in result.output
    assert "2 cells" in result.output
    assert not (tmp_path / "out").exists()


def test_sets_with_other_targets_are_found_below_the_same_root(labeled: Path, tmp_path: Path) -> None:
    source = labeled.with_name(f"{labeled.name}-images")
    target = TargetSpec(size=8)
    build(small_config(source, tmp_path / "t8", "lab", image_size=64, target=target))

    sets = find_sets([labeled, tmp_path])

    assert sets.find("lab", target).root == tmp_path / "t8" / "lab"
    with pytest.raises(
        MissingShards, match=rf"sbprep build --source {re.escape(str(source))} --colorspace rgb .*-size 8"
    ):
        sets.find("rgb", target)


def test_the_reported_images_of_a_limit_are_always_the_same_and_part_of_more() -> None:
    few, more = chosen_rows(1000, 10), chosen_rows(1000, 40)

    assert (len(few), len(more)) == (10, 40)
    assert set(few) < set(more) < set(range(1000))
    assert list(chosen_rows(20, 40)) == list(range(20))
