"""Evaluations of a cell, whichever command they belong to: how they are run, found again, and typed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeAlias

from sbformat.manifest import Manifest
from sbtrain.evaluation.cluster import cluster
from sbtrain.evaluation.cluster_config import ClusterConfig
from sbtrain.evaluation.few_shot import ALL
from sbtrain.evaluation.finetune import finetune, remarks
from sbtrain.evaluation.finetune_config import FinetuneConfig, samples_text
from sbtrain.evaluation.pretrained import Pretrained
from sbtrain.evaluation.probe import probe
from sbtrain.evaluation.probe_config import ProbeConfig
from sbtrain.runtime import Runtime

#: What a cell may be judged by.
Evaluation: TypeAlias = FinetuneConfig | ProbeConfig | ClusterConfig
Say = Callable[[str], None]


def judge(start: Pretrained, config: Evaluation, runtime: Runtime, say: Say, interrupted: Callable[[], bool]) -> Path:
    """Make what is missing of an evaluation; return its result file.

    Raises
    ------
    SplitbrainError
        As the command of its kind.
    Interrupted
        A signal came; what was finished is in the file.
    """
    if isinstance(config, ClusterConfig):
        return cluster(start, config, runtime, say, interrupted).path
    if isinstance(config, ProbeConfig):
        return probe(start, config, runtime, say, interrupted).path
    for remark in remarks(start, config):
        say(remark)
    return finetune(start, config, runtime, say, interrupted).path


def splits_of(config: Evaluation) -> tuple[str, str]:
    """Return the splits that it learns from and reports."""
    if isinstance(config, ClusterConfig):
        return config.splits.split, config.splits.eval_split
    return config.split, config.eval_split


def patterns(config: Evaluation) -> tuple[str, ...]:
    """Return how result files of its kind are named."""
    if isinstance(config, FinetuneConfig):
        return "finetune-*.json", "attributes-*.json"
    return ("probe*.json",) if isinstance(config, ProbeConfig) else ("cluster-*.json",)


def named_by(config: Evaluation) -> dict[str, Any]:
    """Return the fields that stand in a result file: those that do not only ask for more of the same."""
    more = {FinetuneConfig: "samples_per_class", ProbeConfig: "layers"}.get(type(config))
    return {name: value for name, value in config.to_json().items() if name not in ("draws", more)}


def asked(config: Evaluation) -> set[tuple[Any, ...]]:
    """Return the keys of its fits: draw, and what else tells them apart."""
    parts: tuple[Any, ...] = (None,)
    if isinstance(config, FinetuneConfig):
        return {(k, draw) for k in config.samples_per_class for draw in range(config.draws_of(k))}
    if isinstance(config, ProbeConfig):
        parts = config.layers
    return {(part, draw) for part in parts for draw in range(config.draws)}


def key_of(config: Evaluation, fit: dict[str, Any]) -> tuple[Any, ...]:
    """Return the key of a fit in a result file."""
    part = {FinetuneConfig: "samples", ProbeConfig: "layer"}.get(type(config))
    return fit[part] if part else None, fit["draw"]


def drawn_images(config: Evaluation, train: int, classes: int) -> list[int]:
    """Return how many labeled images each fit learns from, where the split has `train`."""
    if isinstance(config, FinetuneConfig):
        return [train if k == ALL else k * classes for k in config.samples_per_class]
    return [train] if isinstance(config, ProbeConfig) else [0]


def words(config: Evaluation, manifest: Manifest, run_dir: Path, device: str) -> list[str]:
    """Return the command that a person would type."""
    command = {FinetuneConfig: "finetune", ProbeConfig: "probe", ClusterConfig: "cluster"}[type(config)]
    found = ["sbtrain", command, "--run", str(run_dir), "--shards", str(manifest.root.resolve())]
    if isinstance(config, FinetuneConfig):
        found += ["--samples-per-class", ",".join(samples_text(k) for k in config.samples_per_class)]
    for option in fields(config):
        value = getattr(config, option.name)
        if option.name != "samples_per_class" and value != option.default:
            found += option_words(option.name, value)
    return [*found, "--device", device]


def option_words(name: str, value: Any) -> list[str]:
    """Return an option as it is typed."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", ",".join(value) if isinstance(value, tuple) else str(value)]
