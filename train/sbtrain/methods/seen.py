"""What a step left for those who watch it: features of the last batch, of its first view, as training saw them.

Axes: B images, D features, P numbers an embedding, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Seen:
    """Without gradients, on the device, in the precision of the step.

    Of the last micro-batch; where there are several ranks, of all of them where the loss is.
    """

    backbone: Tensor
    """(B, D)."""
    embedding: Tensor
    """(B, P): what the loss compares."""
    logits: Tensor | None = None
    """(B, C) of the first classifier."""
    flat_loss: float | None = None
    """Where every image has the same logits: the mean of ln C over all classifiers."""
