"""The part of ``sbtrain bench`` that trains: steady steps of real networks, and the time to the first one."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from sbformat.errors import SplitbrainError
from sbformat.manifest import Manifest
from sbtrain.build import build_loader, build_method, count_flops, open_split
from sbtrain.config import Mode, PretrainConfig
from sbtrain.data import Batch, Cache, Waiting
from sbtrain.dry_run import save_count, timed_save
from sbtrain.flops import peak_flops
from sbtrain.graphs import GraphedStep
from sbtrain.loop import Habits
from sbtrain.runtime import Runtime, set_up
from sbtrain.step import Step

#: The report's job, and the time that design allows for it on one H200.
REPORT_IMAGES, REPORT_EPOCHS, REPORT_HOURS = 512_000, 7, 48
BAR_MINUTES, STRETCH_MINUTES = 7.0, 3.5
WARM_UP = 5
#: What a run does besides learning where nobody asks for anything else.
HABITS = Habits()
#: Longest wait for another process's first step.
FIRST_STEP_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One way of training."""

    network: str
    cache: Cache
    batch_size: int
    mode: Mode = "exact"
    device: str = "auto"
    graphs: bool = False

    def config(self) -> PretrainConfig:
        """Return the config of a run that takes such steps."""
        return PretrainConfig(network=self.network, batch_size=self.batch_size, mode=self.mode, schedule="constant")


@dataclass(frozen=True, kw_only=True)
class Steady:
    """What was measured of a setting once it was warm."""

    images_per_s: float
    data_wait: float
    flops: float | None
    """FLOP/s reached; CUDA alone, as the two that follow."""
    mfu: float | None
    peak_bytes: int | None
    first_seconds: float
    """From building the network to the end of its first step, in a process where torch is warm."""
    save_seconds: float
    """Of one checkpoint, written to the folder for temporary files."""


@dataclass(frozen=True, kw_only=True)
class FirstStep:
    """How long a new process takes until it has learned from one batch."""

    seconds: float
    loading: float
    """Of these the part that grows with the number of images."""


def steady(manifest: Manifest, setting: Setting, seconds: float) -> Steady:
    """Take steps for about `seconds` and measure them; the device is waited for as often as a run does, and at both ends."""
    config = setting.config()
    runtime = set_up(setting.device, "auto", setting.mode, 0)
    on_cuda = runtime.device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(runtime.device)
    begun = time.perf_counter()
    with _training(manifest, setting, runtime) as (step, batches, waiting):
        step(next(batches), 1e-4)
        _wait_for(runtime)
        first = time.perf_counter() - begun
        for _ in range(WARM_UP if on_cuda else 1):
            step(next(batches), 1e-4)
        _wait_for(runtime)
        waited, start, steps = waiting.seconds, time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds or steps < 2:
            step(next(batches), 1e-4)
            steps += 1
            if steps % config.bad_steps == 0:
                _ = step.guard.in_row
            if steps % HABITS.log_every == 0:
                step.totals.read()
        _wait_for(runtime)
        elapsed = time.perf_counter() - start
        rate, share = steps * setting.batch_size / elapsed, (waiting.seconds - waited) / elapsed
        with tempfile.TemporaryDirectory(prefix="sbtrain-bench-save-") as folder:
            _, save_seconds = timed_save(Path(folder), step)
    flops = rate * count_flops(config, manifest) if on_cuda else None
    peak = peak_flops(runtime.name, runtime.dtype) if on_cuda else None
    return Steady(
        images_per_s=rate,
        data_wait=share,
        flops=flops,
        mfu=flops / peak if flops and peak else None,
        peak_bytes=torch.cuda.max_memory_allocated(runtime.device) if on_cuda else None,
        first_seconds=first,
        save_seconds=save_seconds,
    )


def first_step(manifest: Manifest, setting: Setting) -> FirstStep:
    """Start a new process that takes one step, and measure from its start to the end of that step.

    Raises
    ------
    SplitbrainError
        It failed or did not come to an end.
    """
    values = [str(manifest.root), setting.network, setting.cache, setting.batch_size, setting.mode, setting.device]
    code = f"from sbtrain.bench.steps import report_first_step; report_first_step(*{values!r})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    begun = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=FIRST_STEP_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise SplitbrainError(f"the first step of {setting.network} took over {FIRST_STEP_SECONDS} s") from None
    if done.returncode:
        raise SplitbrainError(f"the first step of {setting.network} failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    # perf_counter is the machine's monotonic clock: its values compare across processes.
    return FirstStep(seconds=found["end"] - begun, loading=found["loading"])


def report_first_step(root: str, network: str, cache: Cache, batch_size: int, mode: Mode, device: str) -> None:
    """Take one step and write to standard output when it ended, and how long the images took to load."""
    manifest = Manifest.read(Path(root))
    setting = Setting(network=network, cache=cache, batch_size=batch_size, mode=mode, device=device)
    runtime = set_up(device, "auto", mode, 0)
    torch.zeros(1, device=runtime.device)  # CUDA starts here, not while the images are loaded
    begun = time.perf_counter()
    with _training(manifest, setting, runtime) as (step, batches, _):
        loading = time.perf_counter() - begun
        step(next(batches), 1e-4)
        _wait_for(runtime)
        sys.stdout.write(json.dumps({"end": time.perf_counter(), "loading": loading}) + "\n")


def minutes(found: Steady, batch_size: int, first: FirstStep, images: int) -> float:
    """Return how long the report's job takes: start, steps, and saves as often as a run does unasked.

    Parameters
    ----------
    found : Steady
    batch_size : int
    first : FirstStep
        Measured on shards of `images` images.
    images : int
    """
    start = first.seconds + first.loading * max(0.0, REPORT_IMAGES / images - 1)
    saves = save_count(REPORT_EPOCHS * (REPORT_IMAGES // batch_size), HABITS.checkpoint_every)
    return (start + REPORT_EPOCHS * REPORT_IMAGES / found.images_per_s + saves * found.save_seconds) / 60


@contextlib.contextmanager
def _training(
    manifest: Manifest, setting: Setting, runtime: Runtime
) -> Iterator[tuple[Step, Iterator[Batch], Waiting]]:
    config = setting.config()
    method = build_method(config, manifest)
    with contextlib.closing(open_split(config, manifest, method)) as reader:
        loader = build_loader(config, reader, runtime, setting.cache)
        method.train()
        step = (GraphedStep if setting.graphs else Step)(config, method, runtime)
        with contextlib.closing(loader.batches(0, 1 << 40)) as batches:
            yield step, batches, loader.waiting


def _wait_for(runtime: Runtime) -> None:
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)
