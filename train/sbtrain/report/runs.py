"""A run's folder as a report reads it: everything may be missing or damaged, and then there is a sentence that says so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sbtrain.report.finetuned import Finetuned, read_finetuned, reason_of
from sbtrain.report.series import Series, read_series
from sbtrain.run_folder import CONFIG_NAME

#: Where a folder of runs is searched: runs/table1/lab/config.json lies three below runs.
DEPTH = 4
#: Beginning of the sentence on cells of a reproduction that have no run.
NOT_RUN = "not run yet"


class Unreadable(Exception):
    """A file that cannot be shown, and why."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is in one folder."""

    path: Path
    name: str
    record: dict[str, Any] = field(default_factory=dict)
    """config.json; empty where there is none that can be read."""
    series: Series = field(default_factory=lambda: Series((), ()))
    summary: dict[str, Any] | None = None
    """results/pretrain.json: None of an unfinished run."""
    finetuned: tuple[Finetuned, ...] = ()
    probes: tuple[dict[str, Any], ...] = ()
    clusterings: tuple[dict[str, Any], ...] = ()
    attributes: tuple[dict[str, Any], ...] = ()
    reconstructions: tuple[dict[str, Any], ...] = ()
    features: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    """Names of result files that cannot be read."""

    @property
    def config(self) -> dict[str, Any]:
        """Fields of the pretraining; empty where they are not known."""
        config = self.record.get("config")
        return config if isinstance(config, dict) else {}

    @property
    def data(self) -> dict[str, Any]:
        """The images of the pretraining."""
        data = self.record.get("data")
        return data if isinstance(data, dict) else {}

    @property
    def colorspace(self) -> str | None:
        """Of its images."""
        return self.data.get("colorspace")

    @property
    def preset(self) -> str:
        """Name of what it was begun from; empty where that is none."""
        return str(self.record.get("preset") or "")

    @property
    def noise(self) -> bool:
        """Whether it was pretrained on noise: its preset says so, or its name in a reproduction."""
        return any("simsiam-noise" in name for name in (self.preset, self.path.resolve().name))

    @property
    def finished(self) -> bool:
        """Whether its pretraining took every step."""
        return _finished(self.path)

    @property
    def label(self) -> str:
        """Network, method and color space, for a table."""
        method = {"split_brain": ""}.get(str(self.config.get("method", "")), str(self.config.get("method", "")))
        parts = [str(self.config.get("network", "")), method, str(self.colorspace or "")]
        return " · ".join(part.replace("_", "-") for part in parts if part) or self.name

    @property
    def shown(self) -> bool:
        """Whether there is anything to show but what is missing."""
        return bool(self.series.lines or self.summary or self.finetuned or self.probes or self.clusterings
                    or self.attributes or self.reconstructions or self.features)  # fmt: skip

    def lost(self, kind: str, scratch: bool = False) -> list[str]:
        """Return the damaged result files of a command, such as ``finetune``: from scratch, or not."""
        return [name for name in self.damaged if name.startswith(kind) and ("scratch" in name) == scratch]

    def control(self, result: Finetuned) -> Finetuned | None:
        """Return the same fits from new weights, where they are there."""
        key = result.control_key
        return next((other for other in self.finetuned if other.scratch and other.control_key == key), None)


