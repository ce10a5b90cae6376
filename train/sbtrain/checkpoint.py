"""Checkpoints that survive any kill: a folder of safetensors and JSON, complete or not there. No pickle anywhere.

    checkpoints/step-00001234/model.safetensors  optim.safetensors  state.json  MANIFEST.json

Files are written into a hidden folder, fsynced, listed with size and sha256 in MANIFEST.json, and the folder is renamed.
The latest is the newest folder that verifies; a damaged one is named and passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sbformat
from sbformat.errors import FormatError, SchemaVersionError
from sbformat.manifest import fsync_path
from sbtrain.ranks.world import World
from sbtrain.tensor_files import load_tensors, save_tensors

MANIFEST = "MANIFEST.json"
FORMAT = "sbtrain-checkpoint"
VERSION = 1


class CheckpointError(FormatError):
    """A checkpoint is damaged, or does not fit the model."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on disk."""

    path: Path
    state: dict[str, Any]
    """Content of state.json: at least ``step``."""
    read: Callable[[Path], dict[str, Tensor]] = load_tensors
    """Reads its tensor files; of several ranks the first one reads for all."""

    @property
    def step(self) -> int:
        """Steps taken when it was written."""
        return int(self.state["step"])

    def load_model(self, model: nn.Module) -> None:
        """Put the weights into `model`.

        Raises
        ------
        CheckpointError
            Names or shapes differ.
        """
        tensors = self.read(self.path / "model.safetensors")
        own = model.state_dict()
        differ = sorted(set(tensors) ^ set(own)) or [k for k in own if own[k].shape != tensors[k].shape]
        if differ:
            raise CheckpointError(
                f"{self.path}: does not fit this model, {len(differ)} tensors differ (the first: {differ[0]}). "
                f"Was it written for another network? Use the config.json beside it"
            )
        model.load_state_dict(tensors)

    def load_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Put the moments into `optimizer`."""
        tensors = self.read(self.path / "optim.safetensors")
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            number, field = name.split("/")
            state.setdefault(int(number), {})[field] = tensor
        whole = optimizer.state_dict()
        optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
        for parameter, fields in optimizer.state.items():
            for field, value in fields.items():
                # The update walks over both in memory order, and files hold every tensor in the plain one.
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    fields[field] = torch.empty_like(parameter).copy_(value)


def save(
    folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> Checkpoint:
    """Write ``folder/step-XXXXXXXX``, whole and durable or not at all.

    Raises
    ------
    OSError
        The disk is full or not writable; what was there before is untouched, and no temporary folder stays.
    """
    final = folder / checkpoint_name(step)
    temporary = folder / f".{final.name}.{os.getpid()}.tmp"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        temporary.mkdir()
        for name, tensors in (("model", model.state_dict()), ("optim", dict(_optimizer_tensors(optimizer)))):
            save_tensors(temporary / f"{name}.safetensors", tensors)
            fsync_path(temporary / f"{name}.safetensors")
        about = {"format": FORMAT, "version": VERSION, "sbtrain": sbformat.__version__}
        state = {**about, "step": step, **state}
        _write(temporary / "state.json", json.dumps(state, indent=1).encode())
        files = {path.name: _digest(path) for path in sorted(temporary.iterdir())}
        _write(temporary / MANIFEST, json.dumps(files, indent=1).encode())
        fsync_path(temporary)
        if final.exists():  # a damaged one, passed over when the run was resumed
            shutil.rmtree(final)
        temporary.replace(final)
        fsync_path(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Checkpoint(final, state)


def latest(folder: Path, warn: Callable[[str], None], regular: bool = False) -> Checkpoint | None:
    """Return the newest checkpoint that verifies, None where there is none at all; `warn` of each damaged one.

    With `regular` one that only a signal or --stop-after caused is passed over, if there is another.

    Raises
    ------
    CheckpointError
        There are checkpoints, and every one is damaged.
    SchemaVersionError
        The newest whole one is of another version: to go on from an older one would lose its steps.
    """
    there, spare = found(folder), None
    for path in there:
        try:
            whole = verify(path)
        except CheckpointError as error:
            warn(str(error))
            continue
        if not regular or whole.state.get("regular", True):
            return whole
        spare = spare or whole
    if spare is not None:
        return spare
    if there:
        raise CheckpointError(
            f"{folder}: all {len(there)} checkpoints are damaged. Restore one, or begin anew in another --run-dir"
        )
    return None


def latest_for_all(world: World, folder: Path, warn: Callable[[str], None], regular: bool = False) -> Checkpoint | None:
    """Return `latest` as the first rank finds it: the others see neither the folder nor what is wrong with it."""
    found: list[Checkpoint | None] = []

    def look() -> tuple[str, dict[str, Any]] | None:
        found.append(whole := latest(folder, warn, regular))
        return None if whole is None else (str(whole.path), whole.state)

    about = world.on_first(look)
    if about is None or world.size == 1:
        return found[0] if found else None
    return Checkpoint(Path(about[0]), about[1], world.tensors)


def verify(path: Path) -> Checkpoint:
    """Check every file of one checkpoint against its MANIFEST.json.

    Raises
    ------
    CheckpointError
        Something is missing, cut or flipped.
    SchemaVersionError
        It is of another version.
    """
    try:
        files = json.loads((path / MANIFEST).read_bytes())
        _compare(path, "state.json", files)
        state = json.loads((path / "state.json").read_bytes())
        _check_version(path, state)  # first: another version may have other files
        for name in ("model.safetensors", "optim.safetensors", *files):
            _compare(path, name, files)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a whole checkpoint ({error})") from error
    return Checkpoint(path, state)


def _compare(path: Path, name: str, files: dict[str, Any]) -> None:
    if name not in files:
        raise CheckpointError(f"{path}: {MANIFEST} does not list {name}")
    if _digest(path / name) != files[name]:
        raise CheckpointError(f"{path / name}: damaged, its size or sha256 is not the one in {MANIFEST}")


def _check_version(path: Path, state: dict[str, Any]) -> None:
    if (state.get("format"), state.get("version")) != (FORMAT, VERSION):
        raise SchemaVersionError(
            f"{path}: {state.get('format')} version {state.get('version')}, written by sbtrain "
            f"{state.get('sbtrain', 'of another version')}; this one, {sbformat.__version__}, reads {FORMAT} {VERSION}. "
            f"Go on with the sbtrain that wrote it, or begin anew in another --run-dir"
        )


def checkpoint_name(step: int) -> str:
    """Return the folder's name of the checkpoint at `step`."""
    return f"step-{step:08d}"


def found(folder: Path) -> list[Path]:
    """Return all checkpoints in `folder`, whole or not, newest first."""
    # By name: the names have one width up to 99,999,999 steps.
    return sorted(folder.glob("step-*"), reverse=True)


def estimate_bytes(model: nn.Module, moments: int) -> int:
    """Return the size that a checkpoint of `model` will have, with `moments` numbers a weight in the optimizer."""
    weights = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    state: int = sum(tensor.nbytes for tensor in model.state_dict().values())
    return state + moments * weights + (64 << 10)


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all checkpoints in `folder`."""
    return sum(path.stat().st_size for path in folder.glob("step-*/*"))


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    for number, fields in optimizer.state_dict()["state"].items():
        for field, value in fields.items():
            if value is not None:
                yield f"{number}/{field}", torch.as_tensor(value)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    fsync_path(path)


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
