"""``sbtrain bench``: this machine's loader beside others' and memcpy, and its training steps.

Everything runs on shards of random bytes that are written first. Loaders take turns (`bench_rounds`), in one process,
torch on one thread, all files in the page cache; ours prepares batches in a thread of its own while the consumer only
counts. Others' formats hold the same images, or the first few thousand of them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import numpy as np
import torch

from sbformat.errors import ConfigError
from sbformat.manifest import Manifest, open_manifest
from sbtrain.bench.augment import augmenting
from sbtrain.bench.peers import BATCH, DATASETS, PEERS
from sbtrain.bench.rounds import Bar, comparison, ok, rounds, sampled
from sbtrain.bench.steps import (
    BAR_MINUTES,
    HABITS,
    REPORT_EPOCHS,
    REPORT_HOURS,
    REPORT_IMAGES,
    STRETCH_MINUTES,
    FirstStep,
    Setting,
    Steady,
    first_step,
    minutes,
    steady,
)
from sbtrain.bench.synthetic import write_synthetic
from sbtrain.config import Mode
from sbtrain.data import Cache, Loader, Order, SplitReader, reside
from sbtrain.networks import HALVES
from sbtrain.runtime import RunError, Runtime, set_up

SPLIT = "unlabeled"
BARS = {
    "the report's loader": Bar(100),
    "h5py, d[i] per image": None,
    "MosaicML Streaming": Bar(10),
    "memcpy": Bar(None, 0.7),
}
CPU = torch.device("cpu")
#: 50 ways of training on a GPU have to end within ten minutes, start and warm-up included.
TRAINING_TURNS = 6


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and how long.

    Raises
    ------
    ConfigError
        No such network, or a batch that the images do not fill.
    """

    images: int
    networks: tuple[str, ...]
    batch_sizes: tuple[int, ...] = (BATCH,)
    device: str = "auto"
    repeats: int = 7
    seconds: float = 0.3
    """Of a turn of one loader; a way of training gets `TRAINING_TURNS` of them."""

    def __post_init__(self) -> None:
        for name in self.networks:
            if name not in HALVES:
                raise ConfigError(f"network {name!r}, expected some of {', '.join(HALVES)}")
        if max(BATCH, *self.batch_sizes) > self.images:
            raise ConfigError(
                f"{self.images} images, expected a batch of {max(BATCH, *self.batch_sizes)} or more. Use --images"
            )


def run(plan: Plan) -> Iterator[str]:
    """Measure, and yield the lines to print as soon as each is known."""
    with TemporaryDirectory(prefix="sbtrain-bench-") as folder, _torch_state():
        runtime = set_up(plan.device, "auto", "exact", 0)
        yield from _conditions(plan, runtime)
        begun = time.perf_counter()
        write_synthetic(Path(folder) / "lab", {SPLIT: plan.images})
        manifest = open_manifest(Path(folder))
        yield f"  shards     written in {time.perf_counter() - begun:.1f} s"
        yield from _loading(manifest, Path(folder), plan)
        yield from augmenting(Path(folder) / "rgb", runtime, plan.repeats, plan.seconds)
        yield from _training(manifest, plan, runtime)


@contextlib.contextmanager
def _torch_state() -> Iterator[None]:
    deterministic, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


def _conditions(plan: Plan, runtime: Runtime) -> Iterator[str]:
    yield f"sbtrain bench, {time.strftime('%Y-%m-%d', time.gmtime())}"
    yield f"  processor  {_processor()}, {os.cpu_count()} cores"
    yield f"  device     {runtime.describe()}"
    yield f"  software   Python {platform.python_version()}, {', '.join(_versions())}"
    yield f"  images     {plan.images:,} of 96 x 96, random bytes, with both targets"
    yield f"  numbers    ratio (lowest to highest of {plan.repeats} rounds), then the two rates; above 1 sbtrain is faster"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _versions() -> Iterator[str]:
    yield f"torch {torch.__version__}"
    for name in ("numpy", "h5py", "pillow", "scikit-image", "mosaicml-streaming"):
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"{name} not installed"


# ---------------------------------------------------------------------------------------------------------- loading


def _loading(manifest: Manifest, folder: Path, plan: Plan) -> Iterator[str]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield f"batches of {BATCH} in host memory, images and both targets, shuffled"
    with contextlib.ExitStack() as open_loaders:
        sides: dict[str, Iterator[int]] = {
            "host": _ours(manifest, "host"),
            "mmap": _ours(manifest, "mmap"),
            "memcpy": _copied(manifest),
        }
        lacking = {peer.name: peer.lacking() for peer in PEERS}
        for number, peer in enumerate(PEERS):
            if not lacking[peer.name]:
                (folder / str(number)).mkdir()
                sides[peer.name] = peer.make(manifest, SPLIT, folder / str(number))
        for batches in sides.values():
            open_loaders.enter_context(contextlib.closing(batches))  # type: ignore[type-var]
        rates = rounds({name: sampled(batches, plan.seconds) for name, batches in sides.items()}, plan.repeats)
    torch.set_num_threads(threads)
    yield f"  host {median(rates['host']):,.0f}, mmap {median(rates['mmap']):,.0f} images/s"
    for ours, (theirs, bar) in itertools.product(("host", "mmap"), BARS.items()):
        yield comparison(rates, ours, theirs, bar, lacking.get(theirs, ()))


