"""The part of ``sbprep bench`` that builds: whole builds in steady state, their memory, the command as it is typed.

A short build is mostly start-up (processes, imports, loading compiled kernels), of which half a million images notice
nothing. So a build of at least 16 shards runs as ``sbprep build`` runs it (listing, workers, fsync, journal, manifest),
and its rate is taken between two commits: from the first shard of each worker to the last but one of each. Nothing is
estimated or subtracted. The other sides run in as many processes that stay and are warm.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sbformat.errors import BuildError
from sbformat.schema import CHUNK_IMAGES, IMAGES_PER_SHARD
from sbformat.words import counted
from sbprep import pipeline
from sbprep.config import BuildConfig
from sbprep.convert import convert
from sbprep.sources import open_splits
from sbprep.sources.base import Rejected
from sbprep.stopwatch import Bar, Contestant, Crew, Rounds, comparison, ok, rounds, sampled
from sbprep.worker import pixels_of

BARS = {
    "published preparation": Bar(8, 12),
    "decode alone": Bar(0.6, 0.75),
    "decode alone, libjpeg-turbo": None,  # the decoder that builds use; the bar was set beside OpenCV
}
PEAK_MEGABYTES = 600
#: Most images of a shard here: a fourth of the usual ones, so shards cost more than they do in a real build.
SHARD_IMAGES = 1024
#: A disk that stalls at one commit moves it against the others, so there have to be many.
SHARDS = 16
SHARDS_PER_WORKER = 5
STAGE_IMAGES = 256


@dataclass(frozen=True)
class Files:
    """The JPEG files to measure with, and a folder for what is made of them."""

    folder: Path
    paths: list[str]
    scratch: Path

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Job:
    """What another side does with its files, in each of several processes: a function of a module, and its argument."""

    function: Callable[[list[str]], None]
    paths: list[str]


def building(files: Files, crew: Crew, jobs: dict[str, Job], lacking: list[str], repeats: int) -> Iterator[str]:
    """Compare builds by one worker and by all with `jobs`, and measure memory; `lacking`: distributions to install."""
    shard = min(SHARD_IMAGES, len(files))
    links = _links(files, max(_shards(len(crew)) * shard, IMAGES_PER_SHARD))
    (peak,) = crew.map(first_build, [(_config(links, files.scratch / "first", IMAGES_PER_SHARD),)])
    for job in jobs.values():
        crew.map(job.function, [(job.paths[:8],)] * len(crew))  # imports, first calls
    for workers in sorted({1, len(crew)}):
        config = _config(links, files.scratch / "out", _shards(workers) * shard, shard, workers)
        stages = _stages(files) if workers == 1 else {}
        result = rounds({"build": partial(_rate, config), **_others(crew, workers, jobs), **stages}, repeats)
        yield (
            f"build, JPEG files to rescaled_lab, {counted(workers, 'process', 'processes')} a side, shards of {shard:,} images, "
            f"start-up left out"
        )
        for theirs, bar in BARS.items():
            yield comparison(result, "build", theirs, f"build / {theirs}", bar, lacking)
        if stages:
            yield _shares(result, list(stages))
    yield _as_typed(files, len(crew), result)
    yield (
        f"memory: {peak:,.0f} MB at most in a process that builds a shard of {IMAGES_PER_SHARD:,} images   "
        f"bar {PEAK_MEGABYTES} MB: {ok(peak <= PEAK_MEGABYTES)}"
    )


def scaling(files: Files, crew: Crew, alone: Job, scheduler: str | None, repeats: int) -> Iterator[str]:
    """Compare builds by several processes with builds by one, and a Dask cluster with as many processes.

    `alone` in several processes beside one says what the machine itself gives where nobody waits for anybody.
    """
    workers, shard = len(crew), min(SHARD_IMAGES, len(files))
    count = max(_shards(workers), len(files) // shard)
    several = _config(_links(files, count * shard), files.scratch / "out", count * shard, shard, workers)
    sides = {"several": several, "one": replace(several, workers=1)}
    if scheduler is not None:
        sides["Dask"] = replace(several, workers=-1, backend="dask", scheduler=scheduler)
    crew.map(alone.function, [(alone.paths[:8],)] * workers)  # imports, first calls
    machine = _others(crew, workers, {"several alone": alone}) | _others(crew, 1, {"one alone": alone})
    result = rounds({name: partial(_rate, config, workers) for name, config in sides.items()} | machine, repeats)
    yield f"build, JPEG files to rescaled_lab, shards of {shard:,} images, start-up left out"
    many = counted(workers, "process", "processes")
    yield comparison(result, "several", "one", f"{many} / 1 process", Bar(0.95 * workers, workers))
    yield comparison(result, "several alone", "one alone", "the same, reading and decoding alone")
    if scheduler is not None:
        yield comparison(result, "Dask", "several", f"Dask at {scheduler} / {many}", Bar(0.9, 1))


def first_build(config: BuildConfig) -> float:
    """Build in this process and return its peak memory in MB."""
    pipeline.build(config)
    # Not getrusage: its maximum starts with what the parent had in memory when it started this process.
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in status if line.startswith("VmHWM"))


def _links(files: Files, count: int) -> Path:
    """Return a folder with `count` names for the files."""
    folder = files.scratch / "links"
    folder.mkdir()
    for number in range(count):
        os.link(files.paths[number % len(files)], folder / f"{number:07d}.jpg")
    return folder


def _config(images: Path, out: Path, limit: int, shard: int = IMAGES_PER_SHARD, workers: int = 1) -> BuildConfig:
    return BuildConfig(
        colorspaces=("rescaled_lab",),
        paths={"unlabeled": images},
        out=out,
        limit=limit,
        images_per_shard=shard,
        workers=workers,
    )


def _shards(workers: int) -> int:
    return max(SHARDS, SHARDS_PER_WORKER * workers)


def _rate(config: BuildConfig, workers: int = 0) -> float:
    """Build, and return images/s between two commits, both in the midst of work of so many workers."""
    workers = workers or config.workers
    marks: list[tuple[int, int, float]] = []
    pipeline.build(config, lambda progress: marks.append((progress.shards, progress.images, time.perf_counter())))
    shutil.rmtree(config.out)
    _, images, start = next(mark for mark in marks if mark[0] >= workers)
    _, more_images, end = next(mark for mark in marks if mark[0] >= marks[-1][0] - workers)
    return (more_images - images) / (end - start)


def _others(crew: Crew, members: int, jobs: dict[str, Job]) -> dict[str, Contestant]:
    def contestant(job: Job) -> Contestant:
        return lambda: members * len(job.paths) / crew.seconds(members, job.function, job.paths)

    return {name: contestant(job) for name, job in jobs.items()}


def _stages(files: Files) -> dict[str, Contestant]:
    """Return the parts of one worker's work that can be run by themselves, in this process."""
    config = _config(files.folder, files.scratch / "out", STAGE_IMAGES)
    split = open_splits(config)["unlabeled"]
    items = list(split.source.read(split.listing))
    images = [pixels_of(item, config.image_size, config.resize) for item in items]
    pixels = np.stack([image for image in images if not isinstance(image, Rejected)])
    blocks = [pixels[first : first + CHUNK_IMAGES] for first in range(0, len(pixels), CHUNK_IMAGES)]
    works: dict[str, Callable[[], object]] = {
        "read": lambda: list(split.source.read(split.listing)),
        "decode": lambda: [pixels_of(item, config.image_size, config.resize) for item in items],
        "convert": lambda: [convert(block, "rescaled_lab", config.target) for block in blocks],
    }
    return {name: sampled(work, len(items)) for name, work in works.items()}


