"""One pretraining run, from shards to a folder with weights: everything between the command line and the loop."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import sbformat
from sbformat.errors import ConfigError
from sbformat.manifest import Manifest, json_digest
from sbtrain import checkpoint
from sbtrain.build import build_loader
from sbtrain.config import PretrainConfig
from sbtrain.data import SplitReader
from sbtrain.header import describe
from sbtrain.loop import Ended, Habits, Progress, train
from sbtrain.methods import Method
from sbtrain.monitor import build_monitor
from sbtrain.networks import parameter_count
from sbtrain.optim import MOMENTS
from sbtrain.prepare import Parts, Request, prepare
from sbtrain.progress import NoProgress, bytes_text
from sbtrain.ranks.launch import from_environment
from sbtrain.ranks.world import World
from sbtrain.run_folder import begun_or_gone, data_record, open_run, read_run, write_result
from sbtrain.runtime import RunError, Runtime, StopRequest
from sbtrain.stage import Stage


def pretrain(request: Request, stop: StopRequest, say: Callable[[str], None], progress: Progress) -> tuple[Path, Ended]:
    """Begin a run, or go on with the one in its folder.

    Returns
    -------
    run_dir : Path
    ended : Ended

    Raises
    ------
    SplitbrainError
        Shards, options or the run folder do not allow it, or the run failed.
    """
    world = from_environment()
    refuse_several(request, world)
    tell = _told_by_machine(world, say)
    if not world.first:
        say, progress = _say_nothing, NoProgress()
    with world.joined(world.device(request.device)), ExitStack() as stack:
        parts = world.together(lambda: prepare(request, world))
        stack.callback(parts.reader.close)
        config, data = request.config, data_record(parts.manifest, request.config.split)
        world.compare(_what_must_agree(request, data, parts.runtime))
        run_dir = request.run_dir or Path("runs") / default_name(request, parts.manifest)

        def begin() -> None:
            stack.enter_context(begun_or_gone(run_dir))
            if open_run(run_dir, config, data, request.preset):
                say(f"{run_dir} holds this run" + _other_torch(run_dir))
            if request.verify:
                verify(parts.reader)
            check_room(run_dir, parts.method, config, request.habits)

        world.on_first(begin)
        if request.stage is not None:
            stage = world.together(
                lambda: Stage(request.stage or Path(), parts.manifest, config.split, data["digest"], parts.reader, tell)
            )
            if parts.cache == "mmap":
                stack.enter_context(stage.beside())
            else:  # everything is read before the first step: from the slow disk once, for all processes of the machine
                stage.try_to_fill(lambda: stop.signal is not None)
        loader = world.together(lambda: build_loader(config, parts.reader, parts.runtime, parts.cache))
        say(describe(request, parts, loader))
        asked, per_epoch = request.habits.monitor, loader.steps_per_epoch
        monitor = world.together(
            lambda: build_monitor(asked, parts.manifest, parts.method, parts.runtime, per_epoch, say)
        )
        stack.callback(monitor.close)
        try:
            ended = train(
                config, parts.method, loader, run_dir, parts.runtime, request.habits, stop, say, progress, parts.flops,
                monitor,
            )  # fmt: skip
            if ended.complete and world.first:
                write_result(run_dir, "pretrain", summarize(run_dir, ended, request, parts))
        except OSError as error:
            raise RunError(f"{run_dir}: cannot be written ({error}). Make room or choose another --run-dir") from error
    return run_dir, ended


def refuse_several(request: Request, world: World) -> None:
    """Raise where several ranks cannot do what was asked for.

    Raises
    ------
    ConfigError
        With the reason.
    """
    world.places(request.config.batch_size, request.config.accumulate)
    for name, asked in (("compile", request.config.compile), ("graphs", request.habits.graphs)):
        if asked and world.size > 1:
            raise ConfigError(f"{name} with {world.size} ranks has not been tried. Leave --{name} out, or use one rank")


def _what_must_agree(request: Request, data: dict[str, Any], runtime: Runtime) -> dict[str, tuple[str, str]]:
    options = json_digest({**request.config.to_json(), **asdict(request.habits), "run_dir": str(request.run_dir)})
    version = "Install the same version everywhere"
    return {
        "prepared images (digest)": (data["digest"], "Give every machine the same --shards, or copy them anew"),
        "options (digest)": (options, "Start every rank with the same command"),
        "sbtrain": (sbformat.__version__, version),
        "torch": (torch.__version__, version),
        "device": (runtime.device.type, "Name the same --device for all"),
        "precision": (str(runtime.dtype), "Name a --precision that all have"),
    }


def default_name(request: Request, manifest: Manifest) -> str:
    """Return the run folder's name where none is given: the same command finds it again."""
    config = request.config
    base = request.preset.removesuffix(".toml") if request.preset else f"{config.method}-{config.network}"
    return f"{base.strip('./').replace('/', '-').replace(':', '-')}-{manifest.colorspace}-seed{config.seed}"


