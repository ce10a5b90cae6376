"""Looks at a run's features while it learns: how good they are for telling classes apart, without any training.

Nothing of a look reaches the training: no random number is drawn, BatchNorm uses its running statistics and keeps them,
and what a look finds is a function of the weights, so a resumed run finds the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch

from sbformat.errors import ConfigError
from sbformat.manifest import Manifest
from sbtrain.data import Rows
from sbtrain.evaluation.chosen import chosen_rows
from sbtrain.evaluation.labeled import Labeled, blocks
from sbtrain.evaluation.neighbors import WEIGHTED, Bank, Vote, judge
from sbtrain.methods import Method
from sbtrain.methods.supervised import Classifier, Encoder
from sbtrain.metrics import Line
from sbtrain.runtime import Runtime

#: One image in so many is a query, the others are the bank.
QUERY_SHARE = 5

#: ``knn`` or ``linear`` gives one number, ``both`` both of the same features.
Kind = Literal["knn", "linear", "both"]


@dataclass(frozen=True, kw_only=True)
class MonitorConfig:
    """What to look at, and when.

    Raises
    ------
    ConfigError
        A value out of range.
    """

    kind: Kind = "knn"
    every: int = 1
    """Epochs between two looks; the last step has one too."""
    split: str = "train"
    """Labeled images. None of them need be those that the run learns from."""
    queries: str | None = None
    """Split whose images are classified; None: a part of `split` that the others do not see, so that a split to be reported
    is not looked at."""
    images: int = 2560
    """Images to look at: four fifths as neighbors, one fifth as queries."""
    layer: str | None = None
    """None: the last one that is no output."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError(f"monitor every {self.every} epochs, expected 1 or more")
        if self.images < 2 * QUERY_SHARE:
            raise ConfigError(f"monitor images {self.images}, expected {2 * QUERY_SHARE} or more")
        if self.queries == self.split:
            raise ConfigError(
                f"monitor queries and monitor split are both {self.split}: leave --monitor-queries out for a part of it "
                f"that the others do not see"
            )


class Look(Protocol):
    """Finds numbers about a method's features."""

    def look(self, method: Method, runtime: Runtime) -> dict[str, float | None]:
        """Return name -> value for metrics.jsonl; None where there is no number. `method` is in evaluation mode."""

    def describe(self) -> str:
        """Return in a sentence what it looks at."""

    def close(self) -> None:
        """Close files."""


class Monitor:
    """Takes its looks every so many steps.

    Parameters
    ----------
    looks : sequence of Look
    every : int
        Steps between two looks; 0: never.
    runtime : Runtime
        Of several ranks the first one looks.
    """

    def __init__(self, looks: Sequence[Look] = (), every: int = 0, runtime: Runtime | None = None) -> None:
        self.looks, self._every, self._runtime = looks, every, runtime

    def due(self, step: int, steps: int) -> bool:
        """Return True where there is a look after `step` of `steps` steps: then there is a line of metrics as well."""
        return bool(self._every) and (step % self._every == 0 or step == steps)

    def add(self, method: Method, line: Line) -> Line:
        """Return `line` with what was found and the seconds that it took, which none of the other speeds count."""
        if self._runtime is None or not self._runtime.world.first or not self.due(line.step, line.steps):
            return line
        begun = time.perf_counter()
        modes = [(module, module.training) for module in method.modules()]
        found: dict[str, float | None] = {}
        try:
            with torch.no_grad():
                method.eval()
                for each in self.looks:
                    found |= each.look(method, self._runtime)
        finally:
            for module, mode in modes:
                module.training = mode
        speed = {**line.speed, "monitor_s": time.perf_counter() - begun}
        return replace(line, values={**line.values, **found}, speed=speed)

    def close(self) -> None:
        """Close the files of every look."""
        for each in self.looks:
            each.close()


