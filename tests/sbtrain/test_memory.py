"""A run does not grow, and says beforehand how much memory, time and disk it takes."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from memory import growth, resident_by_epoch
from runs import checkpoints
from sbformat.manifest import Manifest
from sbtrain.config import PretrainConfig
from sbtrain.dry_run import Estimates, dry_run, sentences
from sbtrain.loop import Habits
from sbtrain.prepare import Request
from sbtrain.pretrain import copies
from sbtrain.runtime import StopRequest

CONFIG = PretrainConfig(epochs=20, batch_size=8, limit=16, lr=1e-3, schedule="constant")


@pytest.mark.parametrize("cache", ["host", "mmap"])
def test_memory_grows_by_less_than_a_megabyte_an_epoch(lab: Manifest, tmp_path: Path, cache: str) -> None:
    """Every epoch saves a checkpoint; `soak_memory.py` does the same for 50 epochs of any shards."""
    found = resident_by_epoch(lab, tmp_path / "run", CONFIG, cache)

    assert len(found) == 20
    assert growth(found) < 1


def test_growth_is_found() -> None:
    assert growth([500.0 + 2 * epoch for epoch in range(20)]) == pytest.approx(2.0)


@pytest.fixture(scope="module")
def estimated(shards: Path) -> tuple[Request, Estimates]:
    request = Request(config=replace(CONFIG, limit=0), shards=shards / "lab", device="cpu", habits=Habits(keep_last=3))
    return request, dry_run(request, StopRequest(), lambda _: None)


def test_a_dry_run_knows_the_size_of_a_checkpoint(estimated: tuple[Request, Estimates], undisturbed: Path) -> None:
    request, found = estimated
    newest = undisturbed / "checkpoints" / f"step-{checkpoints(undisturbed)[-1]:08d}"

    assert found.checkpoint_bytes == pytest.approx(sum(path.stat().st_size for path in newest.iterdir()), rel=0.01)
    assert found.disk_bytes == copies(request.habits) * found.checkpoint_bytes


def test_a_dry_run_counts_steps_and_saves(estimated: tuple[Request, Estimates]) -> None:
    _, found = estimated

    assert found.steps == 20 * 6
    assert found.seconds == pytest.approx(found.steps * 8 / found.images_per_s, rel=0.5)
    assert found.seconds > found.steps * 8 / found.images_per_s


def test_a_dry_run_tells_mapped_shards_from_memory(estimated: tuple[Request, Estimates]) -> None:
    request, found = estimated

    assert sentences(request, found)[3].startswith("memory: ")
    assert "in the page cache" in sentences(request, replace(found, mapped_bytes=10**9))[3]


def test_a_dry_run_leaves_no_thread(shards: Path, estimated: tuple[Request, Estimates]) -> None:
    assert [thread.name for thread in threading.enumerate() if "_prefetch" in thread.name] == []
