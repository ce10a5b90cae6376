"""Some of a split's images, where evaluating all of them would take too long: the same ones in every call."""

from __future__ import annotations

import numpy as np

from sbformat.permutation import permute
from sbtrain.data import Batch, Rows
from sbtrain.evaluation.labeled import Source

#: Key of the choice: not an option, so that nobody can choose images by their results.
_CHOICE = 0x5B


def chosen_rows(rows: int, limit: int) -> Rows:
    """Return `limit` of `rows` rows, or all of them where there are no more: int64, rising.

    The choice is a keyed permutation of the rows, a smaller one part of a larger one.
    """
    if not 0 < limit < rows:
        return np.arange(rows, dtype=np.int64)
    return np.sort(permute(np.arange(limit), rows, _CHOICE))


class Chosen:
    """Rows of a source, as if there were no others.

    Parameters
    ----------
    source : Source
    rows : int64 (n,)
        Row i is row ``rows[i]`` of `source`.
    """

    def __init__(self, source: Source, rows: Rows) -> None:
        self.labels = source.labels[rows]
        self._source, self._rows = source, rows

    def batch(self, rows: Rows) -> Batch:
        """Return `rows` (B,) of the chosen ones."""
        return self._source.batch(self._rows[rows])
