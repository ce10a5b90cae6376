"""Self-Classifier: E. Amrani, L. Karlinsky and A. Bronstein, "Self-Supervised Classification Network", ECCV 2022.

Two views of an image are to fall into the same class, and classes are to be used alike. For logits S of N images and C
classes, the view i as target and j as prediction (sections 3.2 and 3.3)::

    T = p(y|x) from p(x|y): softmax of S_i / tau_col over the BATCH, then each row divided by its sum
    Q = softmax of S_j / tau_row over the classes, each column divided by its sum, times N / C
    l(i, j) = -(1 / N) sum_n sum_c T_nc log(Q_nc + eps)

L is the mean over ordered pairs i != j, those of two local views left out, and over classifiers. No gradient is stopped.
Equal rows give ln C exactly, the collapse; perfect balanced agreement gives nearly 0; log Q may be above 0.

Axes: B = N images, V views, D features, E embedding, K classifiers, C classes of one.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sbformat.errors import ConfigError
from sbtrain.data import Batch
from sbtrain.methods.neighbor_queue import NeighborQueue
from sbtrain.methods.seen import Seen
from sbtrain.methods.views import OnViews, Views
from sbtrain.networks.backbones import Backbone
from sbtrain.networks.heads import ClassifierKind, build_classifier, build_head, class_counts
from sbtrain.ranks.world import gather

Prior = Literal["uniform", "targets", "none"]
#: Views that are global: those after them are local.
GLOBAL_VIEWS = 2


class SelfClassifier(OnViews):
    """Backbone, head and classifiers, their loss, features and classes.

    Parameters
    ----------
    backbone : Backbone
    views : Views
        Two or more an image; those after the second are local.
    head : str
        See `build_head`.
    classes : str
        See `class_counts`.
    classifier : {"weight-norm", "orthonormal"}
        Linear layers without bias: rows of trained direction and trained length, 1 at first; or fixed orthonormal rows.
    prior, tau_row, tau_col, eps
        See `pair_losses`.
    queue : int
        Embeddings of first views that wait as neighbors; 0: no queue.
    queue_replace : bool
        Each first view's embedding is replaced by its nearest neighbor; False: only how near it is gets logged.

    Raises
    ------
    ConfigError
        Fewer than two views, or more orthonormal rows than dimensions.
    """

    projection = "head"

    def __init__(
        self,
        backbone: Backbone,
        views: Views,
        *,
        head: str = "1hl",
        classes: str = "10",
        classifier: ClassifierKind = "weight-norm",
        prior: Prior = "uniform",
        tau_row: float = 0.1,
        tau_col: float = 0.05,
        eps: float = 1e-8,
        queue: int = 0,
        queue_replace: bool = False,
    ) -> None:
        self.check_views(views)
        super().__init__(backbone, views)
        self.head, E = build_head(head, backbone.width)
        self.counts = class_counts(classes)
        self.classifiers = nn.ModuleList(build_classifier(classifier, E, C) for C in self.counts)
        self.prior, self.tau_row, self.tau_col, self.eps = prior, tau_row, tau_col, eps
        self.queue = NeighborQueue(queue, E) if queue else None
        self.replace = queue_replace

    @staticmethod
    def check_views(views: Views) -> None:
        """Refuse fewer views than two; before a backbone is built for their sizes."""
        if views.count < GLOBAL_VIEWS:
            raise ConfigError(
                f"an augmentation of {views.count} view, but self_classifier compares two or more. "
                f"Use --augmentation dino_multicrop"
            )

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and ``class_entropy``: 1 where the first classifier uses all classes alike, 0 for one alone."""
        # Each resolution through the backbone, all views through the head at once: so its BatchNorm sees them alike.
        h = self.inputs.embed(self.backbone, self.inputs(batch), batch)
        z = self.head(h)
        with _float32_on(z.device):
            z = functional.normalize(z.float(), dim=1, eps=1e-7).view(-1, len(batch), z.shape[1])  # (V, B, E)
            # Of all ranks: the softmax over the batch is over all of it.
            z, index = gather(z.transpose(0, 1)).transpose(0, 1), gather(batch.index)
            logs = {}
            if self.queue is not None:
                z, logs["neighbor_similarity"] = self._with_neighbors(z, index)
            S = [self._logits(z, k) for k in range(len(self.counts))]
            flat = sum(map(math.log, self.counts)) / len(self.counts)
            self.seen = Seen(h[: len(batch)].detach(), z[0].detach(), S[0][0].detach(), flat)
            loss = self._mean_loss(S)
            return loss, {"class_entropy": usage(S[0][0].detach()), **logs}

    def _with_neighbors(self, z: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        assert self.queue is not None
        own, full = z[0].detach(), self.queue.full
        neighbors, similarity = self.queue.nearest(own, index)
        self.queue.push(own, index)
        if self.replace:
            z = torch.cat([torch.where(full, neighbors, z[0])[None], z[1:]])
        return z, similarity

    def _logits(self, z: Tensor, k: int) -> Tensor:
        result: Tensor = self.classifiers[k](z)
        return result

    def _mean_loss(self, S: list[Tensor]) -> Tensor:
        # Classifiers of as many classes are computed together: 30 of them would be 30 times as many kernels.
        found = []
        for C in dict.fromkeys(self.counts):
            alike = torch.stack([logits for logits, count in zip(S, self.counts, strict=True) if count == C])
            found.append(pair_losses(alike, self.prior, self.tau_row, self.tau_col, self.eps))
        return torch.cat(found).mean()

    def embedding(self, batch: Batch) -> Tensor:
        """Return normalized embeddings (B, E) of the plain images, float32."""
        return functional.normalize(self.features(batch, "projection").float(), dim=1, eps=1e-7)

    def logits(self, batch: Batch, classifier: int = 0) -> Tensor:
        """Return logits (B, C) of the plain images by one of the classifiers, float32."""
        z = self.embedding(batch)
        with _float32_on(z.device):
            return self._logits(z, classifier)

    def assign(self, batch: Batch, classifier: int = 0) -> Tensor:
        """Return the classes, int64 (B,), of the plain images by one of the classifiers."""
        return self.logits(batch, classifier).argmax(1)


def pair_losses(S: Tensor, prior: Prior, tau_row: float, tau_col: float, eps: float) -> Tensor:
    """Return the mean loss over pairs of views.

    Parameters
    ----------
    S : float32 (K, V, N, C)
        Logits of K classifiers.
    prior : {"uniform", "targets", "none"}
        Where classes are taken to be used alike: in targets and predictions; in targets alone, as in the method's first
        version (arXiv 2103.10994v1); nowhere, which collapses to one class.
    tau_row, tau_col : float
        Temperatures of the softmax over classes, and over the batch.
    eps : float

    Returns
    -------
    float32 (K,)
    """
    V, N, C = S.shape[1:]
    T = functional.softmax(S / tau_col, dim=-1 if prior == "none" else -2)
    if prior != "none":
        T = T / T.sum(-1, keepdim=True).clamp(min=eps)
    if prior == "uniform":
        R = functional.softmax(S / tau_row, dim=-1)
        log_Q = torch.log(N / C * R / R.sum(-2, keepdim=True).clamp(min=eps) + eps)
    else:
        log_Q = functional.log_softmax(S / tau_row, dim=-1)
    of_pairs = -(T.flatten(-2) @ log_Q.flatten(-2).mT) / N  # (K, V, V)
    view = torch.arange(V, device=S.device)
    i, j = view[:, None], view
    counted = ((i != j) & ((i < GLOBAL_VIEWS) | (j < GLOBAL_VIEWS))).float()
    return (of_pairs * counted).sum((-1, -2)) / counted.sum()


def _float32_on(device: torch.device) -> AbstractContextManager[object]:
    # 16-bit logits, divided by 0.05, are off by up to 0.08; the meta device, where FLOPs are counted, has no autocast.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def usage(logits: Tensor) -> Tensor:
    """Return the entropy of the chosen classes of logits (N, C), in units of ln C."""
    C = logits.shape[-1]
    share = (logits.argmax(-1, keepdim=True) == torch.arange(C, device=logits.device)).float().mean(0)
    entropy: Tensor = torch.special.entr(share).sum()
    return entropy / math.log(C)
