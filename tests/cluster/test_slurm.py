"""The job scripts on a real Slurm of one node: the chain, preempted in the middle, gives what an undisturbed run gives."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from builds import ROOT, environment, tree, write_images
from dask_clusters import free_port, wait_until

pytestmark = pytest.mark.jit

SLURM = Path(__file__).with_name("slurm.sh")
JOBS = ROOT / "docs/jobs"
#: Seconds that the whole chain may take; two jobs are put back, and wait 6 seconds each.
WHOLE = 150
BUILD = "--image-size 64 --target-size 4 --images-per-shard 8"
#: 6 steps of 8 images an epoch, some 10 ms each.
STEPS = 180
PRETRAIN = (
    "--split train --epochs 30 --batch-size 8 --device cpu --precision float32 --log-every 1 --checkpoint-every 1000"
)
FINETUNE = "--head ridge --draws 2 --freeze --device cpu --precision float32"


@pytest.fixture(scope="module")
def settings() -> Iterator[dict[str, str]]:
    """Return the environment in which Slurm's commands find a Slurm, and its jobs this package."""
    with TemporaryDirectory(prefix="slurm-") as folder:  # pytest's own may be entered by nobody else: munged refuses it
        yield from running_slurm(Path(folder))


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


class Chain:
    """What ``docs/jobs/pipeline.sh`` submitted, and what Slurm says of it."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder, self._settings = folder, settings
        self.out, self.run_dir = folder / "cache", folder / "run"
        self._settings = settings | {
            "SOURCE": str(write_images(write_images(folder / "photos", 48), 12, "val")),
            "OUT": str(self.out),
            "RUN_DIR": str(self.run_dir),
            "PREPARE_OPTIONS": BUILD,
            "PRETRAIN_OPTIONS": PRETRAIN,
            "FINETUNE_OPTIONS": FINETUNE,
            "SAMPLES": "1 2",
            "SBATCH_OPTIONS": "--cpus-per-task=1 --time=5",
            "PREPARE_SBATCH": "--array=1-2",
        }
        listed = self.call(str(JOBS / "pipeline.sh"))
        self.jobs = dict(line.split() for line in listed.splitlines())

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


@pytest.fixture(scope="module")
def chain(settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Return the finished chain. Pretraining was warned in the middle, and taken away in the middle of its second run."""
    made = Chain(tmp_path_factory.mktemp("chain"), settings)
    wait_until(lambda: made.steps() >= 20, "pretraining does not begin", WHOLE)
    made.call("scancel", "--batch", "--signal=USR1", made.jobs["pretrain"])
    wait_until(lambda: made.state("pretrain")["Restarts"] == "1", "not back in the queue", WHOLE)
    before = made.steps()
    wait_until(lambda: made.steps() >= before + 20, "pretraining does not go on", WHOLE)
    made.call("scontrol", "requeue", made.jobs["pretrain"])
    made.wait("finetune", "COMPLETED")
    return made


def result(folder: Path, name: str) -> dict[str, Any]:
    (path,) = (folder / "results").glob(f"{name}*.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.fixture(scope="module")
def undisturbed(chain: Chain) -> Path:
    """Return the folder of the same commands, run one after the other on this machine."""
    folder = chain.folder / "undisturbed"
    base = environment(OMP_NUM_THREADS="1")
    for line in (
        f"sbprep build --source {chain.folder}/photos --colorspace lab --out {folder}/cache --workers 1 {BUILD}",
        f"sbtrain pretrain --shards {folder}/cache --colorspace lab --preset modern/simplenet --run-dir {folder}/run {PRETRAIN}",
        f"sbtrain finetune --run {folder}/run --shards {folder}/cache --samples-per-class 1,2 {FINETUNE}",
    ):
        ended = subprocess.run(
            [sys.executable, "-m", *line.split()], env=base, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
    return folder


def test_every_job_ends_well_and_pretraining_was_put_back_twice(chain: Chain) -> None:
    assert {name: chain.state(name)["JobState"] for name in chain.jobs} == dict.fromkeys(chain.jobs, "COMPLETED")
    assert chain.state("pretrain")["Restarts"] == "2"
    assert chain.log("pretrain").count("holds this run") == 2


def test_the_parts_join_to_what_one_machine_makes(chain: Chain, undisturbed: Path) -> None:
    assert tree(chain.out) == tree(undisturbed / "cache")


def test_weights_are_those_of_an_undisturbed_run(chain: Chain, undisturbed: Path) -> None:
    ours, theirs = result(chain.run_dir, "pretrain"), result(undisturbed / "run", "pretrain")

    assert ours["steps"] == theirs["steps"] == STEPS
    assert ours["model_sha256"] == theirs["model_sha256"]


def test_no_step_is_lost_or_done_twice(chain: Chain) -> None:
    steps = [json.loads(line)["step"] for line in (chain.run_dir / "metrics.jsonl").read_text().splitlines()]

    assert steps == list(range(1, STEPS + 1))


def test_fine_tuning_gives_the_same_numbers(chain: Chain, undisturbed: Path) -> None:
    def numbers(folder: Path) -> list[dict[str, Any]]:
        return [{k: v for k, v in fit.items() if k != "seconds"} for fit in result(folder, "finetune")["fits"]]

    assert numbers(chain.run_dir) == numbers(undisturbed / "run")
    assert len(numbers(chain.run_dir)) == 4


def test_what_waits_for_a_failed_job_is_cancelled(settings: dict[str, str], tmp_path: Path) -> None:
    made = Chain(tmp_path, settings | {"LABELED": "none"})
    made.call("scancel", made.jobs["prepare"])
    wait_until(
        lambda: {made.state(name)["JobState"] for name in ("merge", "pretrain")} == {"CANCELLED"}, "they wait on", WHOLE
    )


@pytest.mark.parametrize("script", ["prepare", "merge", "pretrain", "finetune"])
def test_slurm_takes_every_script_as_it_is(settings: dict[str, str], script: str) -> None:
    ended = subprocess.run(
        ["sbatch", "--test-only", JOBS / f"{script}.sbatch"],
        env=settings, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert "to start at" in ended.stderr, ended.stderr
