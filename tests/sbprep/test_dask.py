"""Builds on a real Dask scheduler and its workers: the same bytes whatever dies, and a clear word where it cannot be."""

import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from builds import ROOT, command, run_sbprep, small_build, tree, unfinished
from crashes import Run, journaled
from dask_clusters import Cluster, cluster, free_port, wait_until
from sbformat.errors import BuildError
from sbprep import dask_backend

pytestmark = pytest.mark.jit

#: 75 drawn images of 64 x 64, one a shard: two workers take about 2 seconds.
OPTIONS = ("--colorspace", "rgb", "--limit", "25", "--image-size", "64", "--images-per-shard", "1")
SHARDS = 75


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a scheduler with one worker that no test harms."""
    with cluster(tmp_path_factory.mktemp("dask"), workers=1) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed")
    ended = run_sbprep("build", *OPTIONS, "--out", out)
    assert ended.returncode == 0, ended.stderr
    return tree(out)


def on(dask: Cluster, out: Path) -> list[str]:
    return command("build", *OPTIONS, "--out", out, "--backend", "dask", "--scheduler", dask.address)


def begun(out: Path, run: Run, shards: int = 6) -> None:
    """Wait until so many shards are there, and not all."""
    wait_until(lambda: journaled(out) > shards or run.ended, "no shard is made")
    assert not run.ended, run.end()
    assert journaled(out) < SHARDS


def test_a_worker_that_is_killed_changes_no_byte(dask: Cluster, tmp_path: Path, undisturbed: dict[str, str]) -> None:
    second = dask.add_worker()
    run = Run(on(dask, tmp_path))
    begun(tmp_path, run)
    second.kill()
    status, _, err = run.end()

    assert status == 0, err
    assert tree(tmp_path) == undisturbed
    assert unfinished(tmp_path) == []


def test_ctrl_c_leaves_nothing_half_made_and_the_same_command_goes_on(
    dask: Cluster, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    run = Run(on(dask, tmp_path))
    begun(tmp_path, run)
    run.send_to_all(signal.SIGINT)
    status, _, err = run.end()

    assert (status, "Interrupted. Shards already built are kept" in err) == (130, True), err
    # The worker is on its own: it notices before its next images.
    wait_until(lambda: set(unfinished(tmp_path)) == {"journal.jsonl"}, "unfinished files stay")
    assert run_sbprep(*on(dask, tmp_path)[3:]).returncode == 0
    assert tree(tmp_path) == undisturbed


def test_a_scheduler_that_goes_ends_the_build_and_loses_nothing(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    (tmp_path / "dask").mkdir()
    with cluster(tmp_path / "dask", workers=1) as dask:
        run = Run(on(dask, tmp_path / "out"))
        begun(tmp_path / "out", run)
        dask.kill_scheduler()
        status, _, err = run.end()

    assert status == 1, err
    assert "the scheduler is gone. Nothing already built is lost" in err
    assert run_sbprep("build", *OPTIONS, "--out", tmp_path / "out").returncode == 0
    assert tree(tmp_path / "out") == undisturbed


def test_a_scheduler_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dask_backend.PATIENCE <= 10
    monkeypatch.setattr(dask_backend, "PATIENCE", 1)
    address = f"tcp://127.0.0.1:{free_port()}"

    with pytest.raises(BuildError, match=f"{address}: no Dask scheduler answers there .*look whether this machine can"):
        small_build(None, tmp_path, limit=2, backend="dask", scheduler=address)
    assert list(tmp_path.rglob("*.h5")) == []


def test_a_scheduler_without_workers_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_backend, "PATIENCE", 1)
    (tmp_path / "dask").mkdir()
    with cluster(tmp_path / "dask", workers=0) as dask:
        with pytest.raises(BuildError, match=f"no worker has come within 1 s. Start some: dask worker {dask.address}"):
            small_build(None, tmp_path / "out", limit=2, backend="dask", scheduler=dask.address)


def test_a_build_whose_workers_are_gone_says_so_and_ends(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    short = "import sys; from sbprep import attendance as a; a.SAID, a.ENDED, a.LOOK = 0.2, 1.0, 0.1"
    (tmp_path / "dask").mkdir()
    with cluster(tmp_path / "dask", workers=0) as dask:
        only = dask.add_worker()
        run = Run(
            [sys.executable, "-c", f"{short}; from sbprep.cli import main; main()", *on(dask, tmp_path / "out")[3:]]
        )
        begun(tmp_path / "out", run)
        only.kill()
        status, _, err = run.end()

    assert status == 1, err
    assert f"{dask.address}: no worker left there, waiting up to 1 s" in err
    assert f"{dask.address}: no worker for 1 s. Nothing already built is lost" in err
    assert run_sbprep("build", *OPTIONS, "--out", tmp_path / "out").returncode == 0
    assert tree(tmp_path / "out") == undisturbed


def copy_of_another_version(folder: Path) -> Path:
    shutil.copytree(ROOT / "preprocess", folder, ignore=shutil.ignore_patterns("__pycache__"))
    module = folder / "sbformat/__init__.py"
    module.write_text(module.read_text().replace("__version__ = ", '__version__ = "0.0.9"  # '))
    return folder


def without_numba(folder: Path) -> Path:
    (folder / "numba").mkdir(parents=True)
    (folder / "numba/__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'numba'\")")
    return folder


def test_workers_that_cannot_take_part_are_named_with_the_reason(dask: Cluster, tmp_path: Path) -> None:
    ours = f"{ROOT / 'preprocess'}:{ROOT / 'train'}"
    old = dask.add_worker(PYTHONPATH=f"{copy_of_another_version(tmp_path / 'old')}:{ROOT / 'train'}")
    bare = dask.add_worker(PYTHONPATH=f"{without_numba(tmp_path / 'bare')}:{ours}")
    ended = run_sbprep(*on(dask, tmp_path / "out")[3:])
    for worker in (old, bare):
        worker.kill()
        worker.wait()

    assert ended.returncode == 1
    assert "workers that cannot take part: tcp://127.0.0.1:" in ended.stderr
    assert "sbprep 0.0.9 where the build has 0.1.0" in ended.stderr
    assert "it cannot convert images (No module named 'numba')" in ended.stderr
    assert "pip install 'splitbrain[prep,cluster]'" in ended.stderr
    assert list(tmp_path.rglob("*.h5")) == []


def test_a_worker_of_another_version_that_joins_late_is_named(dask: Cluster, tmp_path: Path) -> None:
    old = copy_of_another_version(tmp_path / "old")
    run = Run([*on(dask, tmp_path / "out"), "--limit", "300"])  # a worker takes seconds to start
    begun(tmp_path / "out", run, shards=2)
    late = dask.add_worker(PYTHONPATH=f"{old}:{ROOT / 'train'}")
    status, _, err = run.end()
    late.kill()
    late.wait()

    assert status == 1, err
    assert "sbprep 0.0.9 where the build has 0.1.0" in err
