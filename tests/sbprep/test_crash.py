"""Kill a build anywhere, run the same command again: the result is that of an undisturbed run. Nothing ever hangs."""

import random
import re
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from builds import SMALL_OPTIONS, command, small_build, small_plan, tree, unfinished
from crashes import NOTICED, DeadlySource, Run, Victim, journaled, kill_again_and_again
from sbformat.errors import BuildError
from sbprep.engines import opened_engine
from sbprep.pipeline import run_plan
from sbprep.plan import Plan

pytestmark = pytest.mark.jit

#: 200 shards in each of two color spaces, of the built-in set.
OPTIONS = {"limit": 400, "images_per_shard": 6}
COMMAND = command(
    "build", "--colorspace", "rgb", "--colorspace", "lab", *SMALL_OPTIONS, "--limit", "400", "--images-per-shard", "6"
)  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed")
    small_build(None, out, "rgb", "lab", **OPTIONS)
    return tree(out)


def build_command(out: Path, *options: str) -> list[str]:
    return [*COMMAND, "--out", str(out), *(options or ("--workers", "2"))]


def wait_for_shards(run: Run, out: Path, lines: int) -> None:
    """Wait until the journals of `out` have so many lines."""
    deadline = time.monotonic() + 30
    while journaled(out) < lines and not run.ended and time.monotonic() < deadline:
        time.sleep(0.001)


def test_a_build_killed_again_and_again_gives_the_bytes_of_an_undisturbed_one(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    rng = random.Random(0)
    victims: list[Victim] = ["parent", "worker", "parent", "worker", "parent"]

    def moment(run: Run, before: int) -> None:
        wait_for_shards(run, tmp_path, before + rng.randrange(3, 25))
        time.sleep(rng.uniform(0, 0.01))

    kills = list(kill_again_and_again(build_command(tmp_path), tmp_path, victims, rng, moment))
    status, _, err = Run(build_command(tmp_path)).end()

    assert [kill.victim for kill in kills] == victims
    assert status == 0, err
    assert unfinished(tmp_path) == []
    assert tree(tmp_path) == undisturbed


def test_a_build_killed_while_it_starts_leaves_nobody_behind(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    run = Run(build_command(tmp_path))
    while not run.workers() and not run.ended:
        time.sleep(0.001)
    run.kill("parent", random.Random(0))
    run.end(NOTICED)
    run.wait_until_gone()
    small_build(None, tmp_path, "rgb", "lab", **OPTIONS)

    assert tree(tmp_path) == undisturbed


@pytest.mark.parametrize(
    ("number", "options"),
    [
        (signal.SIGINT, ("--workers", "2")),
        (signal.SIGTERM, ("--workers", "2")),
        (signal.SIGINT, ("--workers", "2", "--backend", "threading")),
        (signal.SIGTERM, ("--workers", "1")),
    ],
)
def test_an_interrupted_build_says_one_line_and_leaves_nothing_unfinished(
    tmp_path: Path, undisturbed: dict[str, str], number: int, options: tuple[str, ...]
) -> None:
    run = Run(build_command(tmp_path, *options))
    wait_for_shards(run, tmp_path, 12)
    run.send_to_all(number)
    status, out, err = run.end(NOTICED)
    run.wait_until_gone()

    assert status == 130, err
    assert out == ""
    said = [line for line in err.splitlines() if not re.match(r"rgb, lab at |  |[\d,]+/1,200 images ", line)]
    assert said == ["Interrupted. Shards already built are kept: run the same command again to go on."]
    assert unfinished(tmp_path) == ["journal.jsonl", "journal.jsonl"]
    small_build(None, tmp_path, "rgb", "lab", **OPTIONS)
    assert tree(tmp_path) == undisturbed


@pytest.mark.parametrize(("name", "told"), [("ExecutorManagerThread", False), ("other", True)])
def test_a_thread_of_loky_that_stumbles_over_dropped_tasks_is_not_told(
    name: str, told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise KeyError(1)

    before = threading.excepthook
    threading.excepthook = threading.__excepthook__
    try:
        with opened_engine(small_plan(None, tmp_path, workers=2), 2) as engine:
            with engine.starting():
                thread = threading.Thread(target=fail, name=name)
                thread.start()
                thread.join()
            engine.ended()
        assert threading.excepthook is threading.__excepthook__
    finally:
        threading.excepthook = before

    assert ("Traceback" in capsys.readouterr().err) is told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_workers_start_is_not_lost(tmp_path: Path, undisturbed: dict[str, str], number: int) -> None:
    run = Run(build_command(tmp_path))
    while not run.workers() and not run.ended:
        time.sleep(0.001)
    run.send_to_all(number)
    status, _, err = run.end(NOTICED)
    run.wait_until_gone()

    assert status == 130, err
    assert err.splitlines()[-1].startswith("Interrupted. Shards already built are kept")
    assert "Traceback" not in err
    small_build(None, tmp_path, "rgb", "lab", **OPTIONS)
    assert tree(tmp_path) == undisturbed


def test_an_overwrite_that_is_killed_goes_on(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    small_build(None, tmp_path, "rgb", "lab", limit=7, images_per_shard=3)
    command = build_command(tmp_path, "--workers", "2", "--overwrite")
    run = Run(command)
    wait_for_shards(run, tmp_path, 40)
    assert run.kill("parent", random.Random(0))
    run.end(NOTICED)
    run.wait_until_gone()
    before = journaled(tmp_path)
    status, _, err = Run(command).end()

    assert status == 0, err
    assert before > 2
    assert "shards are there already and are kept" in err
    assert "--overwrite discards" not in err
    assert tree(tmp_path) == undisturbed


def test_a_build_of_one_process_that_dies_names_its_image_when_it_goes_on(tmp_path: Path) -> None:
    run = Run(build_command(tmp_path, "--workers", "1"))
    wait_for_shards(run, tmp_path, 12)
    run.kill("parent", random.Random(0))
    run.end(NOTICED)
    marks = list(tmp_path.rglob("*.inflight"))
    status, _, err = Run(build_command(tmp_path, "--workers", "1")).end()

    assert status == 0, err
    assert not marks or re.search(r"An earlier build here ended without a word at \w+/.* \(\w+/shard-\d+.h5\): it", err)
    assert unfinished(tmp_path) == []


def deadly_plan(out: Path, how: Literal["kill", "exit"]) -> tuple[Plan, str]:
    plan = small_plan(None, out, limit=40, workers=2)
    split = plan.splits["train"]
    name = plan.unit("train", 1).part.names[9]
    return replace(plan, splits={"train": replace(split, source=DeadlySource(name, how))}), name


@pytest.mark.parametrize("how", ["kill", "exit"])
def test_the_death_of_a_worker_ends_the_build_and_names_the_image_that_it_was_at(
    tmp_path: Path, how: Literal["kill", "exit"]
) -> None:
    plan, name = deadly_plan(tmp_path, how)
    start = time.monotonic()

    with pytest.raises(BuildError, match="a worker process died at ") as raised:
        run_plan(plan)
    assert time.monotonic() - start < NOTICED
    assert f"{name} (train/shard-00001.h5)" in str(raised.value)
    assert unfinished(tmp_path) == ["journal.jsonl"]
