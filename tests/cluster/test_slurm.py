"""The job scripts on a real Slurm of one node: the chain, preempted in the middle, gives what an undisturbed run gives."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from builds import ROOT, environment, tree, write_images
from dask_clusters import wait_until
from slurm_jobs import WHOLE, Jobs, running_slurm

pytestmark = pytest.mark.jit

JOBS = ROOT / "docs/jobs"
BUILD = "--image-size 64 --target-size 4 --images-per-shard 8"
#: 6 steps of 8 images an epoch, some 10 ms each.
STEPS = 180
PRETRAIN = "--epochs 30 --batch-size 8 --device cpu --precision float32 --log-every 1 --checkpoint-every 1000"
#: Of two ranks: 6 steps an epoch here, too.
PAIR = "--split train --epochs 20 --batch-size 8 --device cpu --precision float32 --log-every 1 --checkpoint-every 10"
FINETUNE = "--head ridge --draws 2 --freeze --device cpu --precision float32"


@pytest.fixture(scope="module")
def settings() -> Iterator[dict[str, str]]:
    """Return the environment in which Slurm's commands find a Slurm, and its jobs this package."""
    with TemporaryDirectory(prefix="slurm-") as folder:  # pytest's own may be entered by nobody else: munged refuses it
        yield from running_slurm(Path(folder))


class Chain(Jobs):
    """What ``docs/jobs/pipeline.sh`` submitted."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.out = folder / "cache"
        run_dir = folder / "run"
        more = {
            "SOURCE": str(write_images(write_images(folder / "photos", 48), 12, "val")),
            "OUT": str(self.out),
            "RUN_DIR": str(run_dir),
            "PREPARE_OPTIONS": BUILD,
            "PRETRAIN_OPTIONS": PRETRAIN,
            "FINETUNE_OPTIONS": FINETUNE,
            "SAMPLES": "1 2",
            "SBATCH_OPTIONS": "--cpus-per-task=1 --time=5",
            "PREPARE_SBATCH": "--array=1-2",
        }
        super().__init__(folder, settings | more, run_dir)
        listed = self.call(str(JOBS / "pipeline.sh"))
        self.jobs = dict(line.split() for line in listed.splitlines())


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


def test_half_a_chain_is_cancelled(settings: dict[str, str], tmp_path: Path) -> None:
    """Slurm takes three jobs and refuses the fourth."""
    more = {
        "SOURCE": "",
        "OUT": str(tmp_path / "out"),
        "RUN_DIR": str(tmp_path / "run"),
        "FINETUNE_SBATCH": "--time=no",
    }
    ended = subprocess.run(
        [JOBS / "pipeline.sh"],
        cwd=tmp_path,
        env=settings | more,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    jobs = Jobs(tmp_path, settings, tmp_path / "run")
    jobs.jobs = dict(line.split() for line in ended.stdout.splitlines())

    assert ended.returncode != 0
    assert f"cancelled: {' '.join(jobs.jobs.values())}" in ended.stderr
    assert [jobs.state(name)["JobState"] for name in ("prepare", "merge", "pretrain")] == ["CANCELLED"] * 3


@pytest.fixture(scope="module")
def pair(settings: dict[str, str], chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    """Return a finished job of two ranks. One was killed; later the job was warned, and went back into the queue."""
    folder = tmp_path_factory.mktemp("pair")
    more = {"SHARDS": str(chain.out), "RUN_DIR": str(folder / "run"), "PRETRAIN_OPTIONS": PAIR, "PROCESSES": "2"}
    made = Jobs(folder, settings | more, folder / "run")
    submit = ("sbatch", "--parsable", "--cpus-per-task=2", "--time=5", str(JOBS / "pretrain.sbatch"))
    made.jobs["pretrain"] = made.call(*submit).strip()
    wait_until(lambda: made.steps() >= 10, "it does not begin", WHOLE)
    os.kill(rank_of(made.jobs["pretrain"], 1), signal.SIGKILL)
    wait_until(lambda: "holds this run" in made.log("pretrain"), "torchrun does not start the ranks again", WHOLE)
    before = made.steps()
    wait_until(lambda: made.steps() >= before + 10, "it does not go on", WHOLE)
    made.call("scancel", "--batch", "--signal=USR1", made.jobs["pretrain"])
    made.wait("pretrain", "COMPLETED")
    return made


def rank_of(job: str, rank: int) -> int:
    """Return the process number of a rank of a job."""
    wanted = {f"SLURM_JOB_ID={job}", f"RANK={rank}"}
    (found,) = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if wanted <= variables(path)]
    return found


def variables(path: Path) -> set[str]:
    try:
        return set(path.read_text(errors="replace").split("\0"))
    except OSError:  # another user's, or gone
        return set()


def test_two_ranks_of_which_one_dies_and_that_are_put_back_learn_what_two_undisturbed_ones_do(
    pair: Jobs, chain: Chain, tmp_path: Path
) -> None:
    line = f"pretrain --shards {chain.out} --colorspace lab --preset modern/simplenet --run-dir {tmp_path}/run {PAIR}"
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "sbtrain", *line.split()],
        env=environment(OMP_NUM_THREADS="1"), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stderr
    assert result(pair.run_dir, "pretrain")["model_sha256"] == result(tmp_path / "run", "pretrain")["model_sha256"]


def test_a_warning_puts_the_job_back_and_has_torchrun_restart_nothing(pair: Jobs) -> None:
    """The ranks began three times: at first, after the death, after the queue."""
    assert pair.state("pretrain")["Restarts"] == "1"
    assert pair.log("pretrain").count("holds this run") == 2


@pytest.mark.parametrize("script", ["prepare", "merge", "pretrain", "finetune"])
def test_slurm_takes_every_script_as_it_is(settings: dict[str, str], script: str) -> None:
    ended = subprocess.run(
        ["sbatch", "--test-only", JOBS / f"{script}.sbatch"],
        env=settings, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert "to start at" in ended.stderr, ended.stderr
