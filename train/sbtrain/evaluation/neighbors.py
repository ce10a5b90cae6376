"""k nearest neighbors by cosine similarity: labeled features vote for the class of others.

In blocks, so that memory is bounded whatever the sizes; where similarities tie, the earlier row of the bank counts as the
nearer one and the lower class wins, so the same features give the same answer on any device.

Axes: M rows of the bank, N queries and B of them at a time, D features, k neighbors, Q classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sbtrain.evaluation.fitting import Interrupted


@dataclass(frozen=True)
class Vote:
    """How many neighbors vote, all of a smaller bank, and what each one's vote weighs."""

    k: int
    temperature: float | None = None
    """A neighbor weighs exp(cosine / temperature); None: as much as any other."""


#: k = 200 with t = 0.1 is what monitors of contrastive pretraining use: Z. Wu, Y. Xiong, S. Yu and D. Lin, "Unsupervised
#: Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018, section 3.4, there with t = 0.07.
WEIGHTED = Vote(200, 0.1)
#: Where a class has fewer labeled images than that.
FEW = Vote(20)
VOTES = (Vote(1), Vote(5), FEW, WEIGHTED)

#: Queries and rows of the bank at a time: 4 MB of similarities, 8 of what orders them. One core, 512 queries, 8,192 rows of
#: 192 features, k = 200: 0.10 s with 512 rows at a time, 0.09 with 2,048, 0.12 with 8,192.
QUERIES, ROWS = 512, 2048
#: Numbers of a table of who votes for which class.
TABLE = 1 << 22
_LOW = (1 << 32) - 1


class Bank:
    """Features with a class each, which vote.

    Parameters
    ----------
    features : float (M, D)
        Finite. A row of zeros is at a right angle to everything.
    labels : int (M,)
    classes : int
        Number of classes Q.
    """

    def __init__(self, features: Tensor, labels: Tensor, classes: int) -> None:
        self._features, self.classes = _unit(features), classes
        self._labels = labels.to(features.device).long()

    def nearest(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Find the `k` most similar rows of each query, the most similar first.

        Parameters
        ----------
        queries : float (B, D)
        k : int

        Returns
        -------
        similarity : float32 (B, min(k, M)), in [-1, 1]
        row : int64 (B, min(k, M))
        """
        unit = _unit(queries.to(self._features.device))
        best = torch.empty((len(queries), 0), dtype=torch.int64, device=unit.device)
        for start in range(0, len(self._features), ROWS):
            keys = torch.cat([best, _keys(unit @ self._features[start : start + ROWS].T, start)], dim=1)
            best = keys.topk(min(k, keys.shape[1]), dim=1).values
        return _similarity(best), _LOW - (best & _LOW)

    def scores(self, similarity: Tensor, row: Tensor, vote: Vote) -> Tensor:
        """Return what each class gets from neighbors (B, k), nearest first: float32 (B, Q)."""
        similarity, labels = similarity[:, : vote.k], self._labels[row[:, : vote.k]]
        weight = torch.ones_like(similarity) if vote.temperature is None else (similarity / vote.temperature).exp()
        places = torch.arange(self.classes, device=labels.device)
        step = max(1, TABLE // (labels.shape[1] * self.classes))
        # Products of matrices: on CUDA a scatter adds up in no fixed order.
        parts = [
            torch.bmm(weight[i : i + step, None], (labels[i : i + step, :, None] == places).to(weight.dtype))
            for i in range(0, len(labels), step)
        ]
        return torch.cat(parts)[:, 0]


def judge(
    bank: Bank,
    queries: Tensor,
    labels: Tensor,
    votes: Sequence[Vote] = VOTES,
    interrupted: Callable[[], bool] = lambda: False,
) -> list[tuple[float, float]]:
    """Return for each vote the shares of queries (N, D), labels (N,), whose class is the best and among the best five.

    Raises
    ------
    Interrupted
        A signal came.
    """
    counts = [torch.zeros(2, dtype=torch.int64) for _ in votes]
    for start in range(0, len(queries), QUERIES):
        if interrupted():
            raise Interrupted
        found = bank.nearest(queries[start : start + QUERIES], max(vote.k for vote in votes))
        for count, vote in zip(counts, votes, strict=True):
            count += top_hits(bank.scores(*found, vote), labels[start : start + QUERIES]).cpu()
    return [(int(best) / len(queries), int(five) / len(queries)) for best, five in counts]


def top_hits(scores: Tensor, labels: Tensor) -> Tensor:
    """Count the rows whose class is the best, and among the best five: int64 (2,) of scores (B, Q), labels (B,).

    The lower of two classes with equal scores is the better one; a class without a vote is never among the best.
    """
    labels = labels.to(scores.device).long()[:, None]
    mine = scores.gather(1, labels)
    before = torch.arange(scores.shape[1], device=scores.device) < labels
    rank = ((scores > mine) | ((scores == mine) & before)).sum(dim=1)
    voted = mine[:, 0] > 0
    return torch.stack([(voted & (rank < 1)).sum(), (voted & (rank < 5)).sum()])


def _unit(features: Tensor) -> Tensor:
    features = features.float()
    length = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / torch.where(length > 0, length, 1.0)


def _keys(similarity: Tensor, start: int) -> Tensor:
    """Pack float32 (B, n) and the row of each column, from `start` on, into int64 that sort by similarity, then by row."""
    bits = (similarity + 0.0).contiguous().view(torch.int32).long()  # the sum turns -0 into 0
    rows = torch.arange(start, start + similarity.shape[1], device=similarity.device)
    return (_ordered(bits) << 32) + (_LOW - rows)


def _similarity(keys: Tensor) -> Tensor:
    return _ordered(keys >> 32).int().view(torch.float32)


def _ordered(bits: Tensor) -> Tensor:
    # Of negative floats the bits but the sign run backward; turning them round is its own inverse.
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
