"""Small pretraining runs: options, runs in processes that die where a test says, and what they leave on disk."""

import json
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo  # the first optimizer would load it, a second in every child

from builds import small_config
from sbformat.manifest import Manifest
from sbformat.schema import TargetSpec
from sbprep.pipeline import build
from sbtrain.build import build_loader, build_method, open_split
from sbtrain.config import PretrainConfig
from sbtrain.data import Loader
from sbtrain.methods import Method
from sbtrain.runtime import Runtime

IMAGES = 48
CPU = Runtime(torch.device("cpu"), torch.float32)

#: 12 steps of 8 images, a checkpoint every 3 of them, a line every 2.
SMALL_RUN = (
    "--epochs", "2", "--batch-size", "8", "--lr", "1e-3", "--schedule", "cosine", "--device", "cpu", "--cache", "mmap",
    "--checkpoint-every", "3", "--keep-last", "3", "--log-every", "2",
)  # fmt: skip


def small_shards(out: Path) -> Path:
    """48 built-in images of 64 x 64 with targets of 4 x 4 in three color spaces, three shards each."""
    build(
        small_config(
            None, out, "rgb", "lab", "rescaled_lab",
            image_size=64, target=TargetSpec(size=4), images_per_shard=20, limit=IMAGES,
        )
    )  # fmt: skip
    return out


def small_parts(manifest: Manifest, cache: str = "mmap", **fields: Any) -> tuple[PretrainConfig, Method, Loader]:
    """Return config, freshly seeded method and loader."""
    config = PretrainConfig(**({"epochs": 2, "batch_size": 8, "lr": 1e-3, "schedule": "constant"} | fields))
    torch.manual_seed(config.seed)
    method = build_method(config, manifest)
    return config, method, build_loader(config, open_split(config, manifest, method), CPU, cache)


def command(shards: Path, run_dir: Path, *more: str) -> list[str]:
    """Return the arguments of a small run; later options win."""
    return ["pretrain", "--shards", str(shards), "--run-dir", str(run_dir), *SMALL_RUN, *more]


def lines(run_dir: Path) -> list[dict[str, Any]]:
    """Every line of metrics.jsonl without what depends on the clock."""
    found = [json.loads(text) for text in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "speed"} for line in found]


def outcome(run_dir: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Weights and moments of the newest checkpoint, byte for byte, and the metrics."""
    newest = sorted((run_dir / "checkpoints").glob("step-*"))[-1]
    return {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}, lines(run_dir)


def checkpoints(run_dir: Path) -> list[int]:
    """Return the steps that have a checkpoint."""
    return sorted(int(path.name[5:]) for path in (run_dir / "checkpoints").glob("step-*"))


def litter(run_dir: Path) -> list[str]:
    """Temporary files and folders."""
    return [path.name for path in run_dir.rglob("*.tmp")]


# ------------------------------------------------------------------------------------- runs in their own processes

#: Where something happens in a child: before its n-th step, or before its n-th fsync.
Event = tuple[str, int]


def run_apart(arguments: list[str], event: Event = ("step", -1), *what: int, file_limit: int = 0) -> int:
    """Run the command line in a process of its own and return its exit code.

    At `event` it gets the signals `what`; from then on its files may not grow beyond `file_limit` bytes, if that is
    not 0, until it complains about a checkpoint.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["runs"])
    process = context.Process(target=_child, args=(arguments, event, what, file_limit))
    with pytest.MonkeyPatch.context() as patch:
        # Before Python 3.13 the server that forks the children knows no other path, and torch takes seconds to import.
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        process.start()
    process.join(60)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode


def _child(arguments: list[str], event: Event, what: tuple[int, ...], file_limit: int) -> None:
    from sbtrain import checkpoint, cli, guard, progress

    torch.set_num_threads(1)
    # A shell's background job ignores the one, what runs under nohup the other.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)

    def happen() -> None:
        for number in what:
            signal.raise_signal(number)
        if file_limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))

    kind, count = event
    if kind == "step":
        guard.Guard.keep = _before(guard.Guard.keep, count, happen)
    else:
        checkpoint.os.fsync = _before(os.fsync, count, happen)
    say = progress.ProgressPrinter.say

    def relieved(printer: progress.ProgressPrinter, sentence: str) -> None:
        if file_limit and "was not written" in sentence:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        say(printer, sentence)

    progress.ProgressPrinter.say = relieved
    cli.main(arguments, prog_name="sbtrain")


def _before(function: Callable[..., Any], count: int, happen: Callable[[], None]) -> Callable[..., Any]:
    calls = 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        if calls == count:
            happen()
        calls += 1
        return function(*arguments)

    return counted