def find_runs(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return the run folders that `paths` are or hold, each once, and a sentence on each path without one."""
    found: dict[Path, None] = {}
    problems = []
    for path in paths:
        inside = _runs_below(path)
        problems += [] if inside else [f"{path}: {'no run in it' if path.is_dir() else 'no such folder'}"]
        problems += _not_run(path)
        found |= dict.fromkeys(inside)
    return list(found), problems


def read_run(path: Path, name: str) -> Run:
    """Read one folder; nothing in it can make this fail."""
    problems: list[str] = []
    damaged: list[str] = []

    def load(file: Path, what: str) -> dict[str, Any] | None:
        try:
            return _load(file)
        except Unreadable as reason:
            problems.append(f"{file.relative_to(path)} {reason}: {what}")
            damaged.append(file.name)
            return None

    def load_all(pattern: str, what: str) -> list[tuple[str, dict[str, Any]]]:
        files = sorted((path / "results").glob(pattern))
        return [(file.name, data) for file in files if (data := load(file, what)) is not None]

    record = load(path / CONFIG_NAME, "what was trained on what is not known") or {}
    asked = record.get("config")
    given = isinstance(asked, dict) and asked.get("epochs") == 0  # of its own it has no step to tell of
    series = Series((), ()) if given else read_series(path)
    summary = load(path / "results" / "pretrain.json", "its summary is left out") if _finished(path) else None
    finetuned = []
    for file, data in load_all("finetune-*.json", "its accuracies are left out"):
        try:
            finetuned.append(read_finetuned(file, data))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problems.append(f"results/{file} is damaged ({reason_of(error)}): its accuracies are left out")
            damaged.append(file)
    problems += [f"results/{result.file}: {result.problem}" for result in finetuned if result.problem]
    if not _finished(path):
        problems.append(_unfinished(path, record, series))
    probes = [data for _, data in load_all("probe-*.json", "its layers are left out")]
    attributes = [data for _, data in load_all("attributes-*.json", "its scores are left out")]
    clusterings = [data for _, data in load_all("cluster-*.json", "its scores are left out")]
    pictures = [data for _, data in load_all("reconstruct-*.json", "its pictures are left out")]
    return Run(
        path=path, name=name, record=record, series=series, summary=summary, finetuned=tuple(finetuned),
        probes=tuple(probes), clusterings=tuple(clusterings), attributes=tuple(attributes), reconstructions=tuple(pictures),
        features=tuple(sorted((path / "features").glob("*.h5"))), problems=(*series.problems, *problems),
        damaged=tuple(damaged),
    )  # fmt: skip


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read them, and name each by the shortest end of its path that no other has."""
    parts = [path.resolve().parts for path in paths]
    names = []
    for mine in parts:
        length = next((n for n in range(1, len(mine)) if [p[-n:] for p in parts].count(mine[-n:]) == 1), len(mine))
        names.append("/".join(mine[-length:]))
    return [read_run(path, name) for path, name in zip(paths, names, strict=True)]


def _runs_below(path: Path, depth: int = DEPTH) -> list[Path]:
    if (path / CONFIG_NAME).exists() or any(path.glob("checkpoints/step-*")) or (path / "metrics.jsonl").exists():
        return [path]
    if depth == 0 or not path.is_dir():
        return []
    below = sorted(inner for inner in path.iterdir() if inner.is_dir() and not inner.name.startswith("."))
    return [run for inner in below for run in _runs_below(inner, depth - 1)]


def _not_run(path: Path) -> list[str]:
    """Return what a reproduction has planned and not run yet."""
    plan = path / "reproduce.json"
    if not plan.exists():
        return []
    try:
        data = _load(plan)
        asked = data.get("asked")
        cells = [cell for cell in _lists(data) if isinstance(cell, dict) and "run_dir" in cell]
    except Unreadable as reason:
        return [f"{plan} {reason}: whether runs are missing is not known"]
    names = [str(cell["run_dir"]) for cell in cells]
    names = [name for name in names if name in asked] if isinstance(asked, list) else names  # by its last call
    left = [name for name in names if not _runs_below(path / name, 0)]
    return [f"{NOT_RUN}: {', '.join(left)}"] if left else []


def _lists(data: dict[str, Any]) -> list[Any]:
    return [one for value in data.values() if isinstance(value, list) for one in value]


def _load(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise Unreadable("is missing") from None
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise Unreadable("is damaged (no JSON)") from error
    if not isinstance(data, dict):
        raise Unreadable("is damaged (no object)")
    return data


def _finished(path: Path) -> bool:
    return (path / "results" / "pretrain.json").exists()


def _unfinished(path: Path, record: dict[str, Any], series: Series) -> str:
    if not record and not series.lines:
        return "nothing has been trained here"
    step = f" at step {series.lines[-1]['step']:,}" if series.lines else ""
    return f"pretraining is not finished{step}: what follows from its weights is of that step"
