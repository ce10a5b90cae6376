"""Fixed subsets of a labeled split, such as STL-10's ten official folds: one fit a fold.

``fold_indices.txt`` of STL-10 has ten lines, each 1,000 numbers from 0 on: places in train_X.bin (A. Coates, H. Lee and
A. Ng, AISTATS 2011; the protocol is the mean accuracy on test over the ten). Shards are shuffled; ``source_index`` says
which image of the source a row is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sbformat.errors import ConfigError
from sbformat.manifest import Manifest, json_digest
from sbtrain.data import Rows, SplitReader

#: Lines of a file.
FOLDS = 10


@dataclass(frozen=True)
class Folds:
    """Rows of a split by fold."""

    rows: tuple[Rows, ...]
    """int64 (n,) each."""
    digest: str
    """Of the numbers in the file."""


def read_folds(path: Path, manifest: Manifest, split: str) -> Folds:
    """Read the folds of a split.

    Raises
    ------
    ConfigError
        The file cannot be read, is not ten lines of equally many numbers, or one of them is no image of the split, twice
        in a fold, or an image that the shards left out; or they are shards of some images alone.
    """
    if manifest.recipe.get("limit"):
        raise ConfigError(
            f"{manifest.root} was built with --limit {manifest.recipe['limit']}, which drew some images: folds count in all "
            f"of them. Build it without"
        )
    folds = _parsed(path, manifest.splits[split].listed)
    row_of = _row_of(manifest, split)
    rows = []
    for number, places in enumerate(folds, start=1):
        mine = row_of[places]
        if (mine < 0).any():
            raise ConfigError(
                f"{path}: line {number}: image {places[mine < 0][0]} is not in the shards, which left it out. See "
                f"{manifest.root / split / 'rejects.jsonl'}"
            )
        rows.append(mine)
    return Folds(tuple(rows), json_digest({"folds": [places.tolist() for places in folds]}))


def _parsed(path: Path, listed: int) -> list[NDArray[np.int64]]:
    try:
        lines = [line.split() for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}). Give fold_indices.txt of STL-10") from error
    if len(lines) != FOLDS:
        raise ConfigError(f"{path}: {len(lines)} lines, expected {FOLDS}, one a fold. Give fold_indices.txt of STL-10")
    folds = [_numbers(path, number, words, listed) for number, words in enumerate(lines, start=1)]
    sizes = [len(fold) for fold in folds]
    if len(set(sizes)) != 1:
        raise ConfigError(
            f"{path}: folds of {', '.join(map(str, sizes))} images, expected equally many: damaged. Unpack it again"
        )
    return folds


def _numbers(path: Path, number: int, words: list[str], listed: int) -> NDArray[np.int64]:
    for word in words:
        if not (word.isdecimal() and len(word) < 19 and int(word) < listed):
            raise ConfigError(
                f"{path}: line {number}: {word!r}, expected a number from 0 to {listed - 1:,}: the split has {listed:,} "
                f"images. Give the file that belongs to it"
            )
    fold = np.array([int(word) for word in words], np.int64)
    if len(np.unique(fold)) != len(fold):
        values, counts = np.unique(fold, return_counts=True)
        raise ConfigError(f"{path}: line {number}: image {values[counts > 1][0]} twice: damaged. Unpack it again")
    return fold


def _row_of(manifest: Manifest, split: str) -> NDArray[np.int64]:
    """Return the row of each image of the source, int64 (listed,); -1 of those left out."""
    reader = SplitReader(manifest, split, ("source_index",))
    try:
        source = reader.read("source_index")
    finally:
        reader.close()
    row_of = np.full(manifest.splits[split].listed, -1, np.int64)
    row_of[source] = np.arange(len(source))
    return row_of
