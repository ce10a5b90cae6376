"""Builds on a real Ray cluster of this machine: the same bytes, also where a worker dies; a clear word where none answers."""

import os
import signal
from pathlib import Path

import pytest

from builds import command, run_sbprep, tree, unfinished
from crashes import Run, journaled
from dask_clusters import free_port, wait_until

pytestmark = pytest.mark.jit

#: 120 drawn images of 64 x 64, one a shard.
OPTIONS = ("--colorspace", "rgb", "--limit", "40", "--image-size", "64", "--images-per-shard", "1")


def kill_one_at_work(run: Run) -> bool:
    """Kill a worker of Ray whose title names our function; other processes of Ray have titles of their own."""
    for pid, words in run.alive().items():
        if words.startswith("ray::_call"):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def test_a_worker_that_is_killed_changes_no_byte(tmp_path: Path) -> None:
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    assert run_sbprep("build", *OPTIONS, "--out", undisturbed).returncode == 0
    run = Run(command("build", *OPTIONS, "--out", out, "--backend", "ray", "--workers", "2"))
    wait_until(lambda: journaled(out) > 3 or run.ended, "no shard is made", 120)
    wait_until(lambda: kill_one_at_work(run) or run.ended, "no worker is at work", 120)
    assert not run.ended, run.end()
    status, _, err = run.end()

    assert status == 0, err
    assert tree(out) == tree(undisturbed)
    assert unfinished(out) == []
    assert run.wait_until_gone() < 10


def test_a_cluster_that_does_not_answer_is_named_within_seconds(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    ended = run_sbprep("build", *OPTIONS, "--out", tmp_path, "--backend", "ray", "--scheduler", address)

    assert ended.returncode == 1
    assert f"Error: {address}: does not answer" in ended.stderr
    assert list(tmp_path.rglob("*.h5")) == []