def _ours(manifest: Manifest, cache: Cache) -> Iterator[int]:
    with contextlib.closing(SplitReader(manifest, SPLIT, DATASETS)) as reader:
        loader = Loader(reside(cache, reader, CPU), Order(len(reader), 0), BATCH)
        with contextlib.closing(loader.batches(0, 1 << 40)) as batches:
            yield from map(len, batches)


def _copied(manifest: Manifest) -> Iterator[int]:
    """Copy images and targets in the order in which they lie in memory: what no loader that shuffles can surpass."""
    with contextlib.closing(SplitReader(manifest, SPLIT, DATASETS)) as reader:
        arrays: dict[str, Any] = {name: reader.read(name) for name in DATASETS}
        count = len(reader)
    out = {name: np.empty_like(array[:BATCH]) for name, array in arrays.items()}
    for start in itertools.cycle(range(0, count - BATCH + 1, BATCH)):
        for name, array in arrays.items():
            np.copyto(out[name], array[start : start + BATCH])
        yield BATCH


# --------------------------------------------------------------------------------------------------------- training


def _training(manifest: Manifest, plan: Plan, runtime: Runtime) -> Iterator[str]:
    on_cuda = runtime.device.type == "cuda"
    caches: tuple[Cache, ...] = ("device", "host") if on_cuda else ("host", "mmap")
    yield f"training of the split-brain networks, {runtime.describe()}"
    starts: dict[str, FirstStep] = {}
    for network in plan.networks:
        setting = Setting(network=network, cache=caches[0], batch_size=plan.batch_sizes[0], device=plan.device)
        starts[network] = first_step(manifest, setting)
        yield (
            f"  {network}: first step {starts[network].seconds:.1f} s after the start of a new process, "
            f"{starts[network].loading:.1f} s of them for {plan.images:,} images in {caches[0]}"
        )
    yield _heading(on_cuda)
    rows = itertools.product(plan.networks, plan.batch_sizes, _ways(on_cuda, caches))
    # Graphs last: a capture that fails leaves torch's allocator waiting for its end.
    for network, size, (mode, graphs, cache) in sorted(rows, key=lambda row: row[2][1]):
        setting = Setting(network=network, cache=cache, batch_size=size, mode=mode, device=plan.device, graphs=graphs)
        yield _measured(manifest, setting, plan, starts[network])
    if on_cuda:
        yield "  MFU: share of the bfloat16 peak, in float32 of the TF32 peak"
        yield (
            f"  minutes: start, {REPORT_EPOCHS} epochs of {REPORT_IMAGES:,} images at this rate, and a checkpoint every "
            f"{HABITS.checkpoint_every:,} steps into {gettempdir()} (the report: {REPORT_HOURS} h); bar {BAR_MINUTES:g}, "
            f"stretch {STRETCH_MINUTES:g} for resnet18"
        )


def _ways(on_cuda: bool, caches: tuple[Cache, ...]) -> Iterator[tuple[Mode, bool, Cache]]:
    """Yield mode, whether steps are CUDA graphs, and where the images wait."""
    modes: tuple[Mode, ...] = ("exact", "fast") if on_cuda else ("exact",)
    for mode, cache in itertools.product(modes, caches):
        yield mode, False, cache
    if on_cuda:
        yield "fast", True, caches[0]


def _measured(manifest: Manifest, setting: Setting, plan: Plan, start: FirstStep) -> str:
    try:
        return _row(setting, steady(manifest, setting, TRAINING_TURNS * plan.seconds), start, plan.images)
    except torch.cuda.OutOfMemoryError:
        return f"{_settings(setting)}   not enough device memory"
    except RunError as error:
        return f"{_settings(setting)}   {error}"


def _settings(setting: Setting) -> str:
    mode = setting.mode + "+graph" * setting.graphs
    return f"  {setting.network:<14}{setting.batch_size:>6} {mode:<11}{setting.cache:<7}"


def _heading(on_cuda: bool) -> str:
    common = f"  {'network':<14}{'batch':>6} {'mode':<11}{'in':<7}{'images/s':>9}{'data wait':>11}"
    return common + (f"{'TFLOP/s':>9}{'MFU':>6}{'peak GB':>9}{'minutes':>9}" if on_cuda else f"{'first step':>12}")


def _row(setting: Setting, found: Steady, start: FirstStep, images: int) -> str:
    common = f"{_settings(setting)}{found.images_per_s:>9,.0f}{found.data_wait:>11.2%}"
    if found.peak_bytes is None:
        return f"{common}{found.first_seconds:>10.1f} s"
    total = minutes(found, setting.batch_size, start, images)
    judged = f"   bar: {ok(total <= BAR_MINUTES)}, stretch: {ok(total <= STRETCH_MINUTES)}"
    return (
        f"{common}{(found.flops or 0) / 1e12:>9.1f}{'?' if found.mfu is None else f'{found.mfu:.0%}':>6}"
        f"{found.peak_bytes / 1e9:>9.1f}{total:>9.1f}{judged if setting.network == 'resnet18' else ''}"
    )
