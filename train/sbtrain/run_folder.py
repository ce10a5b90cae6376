"""A run folder: what was asked for, written down once, so that the same command goes on and no other one can.

config.json  metrics.jsonl  events.out.tfevents.0.sbtrain  checkpoints/step-00001234/  results/pretrain.json
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sbformat
from sbformat.errors import SplitbrainError
from sbformat.manifest import Manifest, json_digest, prepared_colorspaces, write_atomically
from sbtrain.config import PretrainConfig
from sbtrain.events import NAME as EVENTS
from sbtrain.runtime import LOCK_NAME, RunError, only_one

CONFIG_NAME = "config.json"
FORMAT = "sbtrain-run"
VERSION = 1


def data_record(manifest: Manifest, split: str) -> dict[str, Any]:
    """Return what tells one prepared split from another; its digest covers every byte of every shard."""
    shards = [(shard.name, shard.count, shard.xxh3_128) for shard in manifest.splits[split].shards]
    about = {
        "colorspace": manifest.colorspace,
        "image_size": manifest.image_size,
        "target": manifest.target.to_json(),
        "images": manifest.splits[split].images,
    }
    return {**about, "digest": json_digest({**about, "recipe": manifest.recipe, "shards": shards})}


def open_run(run_dir: Path, config: PretrainConfig, data: dict[str, Any], preset: str | None) -> bool:
    """Begin a run in `run_dir`, or check that the one there is the same.

    Returns
    -------
    bool
        True where a run was there.

    Raises
    ------
    RunError
        There is another run, the folder's config.json is missing or damaged, or it cannot be written. Nothing was changed.
    """
    path = run_dir / CONFIG_NAME
    begun = any(run_dir.glob("checkpoints/step-*"))
    if prepared_colorspaces(run_dir):
        raise RunError(f"{run_dir} holds prepared images, expected a folder for the run alone. Use another --run-dir")
    if begun and not path.exists():
        raise RunError(f"{run_dir} has checkpoints but no {CONFIG_NAME}. Restore it, or use another --run-dir")
    if not begun:  # a run that was refused before its first step leaves a config that must not be in the way
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            write_atomically(path, (json.dumps(_record(config, data, preset), indent=1) + "\n").encode())
        except OSError as error:
            raise RunError(f"{path}: cannot be written ({error}). Make room or choose another --run-dir") from error
        return False
    there = read_run(run_dir)
    lines = _differences(_completed(there["config"]), config.to_json()) + _differences(there["data"], data, "data ")
    if lines:
        shown = "\n".join(f"  {line}" for line in lines)
        raise RunError(
            f"{run_dir} holds another run:\n{shown}\nUse its values to go on, or another --run-dir: a run's schedule is of "
            f"its epochs, so a longer one begins anew"
        )
    return True


@contextmanager
def begun_or_gone(run_dir: Path) -> Iterator[None]:
    """Hold the run folder for this process; a run that fails before its first checkpoint leaves nothing of its own behind.

    Raises
    ------
    RunError
        As `only_one`.
    """
    made, new = list[Path](), False
    with suppress(OSError):  # `only_one` says what is wrong with it
        made = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
        new = not (run_dir / CONFIG_NAME).exists()
    with only_one(run_dir):
        try:
            yield
        except BaseException:
            if new and not _has_checkpoints(run_dir):
                _remove(run_dir, made)
            raise


def _has_checkpoints(run_dir: Path) -> bool:
    try:
        return any((run_dir / "checkpoints").iterdir())
    except FileNotFoundError:
        return False
    except OSError:  # a disk that does not answer: nothing is to be lost
        return True


def _remove(run_dir: Path, made: list[Path]) -> None:
    """Remove what a run writes before its first checkpoint, and folders that it made; with anything else in it one stays."""
    with suppress(OSError):  # why the run failed is what is to be said
        for name in (CONFIG_NAME, LOCK_NAME, "metrics.jsonl", EVENTS):
            (run_dir / name).unlink(missing_ok=True)
    for folder in (run_dir / "checkpoints", run_dir / "results", *made):
        with suppress(OSError):
            folder.rmdir()


def read_run(run_dir: Path) -> dict[str, Any]:
    """Return the content of config.json.

    Raises
    ------
    RunError
        It is missing, damaged, or of another version.
    """
    path = run_dir / CONFIG_NAME
    try:
        record = json.loads(path.read_bytes())
        if record["format"] != FORMAT or record["version"] != VERSION:
            raise RunError(
                f"{path}: format {record['format']} version {record['version']}, this version reads {FORMAT} {VERSION}"
            )
        if not isinstance(record["config"], dict) or not isinstance(record["data"], dict):
            raise TypeError("config and data are no objects")
    except FileNotFoundError:
        raise RunError(f"{path}: missing. Give the folder of a run: sbtrain pretrain --run-dir {run_dir}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: not the config of a run ({error}). Restore it, or use another --run-dir") from error
    return dict(record)


def read_config(run_dir: Path) -> PretrainConfig:
    """Return the config of the run in `run_dir`."""
    try:
        return PretrainConfig.from_json(read_run(run_dir)["config"])
    except RunError:
        raise
    except SplitbrainError as error:
        raise RunError(f"{run_dir / CONFIG_NAME}: {error}. Was it written by another version?") from error


def write_result(run_dir: Path, name: str, result: dict[str, Any]) -> Path:
    """Put ``results/<name>.json`` into the folder."""
    path = run_dir / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())
    return path


def kept_result(path: Path, head: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a result whose fields `head` say what it was made of; an empty one where there is none.

    What a killed process left beside it is removed.

    Raises
    ------
    RunError
        The file is damaged, or was made of something else.
    """
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        left.unlink()
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
        if {name: data[name] for name in head} != head:
            raise ValueError("it is of another config")
        if not isinstance(data["fits"], list):
            raise TypeError("its fits are no list")
    except FileNotFoundError:
        return {"fits": []}
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: damaged (no whole JSON: {error}). Move it away: its fits are made again") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: not a result of this command ({error}). Move it away") from error
    return data


def code_digest() -> str:
    """Return what tells one state of the programs from another: a digest of every source file of sbtrain and sbformat."""
    files: dict[str, str] = {}
    for package in (Path(__file__).parent, Path(sbformat.__file__).parent):
        for path in sorted((*package.rglob("*.py"), *package.rglob("*.toml"))):
            files[path.relative_to(package.parent).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return json_digest(files)


def _record(config: PretrainConfig, data: dict[str, Any], preset: str | None) -> dict[str, Any]:
    # No host, user, path or time: a run folder can be given away.
    versions = {
        "sbtrain": sbformat.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    return {
        "format": FORMAT,
        "version": VERSION,
        "command": "pretrain",
        "preset": preset,
        "config": config.to_json(),
        "data": data,
        "code": code_digest(),
        "versions": versions,
    }


def _completed(fields: dict[str, Any]) -> dict[str, Any]:
    # A run of an earlier version lacks the fields that came since: they are as they were, the defaults.
    return {**PretrainConfig().to_json(), **fields}


def _differences(there: dict[str, Any], here: dict[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for name in sorted(set(there) | set(here)):
        old, new = there.get(name, "(none)"), here.get(name, "(none)")
        if isinstance(old, dict) and isinstance(new, dict):
            lines += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            lines.append(f"{prefix}{name}: {_short(old)} in the run, {_short(new)} now")
    return lines


def _short(value: Any) -> str:
    text = str(value)
    return text[:16] + "…" if len(text) > 40 else text
