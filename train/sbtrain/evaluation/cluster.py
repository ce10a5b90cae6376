"""Clusters beside classes: what a network makes of images without having seen a label.

Self-Classifier says itself which class an image belongs to; of any other network k-means parts the features. The scores
are those of the Self-Classifier report and paper (section 4.2): NMI, AMI, ARI, and the accuracy of the best matching.
No label has a part in anything but the scores, and the centers of k-means are means of other images than those reported.

Axes: N images, D features, Q classes, K clusters.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sbtrain.data import Batch
from sbtrain.evaluation import scores
from sbtrain.evaluation.augmented import Centered, seen_size
from sbtrain.evaluation.chosen import Chosen, chosen_rows
from sbtrain.evaluation.cluster_config import ClusterConfig
from sbtrain.evaluation.cluster_result import ClusterFile, ClusterFit
from sbtrain.evaluation.few_shot import NETWORKS, weights_seed
from sbtrain.evaluation.fitting import Interrupted
from sbtrain.evaluation.labeled import Features, Labeled, Source, blocks, check_finite
from sbtrain.evaluation.pretrained import Pretrained, check_classes
from sbtrain.methods import Method, SelfClassifier
from sbtrain.methods.supervised import Encoder
from sbtrain.runtime import Runtime

#: Classes and clusters up to which the counts of both are kept.
WHOLE = 100

Assigned = NDArray[np.int64]


def cluster(
    pretrained: Pretrained,
    config: ClusterConfig,
    runtime: Runtime,
    say: Callable[[str], None],
    interrupted: Callable[[], bool] = lambda: False,
) -> ClusterFile:
    """Make every assignment that `config` asks for and the result file does not have yet.

    Raises
    ------
    SplitbrainError
        Splits, labels or options do not allow it, features are not finite, or scikit-learn is missing.
    Interrupted
        A signal came; what was finished is in the file.
    """
    config = config.settled(pretrained.method)
    check_classes(pretrained.manifest, config.splits.split, config.split)
    about = pretrained.about(config.splits, runtime)
    about["versions"] = {**about["versions"], "scikit-learn": scores.version()}
    result = ClusterFile(pretrained.run_dir, config, about)
    if not result.missing():
        return result
    work = _Work(pretrained, config, runtime, interrupted)
    try:
        missing = result.missing()
        for i, draw in enumerate(missing):
            fit, counts = work.run(draw)
            result.add(fit, counts)
            say(
                f"{i + 1} of {len(missing)}: NMI {fit.nmi:.2%}, AMI {fit.ami:.2%}, ARI {fit.ari:.2%}, ACC {fit.acc:.2%}, "
                f"{fit.used} of {fit.clusters} clusters used, {fit.seconds:.1f} s"
            )
    finally:
        work.close()
    return result


class _Work:
    """Makes one assignment after another; keeps features while they stay the same."""

    def __init__(
        self, pretrained: Pretrained, config: ClusterConfig, runtime: Runtime, interrupted: Callable[[], bool]
    ) -> None:
        self._pretrained, self._config, self._runtime = pretrained, config, runtime
        self._interrupted = interrupted
        self._names = pretrained.manifest.label_names
        splits = dict.fromkeys([config.splits.split, config.split])
        needed = pretrained.method.inputs.datasets
        self._images = {name: Labeled(pretrained.manifest, name, needed, runtime.device) for name in splits}
        whole = self._images[config.split]
        self._reported = self._centered(Chosen(whole, chosen_rows(len(whole), config.limit)))
        self._kept: tuple[int, NDArray[np.float32], NDArray[np.float32]] | None = None
        """Draw, features to learn from and to report."""

    def close(self) -> None:
        for images in self._images.values():
            images.close()

    def run(self, draw: int) -> tuple[ClusterFit, dict[str, Any] | None]:
        if self._interrupted():  # starts of k-means on features that are there look at no image
            raise Interrupted
        begun = time.perf_counter()
        assigned, clusters = self._classes(draw) if self._config.method == "classifier" else self._kmeans(draw)
        counts = contingency(self._reported.labels, assigned, len(self._names), clusters)
        found = scores.agreement(self._reported.labels, assigned)
        fit = ClusterFit(
            draw=draw, **asdict(found), acc=scores.matched_accuracy(counts), clusters=clusters,
            used=int((counts.sum(0) > 0).sum()), usage_entropy=usage_entropy(counts.sum(0)),
            seconds=time.perf_counter() - begun,
        )  # fmt: skip
        kept = {"draw": draw, "classes": list(self._names), "counts": counts.tolist()}
        return fit, kept if max(counts.shape) <= WHOLE else None

    def _classes(self, draw: int) -> tuple[Assigned, int]:
        method = self._networks(draw)
        assert isinstance(method, SelfClassifier), "settled"
        logits = self._of_blocks(self._reported, lambda batch: method.logits(batch, self._config.classifier))
        return logits.argmax(1).numpy(), method.counts[self._config.classifier]

    def _kmeans(self, draw: int) -> tuple[Assigned, int]:
        clusters = self._config.clusters or len(self._names)
        learned, reported = self._features(draw)
        return scores.kmeans(learned, reported, clusters, self._seed(draw) % (1 << 32)), clusters

    def _features(self, draw: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        kept = draw if self._config.from_scratch else 0
        if self._kept is None or self._kept[0] != kept:
            self._kept = None  # makes room first
            method = self._networks(draw)
            encoder = Encoder(method, self._pretrained.manifest, self._config.layer, self._config.pool).eval()
            self._runtime.place(encoder)
            learned = self._centered(self._images[self._config.learn_split])
            self._kept = kept, self._unit(learned, encoder), self._unit(self._reported, encoder)
        return self._kept[1:]

    def _unit(self, images: Source, encoder: Encoder) -> NDArray[np.float32]:
        rows = np.arange(len(images.labels))
        features = Features(images, rows, lambda batch: self._looked(encoder(batch)), self._runtime).table(rows).cpu()
        unit: NDArray[np.float32] = functional.normalize(features, dim=1).numpy()
        return unit

    def _of_blocks(self, images: Source, say: Callable[[Batch], Tensor]) -> Tensor:
        parts = []
        for _, batch in blocks(images, np.arange(len(images.labels))):
            with torch.no_grad(), self._runtime.autocast():
                parts.append(self._looked(say(batch)).float().cpu())
        return torch.cat(parts)

    def _looked(self, values: Tensor) -> Tensor:
        if self._interrupted():
            raise Interrupted
        check_finite(values)
        return values

    def _networks(self, draw: int) -> Method:
        method = self._pretrained.networks(self._config.from_scratch, self._seed(draw)).eval()
        self._runtime.place(method)
        return method

    def _centered(self, images: Source) -> Source:
        if self._config.center == 1:
            return images
        size = seen_size(self._pretrained.method, self._pretrained.manifest.image_size)
        return Centered(images, size, self._config.center)

    def _seed(self, draw: int) -> int:
        return weights_seed(self._config.seed, draw, NETWORKS)


def contingency(labels: NDArray[Any], assigned: Assigned, classes: int, clusters: int) -> NDArray[np.int64]:
    """Return how many images of each class are in each cluster: int64 (Q, K) of labels (N,), assigned (N,)."""
    flat = np.bincount(labels.astype(np.int64) * clusters + assigned, minlength=classes * clusters)
    return flat.reshape(classes, clusters)


def usage_entropy(counts: NDArray[np.int64]) -> float:
    """Return the entropy of the clusters' shares, counts (K,), in units of ln K."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum() / np.log(len(counts))) + 0.0