def verify(reader: SplitReader) -> None:
    """Compare every byte of the split with the manifest's checksums.

    Raises
    ------
    RunError
        Some differ; each damaged chunk is named.
    """
    damage = reader.damage()
    if damage:
        shown = "\n".join(f"  {line}" for line in damage[:20])
        raise RunError(
            f"{len(damage)} damaged places in the shards:\n{shown}\nRebuild them: sbprep verify --repair {reader.root}"
        )


def check_room(run_dir: Path, method: Method, config: PretrainConfig, habits: Habits) -> None:
    """Refuse to begin where the checkpoints to come do not fit.

    Raises
    ------
    RunError
        The disk is too small.
    """
    size = checkpoint.estimate_bytes(method, MOMENTS[config.optimizer])
    needed = size * copies(habits) - checkpoint.folder_bytes(run_dir / "checkpoints")
    free = shutil.disk_usage(run_dir).free
    if needed > free:
        raise RunError(
            f"{run_dir}: {bytes_text(free)} free, {bytes_text(needed)} needed for {copies(habits)} checkpoints of "
            f"{bytes_text(size)}. Make room, lower --keep-last, or use another --run-dir"
        )


def summarize(run_dir: Path, ended: Ended, request: Request, parts: Parts) -> dict[str, Any]:
    """Return the content of results/pretrain.json."""
    lines = [json.loads(text) for text in (run_dir / "metrics.jsonl").read_text().splitlines()]
    seconds = sum(line["speed"]["seconds"] for line in lines)
    last = {name: value for name, value in lines[-1].items() if name not in ("step", "speed")} if lines else {}
    speeds = [line["speed"] for line in lines]
    newest = checkpoint.latest(run_dir / "checkpoints", lambda _: None)
    assert newest is not None, "a complete run ends with a save"
    files = json.loads((newest.path / checkpoint.MANIFEST).read_bytes())
    return {
        "steps": ended.steps,
        "images": ended.steps * request.config.batch_size,
        "last": last,
        "seconds": seconds,
        "images_per_s": sum(s["images_per_s"] * s["seconds"] for s in speeds) / max(seconds, 1e-9),
        "data_wait": sum(s["data_wait"] * s["seconds"] for s in speeds) / max(seconds, 1e-9),
        "flops_per_image": parts.flops[0],
        "device": parts.runtime.name,
        "precision": str(parts.runtime.dtype).removeprefix("torch."),
        "mode": request.config.mode,
        "parameters": parameter_count(parts.method),
        "checkpoint": newest.path.name,
        "model_sha256": files["model.safetensors"]["sha256"],
    }


def copies(habits: Habits) -> int:
    """Return how many checkpoints may be on disk at once."""
    # One more while the next is written, and one to roll back to where a signal wrote the newest.
    return habits.keep_last + habits.keep_best + 2


def _told_by_machine(world: World, say: Callable[[str], None]) -> Callable[[str], None]:
    """Return what speaks of a machine's own disk: one rank on each."""
    if world.size == 1:
        return say
    return (lambda text: say(f"{world.name}: {text}")) if world.local == 0 else _say_nothing


def _say_nothing(_: str) -> None:
    """Of several ranks the first one speaks for all."""


def _other_torch(run_dir: Path) -> str:
    versions = read_run(run_dir).get("versions", {})
    if versions.get("torch") in (None, torch.__version__):
        return ""
    return f", begun with torch {versions['torch']}: with {torch.__version__} the last bits may differ"
