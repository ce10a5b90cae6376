"""A dry run counts a pass over an archive once a pass, and what an image costs once an image."""

import tarfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from builds import small_plan, write_images
from sbprep import estimate as estimating
from sbprep.estimate import estimate
from sbprep.plan import Plan
from sbprep.sources.base import Item, Listing

PASS = 0.2
EACH = 0.01


@dataclass(frozen=True)
class Archive:
    """Gray images: a pass before the first one, and a wait before each."""

    sequential: bool

    def read(self, part: Listing):  # type: ignore[no-untyped-def]
        if self.sequential:
            time.sleep(PASS)
        for _ in part.names:
            time.sleep(EACH)
            item: Item = np.full((16, 16, 3), 128, np.uint8)
            yield item


def slow_plan(sequential: bool, **options: object) -> Plan:
    plan = small_plan(None, limit=100, images_per_shard=10, **options)
    return replace(plan, splits={"train": replace(plan.splits["train"], source=Archive(sequential))})


@pytest.mark.parametrize(("sequential", "workers"), [(False, 1), (False, 2), (True, 1), (True, 2)])
def test_time_is_images_by_their_cost_and_passes_by_theirs(sequential: bool, workers: int) -> None:
    plan = slow_plan(sequential, workers=workers)
    cost = estimate(plan, plan.keys())

    assert cost.passes == (workers if sequential else 0)
    assert cost.pass_seconds >= (PASS if sequential else 0)
    assert cost.rate < 1.2 / EACH  # a busy machine takes longer
    assert cost.seconds == pytest.approx(100 / cost.rate / workers + cost.pass_seconds)
    assert cost.core_seconds == pytest.approx(cost.seconds * workers)


def test_only_the_shards_to_be_made_count() -> None:
    plan = slow_plan(False, workers=1)

    assert estimate(plan, plan.keys()[:2]).seconds < 0.5 * estimate(plan, plan.keys()).seconds


def test_images_that_take_long_are_sampled_few(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = small_plan(None, limit=100, workers=1)
    plan = replace(plan, splits={"train": replace(plan.splits["train"], source=Archive(False))})
    plan = replace(plan, config=replace(plan.config, images_per_shard=100))
    monkeypatch.setattr(estimating, "MOST_SECONDS", 1000)
    many = estimate(plan, plan.keys()).sampled
    monkeypatch.setattr(estimating, "MOST_SECONDS", 0.5)

    assert (many, estimate(plan, plan.keys()).sampled) == (100, estimating.FEW)


def test_every_split_is_sampled(tmp_path: Path) -> None:
    photos = write_images(write_images(tmp_path / "photos", 5), 7, "val")
    (photos / "val/cat/000.png").write_bytes(b"")
    cost = estimate(plan := small_plan(photos), plan.keys())

    assert (cost.sampled, cost.rejected) == (12, 1)


def test_a_real_archive_makes_passes_and_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "photos.tar.gz", "w:gz") as tar:
        tar.add(photos, ".")
    plan = small_plan(tmp_path / "photos.tar.gz", out=tmp_path / "out", workers=1)

    assert estimate(plan, plan.keys()).passes == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos.tar.gz"]
