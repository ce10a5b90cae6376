"""What of a reproduction is on disk already: finished runs, finished results, and runs that do not belong there."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from sbformat.errors import SplitbrainError
from sbformat.manifest import Manifest
from sbtrain.reproduce.cells import Cell
from sbtrain.reproduce.judges import Evaluation, asked, key_of, named_by, patterns, splits_of
from sbtrain.reproduce.scores import load
from sbtrain.reproduce.sets import MissingShards, Sets
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


def finished_result(run_dir: Path, config: Evaluation, manifest: Manifest) -> Path | None:
    """Return the result file that has every fit of `config`, whatever device made it; None where there is none.

    So results that jobs computed on a GPU are not computed again where they are collected.
    """
    splits = splits_of(config)
    if not {*splits} <= {*manifest.splits}:
        return None
    fields = named_by(config)
    weights = load(run_dir / "results" / "pretrain.json").get("model_sha256")
    digests = {split: data_record(manifest, split)["digest"] for split in splits}
    for path in sorted(path for pattern in patterns(config) for path in (run_dir / "results").glob(pattern)):
        data = load(path)
        try:
            made_by = None if config.from_scratch else weights
            checkpoint = data["run"]["checkpoint"]
            same = (
                data["config"] == json.loads(json.dumps(fields))
                and (checkpoint["model_sha256"] if checkpoint else None) == made_by
                and {split: record["digest"] for split, record in data["data"].items()} == digests
            )
            if same and {key_of(config, fit) for fit in data["fits"]} >= asked(config):
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
            there, manifest = read_run(run_dir), sets.of(cell)
        except (RunError, MissingShards):  # said where this cell's turn comes
            continue
        if there["config"].get("split") != cell.config.split or cell.config.split not in manifest.splits:
            continue
        if there["data"].get("digest") != data_record(manifest, cell.config.split)["digest"]:
            raise RunError(
                f"{run_dir} was pretrained on other images than those of {manifest.root}. Use another --out, or the "
                f"--shards that it was made with"
            )
