"""A real Slurm of one node, and the jobs that tests submit to it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from builds import ROOT, environment
from dask_clusters import free_port, wait_until

SLURM = ROOT / "tests/cluster/slurm.sh"
#: Seconds that the whole chain may take; two jobs are put back, and wait 6 seconds each.
WHOLE = 150


def running_slurm(folder: Path) -> Iterator[dict[str, str]]:
    started = subprocess.run(
        [SLURM, "up", folder],
        env=environment(SLURM_PORT=str(free_port()), SLURM_CPUS="16"),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    try:
        if started.returncode and "cannot be installed" in started.stderr and not os.environ.get("CI"):
            pytest.skip(f"no Slurm here: {started.stderr.strip()}")
        assert started.returncode == 0, started.stderr
        found = environment(SLURM_CONF=str(folder / "slurm.conf"), OMP_NUM_THREADS="1")
        yield found | {"PATH": f"{Path(sys.executable).parent}:{found['PATH']}"}
    finally:
        subprocess.run([SLURM, "down", folder], timeout=120, check=True)


class Jobs:
    """Jobs by name, in the folder where their logs go and with the settings of all of them; what Slurm says of them."""

    def __init__(self, folder: Path, settings: dict[str, str], run_dir: Path) -> None:
        self.folder, self.run_dir, self._settings = folder, run_dir, settings
        self.jobs: dict[str, str] = {}

    def call(self, *command: str, **changes: str) -> str:
        ended = subprocess.run(
            command,
            cwd=self.folder,
            env=self._settings | changes,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert ended.returncode == 0, (command, ended.stderr, self.logs())
        return ended.stdout

    def state(self, job: str) -> dict[str, str]:
        """What ``scontrol show job`` says of a job."""
        words = self.call("scontrol", "--oneliner", "show", "job", self.jobs[job]).split("\n")[0].split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, job: str, *states: str) -> None:
        def reached() -> bool:
            state = self.state(job)["JobState"]
            assert state not in ("FAILED", "CANCELLED", "TIMEOUT") or state in states, self.logs()
            return state in states

        wait_until(reached, f"{job} does not become {states}: {self.logs()}", WHOLE)

    def steps(self) -> int:
        """Lines of metrics.jsonl: one a step."""
        path = self.run_dir / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def logs(self) -> str:
        return "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log")))

    def log(self, job: str) -> str:
        return (self.folder / f"sb-{job}-{self.jobs[job]}.log").read_text()
