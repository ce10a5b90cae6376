"""Scores of attributes: several yes-or-no labels an image, such as the 40 of CelebA.

What the SimSiam report calls accuracy is the Jaccard index of the positives; the share of right answers stands beside it.

Axes: N images, A attributes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sbtrain.evaluation.fitting import Interrupted
from sbtrain.evaluation.labeled import Source, blocks
from sbtrain.runtime import Runtime

#: Added to the union of a Jaccard index, as in the report's code: an attribute that nobody has or is said to have gets 0.
EPS = 1e-10


@dataclass(frozen=True, kw_only=True)
class AttributeScores:
    """What is said of one classifier of attributes; shares of 1."""

    jaccard_macro: float
    """Mean over attributes of |said and true| / |said or true|, sums over images: the report's "macro accuracy"."""
    jaccard_micro: float
    """The same ratio over all N x A answers: the report's "micro accuracy"."""
    accuracy: float
    """Share of right answers; the mean over attributes is the same, as each has N of them."""
    auc_macro: float | None
    """Mean area under the ROC curve over attributes that some images have and others have not; None: there are none."""
    auc_micro: float | None
    """Area under the ROC curve of all N x A answers."""
    auc_left_out: int
    """Attributes that all images have, or none: they have no curve."""


def attribute_scores(logits: NDArray[np.float32], labels: NDArray[np.uint8]) -> AttributeScores:
    """Return the scores of logits (N, A), a yes where above 0, against labels (N, A), 0 or 1."""
    said, true = logits > 0, labels > 0
    both, either = said & true, said | true
    areas = [roc_auc(logits[:, a], true[:, a]) for a in range(labels.shape[1])]
    known = [area for area in areas if area is not None]
    return AttributeScores(
        jaccard_macro=float((both.sum(0) / (either.sum(0) + EPS)).mean()),
        jaccard_micro=float(both.sum() / (either.sum() + EPS)),
        accuracy=float((said == true).mean()),
        auc_macro=float(np.mean(known)) if known else None,
        auc_micro=roc_auc(logits.ravel(), true.ravel()),
        auc_left_out=len(areas) - len(known),
    )


def roc_auc(scores: NDArray[np.float32], true: NDArray[np.bool_]) -> float | None:
    """Return the share of pairs (positive, negative) in which the positive scores higher, half of those that tie.

    Scores (n,) and truth (n,); None where there is no such pair. That is the area under the ROC curve (J. Hanley and
    B. McNeil, Radiology 143, 1982), here by the sum of the positives' ranks.
    """
    positives = int(true.sum())
    negatives = len(true) - positives
    if not positives or not negatives:
        return None
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2  # from 1 on; the mean of those that tie
    return float((rank[place.ravel()[true]].sum() - positives * (positives + 1) / 2) / (positives * negatives))


@torch.no_grad()
def evaluate_attributes(
    model: nn.Module, source: Source, runtime: Runtime, interrupted: Callable[[], bool] = lambda: False
) -> AttributeScores:
    """Return the scores of a model on every row of a source.

    Raises
    ------
    Interrupted
        A signal came.
    """
    model.eval()
    parts = []
    for _, batch in blocks(source, np.arange(len(source.labels))):
        if interrupted():
            raise Interrupted
        with runtime.autocast():
            parts.append(model(batch).float().cpu())
    return attribute_scores(torch.cat(parts).numpy(), source.labels)
