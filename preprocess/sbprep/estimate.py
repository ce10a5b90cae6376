"""How long a build will take: a worker's task, done with a few images and into a temporary folder."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sbprep.convert import convert
from sbprep.journal import Key
from sbprep.plan import Plan, Unit, group_units
from sbprep.sources.base import Item, Listing, Source
from sbprep.worker import Output, Task, run_task

#: Images to measure, over all splits.
SAMPLE = 256
#: Images of each split to begin with, and the seconds that more of them may take.
FEW, MOST_SECONDS = 16, 3.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a build will cost, and what that was measured on."""

    seconds: float
    core_seconds: float
    """Of all workers together."""
    rate: float
    """Images/s of one worker, without passes."""
    sampled: int
    rejected: int
    """Of those sampled."""
    passes: int
    """Passes over compressed archives, of `pass_seconds` on average."""
    pass_seconds: float


def estimate(plan: Plan, keys: list[Key]) -> Estimate:
    """Measure images of every split of which shards are to be made, `keys` (at least one)."""
    _warm_up(plan)
    firsts = {key[0]: key for key in reversed(keys)}
    samples = {split: _sample(plan, key, SAMPLE // len(firsts)) for split, key in firsts.items()}
    seconds, images, passes = [], 0, []
    for group in group_units(plan, [plan.unit(*key) for key in keys]):
        sample, count = samples[group[0].split], sum(len(unit.rows) for unit in group)
        seconds.append(sample.waited + count * sample.each)
        images += count
        passes += [sample.waited] if plan.splits[group[0].split].source.sequential else []
    return Estimate(
        seconds=_makespan(seconds, plan.config.worker_count),
        core_seconds=sum(seconds),
        rate=images / (sum(seconds) - sum(passes)),
        sampled=sum(sample.images for sample in samples.values()),
        rejected=sum(sample.rejected for sample in samples.values()),
        passes=len(passes),
        pass_seconds=sum(passes) / max(len(passes), 1),
    )


@dataclass(frozen=True, kw_only=True)
class _Sample:
    images: int
    rejected: int
    waited: float
    """Seconds of one pass; 0 where nothing is read in passes."""
    each: float
    """Seconds an image, without the pass."""


def _sample(plan: Plan, key: Key, images: int) -> _Sample:
    """Measure a few images, then more where that takes no time: large photographs take 0.1 s each."""
    few = _measure(plan, key, min(FEW, images))
    return few if (few.waited + images * few.each) > MOST_SECONDS else _measure(plan, key, images)


def _measure(plan: Plan, key: Key, images: int) -> _Sample:
    unit = plan.unit(*key)
    rows = np.arange(min(images, len(unit.part)))
    unit = replace(unit, rows=unit.rows[rows], part=unit.part.take(rows))
    source = _Timed(plan.splits[unit.split].source)
    with TemporaryDirectory(prefix="sbprep-") as folder:
        start = time.perf_counter()
        made = run_task(_task(plan, unit, source, Path(folder)))
        seconds = time.perf_counter() - start - source.waited
    return _Sample(
        images=len(rows), rejected=len(made[0].result.rejects), waited=source.waited, each=seconds / len(rows)
    )


def _task(plan: Plan, unit: Unit, source: Source, folder: Path) -> Task:
    """Return what a worker would do with `unit`, into another folder."""
    config = plan.config
    outputs = []
    for colorspace in config.colorspaces:
        (folder / colorspace).mkdir()
        datasets = plan.datasets(unit.split, colorspace)
        outputs.append(Output(colorspace=colorspace, folder=folder / colorspace, datasets=datasets))
    return Task(
        units=[unit],
        outputs=[outputs],
        source=source,
        image_size=config.image_size,
        resize=config.resize,
        target=config.target,
        compression=config.compression,
    )


class _Timed:
    """A source that notes how long its first image takes: of a sequential one it comes when the pass is over."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.waited = 0.0

    @property
    def sequential(self) -> bool:
        return self._source.sequential

    def read(self, part: Listing) -> Iterator[Item]:
        start, items = time.perf_counter(), iter(self._source.read(part))
        first = next(items)
        if self.sequential:
            self.waited = time.perf_counter() - start
        yield first
        yield from items


def _makespan(seconds: list[float], workers: int) -> float:
    """Return when the last of these tasks ends: each goes to the worker that is free first."""
    free = [0.0] * workers
    for one in seconds:
        heapq.heapreplace(free, free[0] + one)
    return max(free)


def _warm_up(plan: Plan) -> None:
    """Compile, or load what was compiled, outside the measurement."""
    size = plan.config.image_size
    for colorspace in plan.config.colorspaces:
        convert(np.zeros((1, size, size, 3), np.uint8), colorspace, plan.config.target)
