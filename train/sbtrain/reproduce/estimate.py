"""How long a reproduction takes: first by rates of one machine, then by what has been seen on this one."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sbformat.manifest import Manifest
from sbtrain.evaluation.cluster_config import ClusterConfig
from sbtrain.evaluation.finetune_config import FinetuneConfig
from sbtrain.progress import duration_text
from sbtrain.reproduce.cells import Cell
from sbtrain.reproduce.judges import Evaluation, drawn_images, splits_of

#: Start of a run, reading of a split and saving, in seconds.
OVERHEAD = 4.0


def pretrain_seconds(cell: Cell, manifest: Manifest) -> float:
    """Return about how long the run takes on the machine of `Budget.images_per_s`."""
    split = manifest.splits.get(cell.config.split)
    rows = split.images if split else 0
    return OVERHEAD + cell.config.epochs * min(cell.config.limit or rows, rows) / cell.budget.images_per_s


def evaluation_seconds(cell: Cell, config: Evaluation, manifest: Manifest) -> float:
    """Return about how long one evaluation takes on that machine."""
    images = {name: split.images for name, split in manifest.splits.items()}
    split, eval_split = splits_of(config)
    reported = images.get(eval_split, 0)
    limit = config.limit if isinstance(config, ClusterConfig) else config.eval_limit
    reported = min(limit or reported, reported)
    drawn = drawn_images(config, images.get(split, 0), len(manifest.label_names))
    if not isinstance(config, FinetuneConfig) or config.freeze:
        passes = config.epochs if isinstance(config, FinetuneConfig) and config.augmentation != "none" else 1
        again = config.draws if config.from_scratch else 1
        return OVERHEAD + (config.draws * passes * max(drawn) + again * reported) / cell.budget.features_per_s
    steps = sum(config.steps(max(1, n // config.batch_size)) for n in drawn)
    fits = config.draws * steps * config.batch_size / cell.budget.images_per_s
    return OVERHEAD + fits + config.draws * len(drawn) * reported / cell.budget.features_per_s


def cell_seconds(cell: Cell, manifest: Manifest, judged: Manifest) -> float:
    """Return about how long a whole cell takes on that machine."""
    evaluations = sum(
        evaluation_seconds(cell, config, judged)
        for _, config in cell.evaluations
        if {*splits_of(config)} <= {*judged.splits}
    )
    return pretrain_seconds(cell, manifest) + evaluations


class Clock:
    """Time left, corrected by what cells have taken beside their guesses.

    Parameters
    ----------
    guesses : sequence of float
        Seconds of every cell to come; 0 for one that is done.
    """

    def __init__(self, guesses: Sequence[float]) -> None:
        self._guesses = list(guesses)
        self._guessed = self._taken = 0.0
        self._began = time.monotonic()

    def begin(self) -> None:
        """Note that a cell begins."""
        self._began = time.monotonic()

    def end(self, cell: int, worked: bool) -> None:
        """Cell number `cell` has ended; `worked`: it had something to do and went well."""
        if worked:
            self._guessed += self._guesses[cell]
            self._taken += time.monotonic() - self._began
        self._guesses[cell] = 0.0

    @property
    def left(self) -> str:
        """Words for the time of the cells that have not ended."""
        ratio = self._taken / self._guessed if self._guessed else 1.0
        return f"about {duration_text(sum(self._guesses) * ratio)} left"