def _shares(result: Rounds, stages: list[str]) -> str:
    whole = 1e6 / result.rate("build")
    parts = {name: 1e6 / result.rate(name) for name in stages}
    rest = {"write, hash, fsync and all else": whole - sum(parts.values())}
    text = " + ".join(f"{name} {micros:.0f}" for name, micros in (parts | rest).items())
    return f"  one image takes {whole:.0f} us: {text}"


def _as_typed(files: Files, workers: int, result: Rounds) -> str:
    """Run the command itself, start-up included; its shards stay for whoever wants to read them."""
    command: list[Any] = [sys.executable, "-m", "sbprep", "build", "--colorspace", "rescaled_lab"]
    command += ["--unlabeled", files.folder, "--out", files.scratch / "command"]
    command += ["--workers", str(workers), "--images-per-shard", str(-(-len(files) // workers))]
    start = time.perf_counter()
    ended = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    seconds = time.perf_counter() - start
    if ended.returncode:
        raise BuildError(f"{' '.join(map(str, command))} ended with {ended.returncode}: {ended.stderr[-500:]}")
    steady = len(files) / result.rate("build")
    return (
        f"  sbprep build as typed: {len(files):,} images by {counted(workers, 'worker')} in {seconds:.2f} s; "
        f"{steady:.2f} s at the rate above, the rest is start-up"
    )
