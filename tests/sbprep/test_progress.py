"""Progress moves within a shard, never falls, and ends the build when whoever is told fails."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from builds import small_plan
from crashes import DeadlySource
from sbprep.inflight import InFlight, marks
from sbprep.pipeline import run_plan
from sbprep.plan import Plan
from sbprep.progress import Progress, Watch


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sbprep.progress.TICK", 0.01)


def slow_plan(out: Path, **options: object) -> Plan:
    """40 images in three shards, each image takes 5 ms."""
    plan = small_plan(None, out, limit=40, **options)
    split = plan.splits["train"]
    return replace(plan, splits={"train": replace(split, source=DeadlySource("none", "exit"))})


@pytest.mark.parametrize("options", [{}, {"workers": 2, "backend": "threading"}])
def test_images_under_way_count_before_their_shard_is_done(tmp_path: Path, options: dict[str, object]) -> None:
    seen: list[Progress] = []
    run_plan(slow_plan(tmp_path, **options), seen.append)
    counts = [progress.images + progress.under_way for progress in seen]

    assert counts == sorted(counts)
    assert any(0 < progress.under_way < 16 and progress.shards == 0 for progress in seen)
    assert (seen[-1].images, seen[-1].under_way) == (40, 0)


def test_a_worker_that_is_done_keeps_its_images_until_they_are_committed(tmp_path: Path) -> None:
    plan = small_plan(None, tmp_path, limit=40)
    (tmp_path / "train").mkdir()
    seen: list[Progress] = []
    with Watch(seen.append, {("train", 0): 16, ("train", 1): 16}, {"train": [tmp_path / "train"]}, 0) as watch:
        with InFlight(tmp_path / "train", plan.unit("train", 0)) as marker:
            marker.at(9)
            wait_for(seen, 9)
        with InFlight(tmp_path / "train", plan.unit("train", 1)) as marker:
            marker.at(5)
            wait_for(seen, 14)
        watch.made([("train", 0)], rejected=2)

    assert (seen[-1].images, seen[-1].under_way, seen[-1].rejected) == (16, 5, 2)


def wait_for(seen: list[Progress], under_way: int) -> None:
    deadline = time.monotonic() + 10
    while seen[-1].under_way != under_way:
        assert time.monotonic() < deadline, seen
        time.sleep(0.005)


def test_shards_of_other_builds_in_the_folder_do_not_count(tmp_path: Path) -> None:
    plan = small_plan(None, tmp_path, limit=40)
    (tmp_path / "train").mkdir()
    seen: list[Progress] = []
    with (
        Watch(seen.append, {("train", 0): 16}, {"train": [tmp_path / "train"]}, 0),
        InFlight(tmp_path / "train", plan.unit("train", 1)) as marker,
    ):
        marker.at(9)
        time.sleep(0.1)

    assert [progress.under_way for progress in seen] == [0]


@pytest.mark.parametrize("name", [".shard-x.inflight", ".shard-x.h5.4711.inflight", ".shard-00000.h5.x.inflight"])
def test_a_file_of_somebody_else_is_no_mark(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(16))

    assert list(marks(tmp_path)) == []


def test_a_report_that_fails_between_shards_ends_the_build_with_its_error(tmp_path: Path) -> None:
    def fail(progress: Progress) -> None:
        if progress.under_way:
            raise BrokenPipeError("nobody reads")

    with pytest.raises(BrokenPipeError, match="nobody reads"):
        run_plan(slow_plan(tmp_path), fail)
