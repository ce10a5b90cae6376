"""Which classes a classifier takes for which: counted while it is judged, kept with the result.

Q classes, B images of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

#: Classes up to which the whole matrix is kept; beyond, the pairs most often confused.
WHOLE = 100
PAIRS = 50


class Confusion:
    """Counts of (true class, predicted class), on the device: int64 (Q, Q)."""

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self._names = list(names)
        self._counts = torch.zeros(len(self._names) ** 2, dtype=torch.int64, device=device)

    def add(self, predicted: Tensor, labels: Tensor) -> None:
        """Count the predicted and the true classes of a batch, int64 (B,) each."""
        self._counts += torch.bincount(labels * len(self._names) + predicted, minlength=len(self._counts))

    def to_json(self) -> dict[str, Any]:
        """Return ``classes`` and ``counts`` [true][predicted], or, of more than `WHOLE` classes, ``pairs``."""
        counts = self._counts.cpu().reshape(len(self._names), -1)
        if len(self._names) <= WHOLE:
            return {"classes": self._names, "counts": counts.tolist()}
        return {"pairs": self._pairs(counts)}

    def _pairs(self, counts: Tensor) -> list[dict[str, Any]]:
        wrong = counts.clone().fill_diagonal_(0)
        best = wrong.flatten().topk(min(PAIRS, wrong.numel())).indices.tolist()
        places = [divmod(place, len(self._names)) for place in best]
        return [
            {"true": self._names[t], "predicted": self._names[p], "count": int(wrong[t, p]), "of": int(counts[t].sum())}
            for t, p in places
            if wrong[t, p]
        ]