class FeatureLook:
    """Classifies images by the features of labeled ones: ``knn_top1`` and ``linear_top1``, the shares it gets right.

    Neighbors: weighted votes of 200, or of as many images as there are of a class where these are fewer, as more would be
    of other classes. Linear: ridge regression on standardized features, in closed form, so that nothing is drawn.

    Parameters
    ----------
    config : MonitorConfig
    manifest : Manifest
    method : Method
    device : torch.device

    Raises
    ------
    SplitbrainError
        No such split, no labels, too few images, or no such layer.
    """

    def __init__(self, config: MonitorConfig, manifest: Manifest, method: Method, device: torch.device) -> None:
        self._classes, self._kind = len(manifest.label_names), config.kind
        encoder = Encoder(method, manifest, config.layer or _last_layer(method), pool=1)
        self._layer, self._pool = encoder.layer, encoder.pool
        splits = [config.split, config.queries or config.split]
        for name in splits:
            _check_labels(manifest, name)
        # Mapped: all of a look's images are few of a split's, and nothing of them stays in memory.
        self._sources = [Labeled(manifest, name, method.inputs.datasets, device, "mmap") for name in splits]
        self._bank, self._queries = self._rows(config)
        if min(len(self._bank), len(self._queries)) < 2:
            self.close()
            raise ConfigError(f"monitor of {manifest.root}, split {config.split}: too few images, expected 10 or more")
        of = f"{len(self._bank):,} of {splits[0]}" if config.queries else f"{len(self._bank):,} others"
        self._vote = Vote(min(WEIGHTED.k, max(1, len(self._bank) // self._classes)), WEIGHTED.temperature)
        how = {"knn": f"{self._vote.k}-NN", "linear": "linear", "both": f"{self._vote.k}-NN and linear"}[config.kind]
        self._about = f"{how} of {len(self._queries):,} images of {splits[1]} among {of}, layer {self._layer}"

    def look(self, method: Method, runtime: Runtime) -> dict[str, float | None]:
        """Return what the kind asks for, shares in [0, 1]; None where features are not finite."""
        bank, bank_labels = self._encoded(method, runtime, 0, self._bank)
        queries, labels = self._encoded(method, runtime, 1, self._queries)
        names = [name for name in ("knn", "linear") if self._kind in (name, "both")]
        if not bool(torch.isfinite(bank).all() & torch.isfinite(queries).all()):
            return {f"{name}_top1": None for name in names}
        found: dict[str, float | None] = {}
        if "knn" in names:
            found["knn_top1"] = judge(Bank(bank, bank_labels, self._classes), queries, labels, (self._vote,))[0][0]
        if "linear" in names:
            found["linear_top1"] = _linear(bank, bank_labels, queries, labels, self._classes)
        return found

    def describe(self) -> str:
        """Return in a sentence what it looks at."""
        return self._about

    def close(self) -> None:
        """Close the shards."""
        for source in self._sources:
            source.close()

    def _rows(self, config: MonitorConfig) -> tuple[Rows, Rows]:
        of_bank, of_queries = map(len, self._sources)
        if config.queries:
            queries = chosen_rows(of_queries, config.images // QUERY_SHARE)
            return chosen_rows(of_bank, config.images - config.images // QUERY_SHARE), queries
        rows = chosen_rows(of_bank, config.images)
        # The split is in an order of its own already: every fifth image is any.
        held = np.arange(len(rows)) % QUERY_SHARE == 0
        return rows[~held], rows[held]

    def _encoded(self, method: Method, runtime: Runtime, source: int, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        features, labels = [], []
        for _, batch in blocks(self._sources[source], rows):
            with runtime.autocast():
                found = method.features(batch, self._layer)
                features.append((found if found.dim() == 2 else self._pool(found).flatten(1)).float())
            labels.append(batch["label"])
        return torch.cat(features), torch.cat(labels)


def _linear(
    bank: torch.Tensor, bank_labels: torch.Tensor, queries: torch.Tensor, labels: torch.Tensor, classes: int
) -> float:
    """Return the share of `queries` (n, D) that a linear classifier solved on `bank` (m, D) gets right."""
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and replaced
        model = Classifier(bank.shape[1], classes, standardize=True)
    model.to(bank.device).eval().solve(bank, bank_labels)
    return float((model.classify(queries).argmax(1) == labels).float().mean())


def build_monitor(
    config: MonitorConfig | None,
    manifest: Manifest,
    method: Method,
    runtime: Runtime,
    steps_per_epoch: int,
    say: Callable[[str], None],
) -> Monitor:
    """Build what `config` asks for, and say what it looks at; None: a monitor that never looks."""
    if config is None:
        return Monitor()
    look = FeatureLook(config, manifest, method, runtime.device)
    when = "every epoch" if config.every == 1 else f"every {config.every} epochs"
    say(f"  monitor: {look.describe()}, {when}")
    if config.queries:
        say(f"  split {config.queries} is looked at while learning: choose nothing by it if you are to report it")
    return Monitor([look], config.every * steps_per_epoch, runtime)


def _last_layer(method: Method) -> str:
    # Output maps of the halves transfer worst of all layers (docs/training.md, "What helps").
    names = method.layers()
    return next((name for name in reversed(names) if name != "logits"), names[-1])


def _check_labels(manifest: Manifest, split: str) -> None:
    labeled = [name for name, about in manifest.splits.items() if about.label_kind == "class"]
    if split in labeled:
        return
    has = f"split {split} has no class labels" if split in manifest.splits else f"no split {split}"
    there = (
        f"Use --monitor-split {labeled[0]}" if labeled else "Leave --monitor out, or build: sbprep build --train PATH"
    )
    raise ConfigError(f"{manifest.root}: {has}, which --monitor compares images by. {there}")
