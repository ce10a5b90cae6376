"""A run survives every kill: the same command goes on, and ends with the same bits as if nothing had happened."""

import errno
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from builds import environment
from runs import IMAGES, checkpoints, command, lines, litter, outcome, run_apart, small_parts
from sbformat.manifest import Manifest
from sbtrain import loop
from sbtrain.checkpoint import MANIFEST, _digest
from sbtrain.cli import main
from sbtrain.data import Loader, MappedResidence, Order, SplitReader
from sbtrain.runtime import EXIT_REQUEUE, STOPPING, StopRequest, only_one

_DRAW = random.Random(5)
KILLS = [("step", _DRAW.randrange(12)) for _ in range(10)] + [("fsync", n) for n in _DRAW.sample(range(1, 35), 10)]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize("event", KILLS, ids=lambda event: f"{event[0]}{event[1]}")
def test_a_killed_run_ends_as_an_undisturbed_one(
    event: tuple[str, int], shards: Path, undisturbed: Path, tmp_path: Path
) -> None:
    arguments = command(shards / "lab", tmp_path / "run")
    assert run_apart(arguments, event, signal.SIGKILL) == -signal.SIGKILL

    assert invoke(*arguments).exit_code == 0

    assert outcome(tmp_path / "run") == outcome(undisturbed)
    assert litter(tmp_path / "run") == []


@pytest.mark.parametrize("stop", [0, 1, 5, 6, 7, 11], ids=lambda step: f"step{step}")
def test_a_run_goes_on_exactly_from_any_step(stop: int, shards: Path, undisturbed: Path, tmp_path: Path) -> None:
    """An epoch has 6 steps: the start, within an epoch, its end, the first of the next."""
    arguments = command(shards / "lab", tmp_path / "run")
    assert invoke(*arguments, "--stop-after", str(stop)).exit_code == 0
    assert checkpoints(tmp_path / "run")[-1] == stop

    assert invoke(*arguments).exit_code == 0

    assert outcome(tmp_path / "run") == outcome(undisturbed)


def test_momentum_goes_on_exactly(shards: Path, tmp_path: Path) -> None:
    sgd = (
        "--optimizer",
        "sgd",
        "--method",
        "denoising",
        "--network",
        "autoencoder-bn",
        "--epochs",
        "1",
        "--limit",
        "24",
    )
    whole, halves = command(shards / "lab", tmp_path / "a", *sgd), command(shards / "lab", tmp_path / "b", *sgd)
    assert invoke(*whole).exit_code == 0
    assert invoke(*halves, "--stop-after", "1").exit_code == 0

    assert invoke(*halves).exit_code == 0

    assert outcome(tmp_path / "b") == outcome(tmp_path / "a")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT])
def test_a_signal_saves_the_step_and_asks_to_be_run_again(
    number: signal.Signals, shards: Path, undisturbed: Path, tmp_path: Path
) -> None:
    arguments = command(shards / "lab", tmp_path / "run")

    code = run_apart(arguments, ("step", 4), number)

    assert code == (130 if number == signal.SIGINT else EXIT_REQUEUE)
    assert checkpoints(tmp_path / "run")[-1] == 5
    assert invoke(*arguments).exit_code == 0
    assert outcome(tmp_path / "run") == outcome(undisturbed)


def test_under_nohup_a_closed_terminal_stops_nothing() -> None:
    before, stop = signal.signal(signal.SIGHUP, signal.SIG_IGN), StopRequest()
    try:
        with stop.listening():
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signal is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_goes_on_where_nobody_reads_what_it_says(shards: Path, undisturbed: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "sbtrain", *command(shards / "lab", tmp_path / "run")]
    run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment())
    assert run.stderr is not None
    run.stderr.close()

    assert run.wait(120) == 0
    assert outcome(tmp_path / "run") == outcome(undisturbed)


