"""What of a reproduction is on disk already: finished runs, finished results, and runs that do not belong there."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sbformat.errors import SplitbrainError
from sbformat.manifest import Manifest
from sbtrain.finetune_config import FinetuneConfig
from sbtrain.reproduce_plan import Cell
from sbtrain.reproduce_sets import MissingShards, Sets
from sbtrain.run_folder import data_record, read_config, read_run
from sbtrain.runtime import RunError


def is_pretrained(run_dir: Path, cell: Cell, manifest: Manifest) -> bool:
    """Return whether the run of `cell` is complete: this config, these images, every step done."""
    try:
        same = read_config(run_dir) == cell.config and read_run(run_dir)["data"] == data_record(
            manifest, cell.config.split
        )
    except (SplitbrainError, KeyError):
        return False
    return same and (run_dir / "results" / "pretrain.json").is_file()


def finished_result(run_dir: Path, config: FinetuneConfig, manifest: Manifest) -> Path | None:
    """Return the result file that has every fit of `config`, whatever device made it; None where there is none.

    So results that jobs computed on a GPU are not computed again where they are collected.
    """
    wanted = [(k, draw) for draw in range(config.draws) for k in config.samples_per_class]
    fields = {k: v for k, v in config.to_json().items() if k not in ("samples_per_class", "draws")}
    weights = _load(run_dir / "results" / "pretrain.json").get("model_sha256")
    for path in sorted((run_dir / "results").glob("finetune-*.json")):
        data = _load(path)
        try:
            made_by = None if config.from_scratch else weights
            checkpoint = data["run"]["checkpoint"]
            digests = {split: data_record(manifest, split)["digest"] for split in (config.split, config.eval_split)}
            same = (
                data["config"] == fields
                and (checkpoint["model_sha256"] if checkpoint else None) == made_by
                and {split: record["digest"] for split, record in data["data"].items()} == digests
            )
            if same and {(fit["samples"], fit["draw"]) for fit in data["fits"]} >= set(wanted):
                return path
        except (KeyError, TypeError):
            continue
    return None


def check_images(folder: Path, cells: Iterable[Cell], sets: Sets) -> None:
    """Refuse a folder whose runs were pretrained on other images.

    Raises
    ------
    RunError
        With the first of them.
    """
    for cell in cells:
        run_dir = folder / cell.name
        if not any(run_dir.glob("checkpoints/step-*")):
            continue
        try:
            there, manifest = read_run(run_dir), sets.find(cell.colorspace, cell.target)
        except (RunError, MissingShards):  # said where this cell's turn comes
            continue
        if there["config"].get("split") != cell.config.split or cell.config.split not in manifest.splits:
            continue
        if there["data"].get("digest") != data_record(manifest, cell.config.split)["digest"]:
            raise RunError(
                f"{run_dir} was pretrained on other images than those of {manifest.root}. Use another --out, or the "
                f"--shards that it was made with"
            )


def numbers_of(path: Path, samples: int) -> list[dict[str, Any]]:
    """Return the fits of a result file on `samples` labels a class, by draw."""
    return [fit for fit in _load(path).get("fits", []) if fit["samples"] == samples]


def _load(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
