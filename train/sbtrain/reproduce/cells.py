"""What a plan is made of: cells, rows that are read from them, and tables of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sbformat.schema import TargetSpec
from sbtrain.config import PretrainConfig
from sbtrain.reproduce.judges import Evaluation
from sbtrain.reproduce.scales import Budget, Scale


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a plan is made for."""

    scale: Scale
    split: str
    """Images to pretrain on."""
    eval_split: str
    seeds: int | None = None
    """Pretraining runs of each cell that has several; None: the scale's."""
    target: TargetSpec
    """Of the shards that cells use unless they say otherwise."""
    weights: Mapping[str, Path] = field(default_factory=dict)
    """Backbone -> file of weights of ImageNet labels, which is not trained here."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Data sets of a cell that names its own, `sbtrain.reproduce.data.DATASETS`."""

    pretrained_on: str
    judged_on: str
    train: int = 0
    """Images of train, in the report."""
    stand_in: bool = False
    """Any labeled color set will do."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One pretraining run and its evaluations."""

    name: str
    """Of its folder."""
    preset: str
    colorspace: str
    target: TargetSpec
    config: PretrainConfig
    evaluations: tuple[tuple[str, Evaluation], ...]
    budget: Budget
    images: Images | None = None
    """None: those of the first prepared set, in `colorspace` with `target`."""


@dataclass(frozen=True)
class Measure:
    """One number of a line: where it is found, and the published one."""

    name: str
    evaluation: str
    key: str
    """Of the scores that `sbtrain.reproduce.scores` finds."""
    published: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table: where its numbers will be found, and the published ones."""

    name: str
    about: dict[str, Any]
    """What a reader sorts by: network, color space, samples per class."""
    cells: tuple[Cell, ...]
    """One for each pretraining seed."""
    samples: int
    published: dict[str, float]
    """``top1``, ``top5``: shares; empty where nothing was published."""
    measures: tuple[Measure, ...] = ()
    """What is shown instead of top-1 and top-5."""
    source: str = ""
    """Published table, by its id, whose numbers of images tell whether the data are alike."""
    note: str = ""
    """Why it is published only, where it has no cells."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """What one name on the command line stands for."""

    name: str
    about: str
    rows: tuple[Row, ...]
