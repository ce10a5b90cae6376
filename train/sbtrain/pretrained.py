"""A pretraining run to begin from: its networks, and shards that fit them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sbformat.errors import FormatError
from sbformat.manifest import Manifest, open_manifest, prepared_colorspaces
from sbtrain import checkpoint
from sbtrain.build import build_method
from sbtrain.config import PretrainConfig
from sbtrain.methods import Method
from sbtrain.run_folder import data_record, read_config, read_run
from sbtrain.runtime import RunError


@dataclass(frozen=True)
class Pretrained:
    """A run to begin from: its config, and networks as its newest checkpoint that verifies has them."""

    run_dir: Path
    config: PretrainConfig
    manifest: Manifest
    method: Method
    record: dict[str, Any]
    """What a result says of the run: config, data, step and digest of its weights."""


def open_pretrained(run_dir: Path, shards: Path, split: str, say: Callable[[str], None]) -> Pretrained:
    """Load a pretraining run, to classify the images of `split` under `shards`.

    Raises
    ------
    RunError
        There is no run, it has no checkpoint yet, or the shards are of another kind than the run's.
    CheckpointError
        All its checkpoints are damaged.
    """
    there = read_run(run_dir)
    config = read_config(run_dir)
    manifest = _open_shards(shards, there["data"], run_dir)
    check_split(manifest, split)
    if not holds(manifest, config.split, there["data"]):
        if config.normalize == "standard":
            say(f"other images than the run's own, as they may be: normalized by the statistics of their split {split}")
        config = replace(config, split=split)
    method = build_method(config, manifest)
    newest = checkpoint.latest(run_dir / "checkpoints", say)
    if newest is None:
        raise RunError(
            f"{run_dir}: no checkpoint, its pretraining has not begun. Run its sbtrain pretrain command again"
        )
    newest.load_model(method)
    files = json.loads((newest.path / checkpoint.MANIFEST).read_bytes())
    weights = {"step": newest.step, "model_sha256": files["model.safetensors"]["sha256"]}
    record = {"config": there["config"], "data": there["data"], "normalized_by": config.split, "checkpoint": weights}
    return Pretrained(run_dir, config, manifest, method, record)


def check_split(manifest: Manifest, split: str) -> None:
    """Refuse a split that is not there.

    Raises
    ------
    FormatError
        With those that are.
    """
    if split not in manifest.splits:
        raise FormatError(
            f"{manifest.root} has splits {', '.join(manifest.splits)}, no {split}. Choose with --split (to learn from) "
            f"and --eval-split (to report), or build it: sbprep build --{split} PATH"
        )


def holds(manifest: Manifest, split: str, data: dict[str, Any]) -> bool:
    """Return whether `split` holds the very images of a run, whose record of them is `data`."""
    return split in manifest.splits and data_record(manifest, split)["digest"] == data["digest"]


def _open_shards(shards: Path, data: dict[str, Any], run_dir: Path) -> Manifest:
    several = len(prepared_colorspaces(shards)) > 1
    manifest = open_manifest(shards, data["colorspace"] if several else None)
    here = {
        "colorspace": manifest.colorspace,
        "image_size": manifest.image_size,
        "target": manifest.target.to_json(),
    }
    lines = [f"  {name}: {data[name]} in the run, {value} here" for name, value in here.items() if data[name] != value]
    if lines:
        shown = "\n".join(lines)
        raise RunError(
            f"{manifest.root}: other shards than {run_dir} was trained on:\n{shown}\nGive shards like its own"
        )
    return manifest
