"""``sbtrain pretrain --dry-run``: try a run in a temporary folder, and say what the real one will take."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch

from sbformat.words import counted
from sbtrain import checkpoint
from sbtrain.build import build_loader, build_method
from sbtrain.data import Loader
from sbtrain.graphs import GraphedStep
from sbtrain.header import describe
from sbtrain.loop import train
from sbtrain.methods import Method
from sbtrain.prepare import Parts, Request, prepare
from sbtrain.pretrain import copies, verify
from sbtrain.progress import NoProgress, bytes_text, duration_text
from sbtrain.runtime import RunError, StopRequest
from sbtrain.step import Step

WARM_UP = 2
TIMED_SECONDS = 3.0
MOST_STEPS = 500


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """What the real run will take."""

    steps: int
    images_per_s: float
    seconds: float
    """Of all steps and saves, without the start."""
    checkpoint_bytes: int
    disk_bytes: int
    memory_bytes: int
    """Peak: of the device on CUDA, else of the process, mapped pages of the libraries included."""
    mapped_bytes: int
    """Of shards that stay in the page cache as long as there is room."""


def dry_run(request: Request, stop: StopRequest, say: Callable[[str], None]) -> Estimates:
    """Try a run in a temporary folder: one step, one save, one resume, one more step; then time some.

    Raises
    ------
    SplitbrainError
        As the run itself would, or the resumed weights are others than the saved ones.
    """
    parts = prepare(request)
    with closing(parts.reader), tempfile.TemporaryDirectory(prefix="sbtrain-dry-") as folder:
        if request.verify:
            verify(parts.reader)
        loader = build_loader(request.config, parts.reader, parts.runtime, request.cache)
        say(describe(request, parts, loader))
        say("measuring steps, a save and a resume in a temporary folder, which can take a minute")

        def run(method: Method, stop_after: int) -> None:
            habits = replace(request.habits, stop_after=stop_after)
            train(request.config, method, loader, Path(folder), parts.runtime, habits, stop, _unsaid, NoProgress())

        run(parts.method, 1)
        saved = checkpoint.latest(Path(folder) / "checkpoints", say)
        assert saved is not None, "train ends with a save"
        resumed = build_method(request.config, parts.manifest)
        _check_weights(saved, resumed, parts.method)
        torch.nn.Module.to(parts.method, "meta")  # its memory is no part of a run's
        run(resumed, 2)
        step = (GraphedStep if request.habits.graphs else Step)(request.config, resumed, parts.runtime)
        seconds = _step_seconds(step, loader)
        size, save_seconds = timed_save(Path(folder), step)
        return _estimates(request, parts, loader, (seconds, save_seconds), size)


def _unsaid(_: str) -> None:
    """Of a run that is none nothing is said: its steps would be taken for those of a real one."""


def sentences(request: Request, found: Estimates) -> list[str]:
    """Return what a person reads."""
    mapped = f", and up to {bytes_text(found.mapped_bytes)} of shards in the page cache" if found.mapped_bytes else ""
    kind = "device memory" if request.device != "cpu" and torch.cuda.is_available() else "memory"
    return [
        "one step, one save and one resume went well",
        f"time: {duration_text(found.seconds)} for {counted(found.steps, 'step')} at {found.images_per_s:,.0f} images/s",
        f"disk: {bytes_text(found.disk_bytes)} for {copies(request.habits)} checkpoints of "
        f"{bytes_text(found.checkpoint_bytes)}",
        f"{kind}: {bytes_text(found.memory_bytes)}{mapped}",
    ]


def _step_seconds(step: Step, loader: Loader) -> float:
    # The median: load from elsewhere slows single steps, and no run is as short as this one.
    device, times = step.runtime.device, list[float]()
    with closing(loader.batches(0, MOST_STEPS)) as batches:
        for batch in batches:
            begun = time.perf_counter()
            step(batch, 0.0)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - begun)
            if sum(times) > TIMED_SECONDS:
                break
    return median(times[WARM_UP:] or times)


def timed_save(folder: Path, step: Step) -> tuple[int, float]:
    """Save a checkpoint below `folder`; return its bytes and the seconds that it took."""
    begun = time.perf_counter()
    saved = checkpoint.save(folder / "timed", 0, step.method, step.optimizer, {})
    seconds = time.perf_counter() - begun
    return checkpoint.folder_bytes(saved.path.parent), seconds


def save_count(steps: int, every: int) -> int:
    """Return how many checkpoints a run of `steps` steps writes, the first and the last included."""
    return 1 + math.ceil(steps / every)


def _estimates(request: Request, parts: Parts, loader: Loader, seconds: tuple[float, float], size: int) -> Estimates:
    steps, device = request.config.epochs * loader.steps_per_epoch, parts.runtime.device
    saves = save_count(steps, request.habits.checkpoint_every)
    on_cuda = device.type == "cuda"
    mapped = parts.reader.bytes * loader.order.rows // len(parts.reader)
    return Estimates(
        steps=steps,
        images_per_s=request.config.batch_size / seconds[0],
        seconds=steps * seconds[0] + saves * seconds[1],
        checkpoint_bytes=size,
        disk_bytes=size * copies(request.habits),
        memory_bytes=torch.cuda.max_memory_allocated(device) if on_cuda else _peak_memory(),
        mapped_bytes=mapped if loader.residence.name == "mmap" else 0,
    )


def _check_weights(saved: checkpoint.Checkpoint, fresh: Method, trained: Method) -> None:
    saved.load_model(fresh)
    there, expected = fresh.state_dict(), trained.state_dict()
    if any(not torch.equal(there[name], tensor.cpu()) for name, tensor in expected.items()):
        raise RunError(f"{saved.path}: came back with other weights than were saved. Check the disk and the memory")


def _peak_memory() -> int:
    # Not getrusage: its maximum starts with what the parent had in memory when it started this process.
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