def test_checkpoints_come_by_the_clock_too_and_change_nothing(
    shards: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    arguments = command(shards / "lab", tmp_path / "run")

    assert invoke(*arguments, "--stop-after", "8").exit_code == 0
    assert checkpoints(tmp_path / "run") == [6, 7, 8]
    assert invoke(*arguments).exit_code == 0
    assert checkpoints(tmp_path / "run") == [10, 11, 12]
    weights = [
        folder / "checkpoints" / "step-00000012" / "model.safetensors" for folder in (tmp_path / "run", undisturbed)
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_dry_run_ends_at_once(number: signal.Signals, shards: Path, tmp_path: Path) -> None:
    arguments = [*command(shards / "lab", tmp_path / "run"), "--dry-run"]

    assert run_apart(arguments, ("step", 1), number) == 130
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("number", "rank", "said"),
    [(signal.SIGINT, "0", f"{STOPPING}\n"), (signal.SIGINT, "1", ""), (signal.SIGTERM, "0", "")],
)
def test_the_first_ctrl_c_is_answered_at_once_by_the_first_rank(
    number: signal.Signals, rank: str, said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", rank)

    with StopRequest().listening() as stop:
        signal.raise_signal(number)

    assert stop.signal == number
    assert capfd.readouterr().err == said


def test_a_second_ctrl_c_ends_at_once(shards: Path, undisturbed: Path, tmp_path: Path) -> None:
    arguments = command(shards / "lab", tmp_path / "run")

    assert run_apart(arguments, ("step", 4), signal.SIGINT, signal.SIGINT) == 130

    assert checkpoints(tmp_path / "run")[-1] == 3
    assert invoke(*arguments).exit_code == 0
    assert outcome(tmp_path / "run") == outcome(undisturbed)


def test_a_finished_run_says_so_and_changes_nothing(shards: Path, own_run: Path, undisturbed: Path) -> None:
    result = invoke(*command(shards / "lab", own_run))

    assert result.exit_code == 0
    assert "all 12 steps are done" in result.output
    assert outcome(own_run) == outcome(undisturbed)


# ------------------------------------------------------------------------------------------ damaged checkpoints


def _cut(share: float):  # type: ignore[no-untyped-def]
    def damage(path: Path) -> None:
        file = path / "model.safetensors"
        content = file.read_bytes()
        file.write_bytes(content[: round(len(content) * share)])

    return damage


def _flip(path: Path) -> None:
    content = bytearray((path / "optim.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (path / "optim.safetensors").write_bytes(content)


def _empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


DAMAGES = {
    "cut-to-0": _cut(0.0),
    "cut-to-1%": _cut(0.01),
    "cut-to-50%": _cut(0.5),
    "cut-to-99%": _cut(0.99),
    "one-bit-flipped": _flip,
    "no-manifest": lambda path: (path / MANIFEST).unlink(),
    "manifest-lists-nothing": lambda path: (path / MANIFEST).write_text("{}"),
    "empty": _empty,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_newest_checkpoint_is_named_and_passed_over(damage, shards, own_run, undisturbed) -> None:  # type: ignore[no-untyped-def]
    damage(own_run / "checkpoints" / "step-00000012")

    result = invoke(*command(shards / "lab", own_run))

    assert result.exit_code == 0
    assert "step-00000012" in result.output
    assert "going on from step 9" in result.output
    assert outcome(own_run) == outcome(undisturbed)


def test_a_run_does_not_begin_anew_when_all_checkpoints_are_damaged(shards: Path, own_run: Path) -> None:
    for path in (own_run / "checkpoints").iterdir():
        _flip(path)

    result = invoke(*command(shards / "lab", own_run))

    assert result.exit_code == 1
    assert "all 3 checkpoints are damaged" in result.output


def test_a_run_of_another_version_is_not_called_damaged(shards: Path, own_run: Path) -> None:
    for path in (own_run / "checkpoints").iterdir():
        text = (path / "state.json").read_text().replace('"version": 1,', '"version": 2,')
        (path / "state.json").write_text(text)
        files = json.loads((path / MANIFEST).read_text()) | {"state.json": _digest(path / "state.json")}
        (path / MANIFEST).write_text(json.dumps(files))

    result = invoke(*command(shards / "lab", own_run))

    assert result.exit_code == 1
    assert "sbtrain-checkpoint version 2, written by sbtrain" in result.output
    assert "damaged" not in result.output


# --------------------------------------------------------------------------------------------- the run's folder


def test_another_config_in_the_same_folder_is_refused_with_the_fields(shards: Path, own_run: Path) -> None:
    result = invoke(*command(shards / "lab", own_run, "--lr", "0.5", "--epochs", "3"))

    assert result.exit_code == 1
    assert "lr: 0.001 in the run, 0.5 now" in result.output
    assert "epochs: 2 in the run, 3 now" in result.output


def test_other_data_in_the_same_folder_are_refused(shards: Path, own_run: Path, undisturbed: Path) -> None:
    result = invoke(*command(shards / "rgb", own_run))

    assert result.exit_code == 1
    assert "data colorspace: lab in the run, rgb now" in result.output
    assert "data digest" in result.output
    assert outcome(own_run) == outcome(undisturbed)


def test_checkpoints_without_their_config_are_refused(shards: Path, own_run: Path) -> None:
    (own_run / "config.json").unlink()

    result = invoke(*command(shards / "lab", own_run))

    assert result.exit_code == 1
    assert "has checkpoints but no config.json" in result.output


def test_a_run_folder_names_no_host_user_or_path(own_run: Path, shards: Path) -> None:
    text = (own_run / "config.json").read_text() + (own_run / "results" / "pretrain.json").read_text()

    assert str(shards) not in text
    assert set(json.loads((own_run / "config.json").read_text())) == {
        "format", "version", "command", "preset", "config", "data", "code", "versions",
    }  # fmt: skip


def test_a_second_process_is_refused_with_the_first_ones_number(shards: Path, own_run: Path) -> None:
    with only_one(own_run):
        result = invoke(*command(shards / "lab", own_run))

    assert result.exit_code == 1
    assert f"process {os.getpid()} on " in result.output


def test_a_file_system_without_locks_is_told_and_no_obstacle(
    own_run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def answers(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", answers)
    with only_one(own_run):
        assert (own_run / ".lock").read_text().startswith(f"{os.getpid()} on ")
    assert f"{own_run}: this file system has no locks" in caplog.text


def test_the_lock_of_a_dead_process_holds_nobody_up(shards: Path, own_run: Path) -> None:
    (own_run / ".lock").write_text("4194304 on elsewhere")

    assert invoke(*command(shards / "lab", own_run)).exit_code == 0


# -------------------------------------------------------------------------------------------------------- disks


def test_a_full_disk_during_a_save_does_not_end_a_run(shards: Path, undisturbed: Path, tmp_path: Path) -> None:
    """The checkpoint of step 6 finds no room, that of step 9 does."""
    arguments = command(shards / "lab", tmp_path / "run")

    assert run_apart(arguments, ("step", 4), file_limit=200_000) == 0

    assert checkpoints(tmp_path / "run") == [3, 9, 12]
    assert litter(tmp_path / "run") == []
    assert outcome(tmp_path / "run") == outcome(undisturbed)


def test_a_disk_too_small_for_the_checkpoints_is_refused_before_the_first_step(shards: Path, tmp_path: Path) -> None:
    result = invoke(*command(shards / "lab", tmp_path / "run", "--keep-last", "10000000"))

    assert result.exit_code == 1
    assert "needed for 10000002 checkpoints" in result.output
    assert not (tmp_path / "run" / "checkpoints").exists()


# ------------------------------------------------------------------------------------------------------- others


def test_two_runs_of_one_seed_are_the_same_and_of_another_seed_are_not(
    shards: Path, undisturbed: Path, tmp_path: Path
) -> None:
    for name, seed in (("same", "0"), ("other", "1")):
        assert invoke(*command(shards / "lab", tmp_path / name, "--seed", seed)).exit_code == 0

    assert outcome(tmp_path / "same") == outcome(undisturbed)
    assert lines(tmp_path / "other") != lines(undisturbed)


def test_the_first_batch_comes_as_soon_at_any_step(lab: Manifest) -> None:
    residence = MappedResidence(SplitReader(lab, "unlabeled", ("image",)), torch.device("cpu"))
    loader = Loader(residence, Order(IMAGES, 0), 8)
    next(loader.batches(0, 1))
    begun = time.perf_counter()

    batch = next(loader.batches(5_999_999, 6_000_000))

    assert time.perf_counter() - begun < 0.5
    assert batch.index.tolist() == loader.rows_of(5_999_999).tolist()
    assert np.unique(batch.index).size == 8


def test_steps_of_a_checkpoint_are_in_the_metrics(undisturbed: Path) -> None:
    assert [line["step"] for line in lines(undisturbed)] == [2, 4, 6, 8, 10, 12]


def test_methods_are_seeded(lab: Manifest) -> None:
    _, one, _ = small_parts(lab)
    _, two, _ = small_parts(lab)

    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
