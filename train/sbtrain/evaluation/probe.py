"""Frozen linear classifiers and nearest neighbors on every layer: what a pretrained network knows, and where.

The linear tests are those of R. Zhang, P. Isola and A. Efros, CVPR 2017, section 4.1: each layer of both halves side by
side, resized to about 9,600 numbers, behind a BatchNorm without weights. No image of the reported split has a part in any
choice: a fit takes a fixed number of steps, and the nearest neighbors take none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sbtrain.data import Batch, Rows
from sbtrain.evaluation.chosen import Chosen, chosen_rows
from sbtrain.evaluation.few_shot import ALL, CLASSIFIER, NETWORKS, draw_rows, weights_seed
from sbtrain.evaluation.fitting import Fitter, Interrupted, evaluate
from sbtrain.evaluation.labeled import Features, Labeled, check_finite
from sbtrain.evaluation.neighbors import VOTES, Bank, judge
from sbtrain.evaluation.pretrained import Pretrained, check_classes, seeded
from sbtrain.evaluation.probe_config import ProbeConfig
from sbtrain.evaluation.probe_result import LayerFit, Neighbors, ProbeFile
from sbtrain.methods.supervised import Classifier, ProbeEncoder, check_layers
from sbtrain.runtime import Runtime


def probe(
    pretrained: Pretrained,
    config: ProbeConfig,
    runtime: Runtime,
    say: Callable[[str], None],
    interrupted: Callable[[], bool] = lambda: False,
) -> ProbeFile:
    """Judge every layer that `config` asks for and the result file does not have yet.

    Returns
    -------
    ProbeFile
        With every layer asked for.

    Raises
    ------
    SplitbrainError
        Splits, labels or options do not allow it, or features or a loss are not finite.
    Interrupted
        A signal came; what was finished is in the file.
    """
    check_layers(pretrained.method, config.layers)
    check_classes(pretrained.manifest, config.split, config.eval_split)
    about = pretrained.about(config, runtime)
    result = ProbeFile(pretrained.run_dir, config, pretrained.method.layers(), about)
    missing = result.missing()
    if not missing:
        return result
    work = _Work(pretrained, config, runtime, say, interrupted)
    try:
        for i, (layer, draw) in enumerate(missing):
            fit = work.run(layer, draw)
            result.add(fit)
            say(
                f"{i + 1} of {len(missing)}: {layer}{', new weights' if config.from_scratch else ''}, draw {draw + 1}: "
                f"linear top-1 {fit.top1:.2%}{_neighbors_text(fit)}, {fit.seconds:.1f} s"
            )
    finally:
        work.close()
    return result


@dataclass(frozen=True)
class _Seen:
    """A layer's features, of the images to learn from and of those to report."""

    encoder: ProbeEncoder
    train: Features
    reported: Features

    def resized(self) -> tuple[Features, Features]:
        first, beyond = self.encoder.channels, self.encoder.width
        return self.train.columns(first, beyond), self.reported.columns(first, beyond)

    def means(self) -> tuple[Features, Features]:
        return self.train.columns(0, self.encoder.channels), self.reported.columns(0, self.encoder.channels)


class _Work:
    """Judges one layer after another; keeps images, and features while they stay the same."""

    def __init__(
        self,
        pretrained: Pretrained,
        config: ProbeConfig,
        runtime: Runtime,
        say: Callable[[str], None],
        interrupted: Callable[[], bool],
    ) -> None:
        self._pretrained, self._config, self._runtime = pretrained, config, runtime
        self._say, self._interrupted = say, interrupted
        self._names = pretrained.manifest.label_names
        needed = pretrained.method.inputs.datasets
        self._train = Labeled(pretrained.manifest, config.split, needed, runtime.device)
        self._eval_split = Labeled(pretrained.manifest, config.eval_split, needed, runtime.device)
        self._reported = Chosen(self._eval_split, chosen_rows(len(self._eval_split), config.eval_limit))
        self._rows = [self._drawn(draw) for draw in range(config.draws)]
        self._kept: tuple[tuple[str, int], _Seen] | None = None

    def close(self) -> None:
        self._train.close()
        self._eval_split.close()

    def run(self, layer: str, draw: int) -> LayerFit:
        begun = time.perf_counter()
        seen, rows = self._seen(layer, draw), self._rows[draw]
        train, reported = seen.resized()
        with seeded(self._seed(draw, CLASSIFIER)):
            classifier = Classifier(seen.encoder.width - seen.encoder.channels, len(self._names), standardize=True)
        classifier.to(self._runtime.device)
        fitter = Fitter(train, self._config.fit, self._runtime, self._interrupted)
        steps = fitter.fit(classifier, rows, self._seed(draw, CLASSIFIER))
        top1, top5 = evaluate(classifier, reported, self._runtime, self._interrupted)
        neighbors = self._neighbors(seen, draw)
        return LayerFit(
            layer=layer, draw=draw, features=classifier.linear.in_features, cells=seen.encoder.cells, images=len(rows),
            steps=steps, top1=top1, top5=top5, seconds=time.perf_counter() - begun, neighbors=neighbors,
        )  # fmt: skip

    def _neighbors(self, seen: _Seen, draw: int) -> tuple[Neighbors, ...]:
        same = self._config.labels_per_class == ALL and not self._config.from_scratch
        if draw and same:
            return ()
        train, reported = seen.means()
        rows, labels = self._rows[draw], torch.from_numpy(self._reported.labels)
        bank = Bank(train.table(rows), torch.from_numpy(self._train.labels[rows]), len(self._names))
        found = judge(bank, reported.table(np.arange(len(labels))), labels, VOTES, self._interrupted)
        return tuple(
            Neighbors(k=vote.k, temperature=vote.temperature, top1=top1, top5=top5)
            for vote, (top1, top5) in zip(VOTES, found, strict=True)
        )

    def _seen(self, layer: str, draw: int) -> _Seen:
        # A run's features serve every draw; new weights are others in each.
        key = layer, draw if self._config.from_scratch else 0
        if self._kept is None or self._kept[0] != key:
            begins, self._kept = self._kept is None, None  # makes room first
            if begins:
                self._begin(draw)
            self._kept = key, self._encoded(layer, key[1])
        return self._kept[1]

    def _begin(self, draw: int) -> None:
        rows = self._rows[draw] if self._config.from_scratch else np.unique(np.concatenate(self._rows))
        often = "layer and draw" if self._config.from_scratch else "layer"
        self._say(f"computing features of {len(rows) + len(self._reported.labels):,} images, for every {often}")

    def _encoded(self, layer: str, draw: int) -> _Seen:
        method = self._pretrained.networks(self._config.from_scratch, self._seed(draw, NETWORKS))
        encoder = ProbeEncoder(method, self._pretrained.manifest, layer, self._config.dimensions).eval()
        self._runtime.place(encoder)

        def encode(batch: Batch) -> Tensor:
            if self._interrupted():
                raise Interrupted
            features: Tensor = encoder(batch)
            check_finite(features, f"layer {layer}: features")
            return features

        rows = self._rows[draw] if self._config.from_scratch else np.concatenate(self._rows)
        train = Features(self._train, rows, encode, self._runtime)
        reported = Features(self._reported, np.arange(len(self._reported.labels)), encode, self._runtime)
        return _Seen(encoder, train, reported)

    def _drawn(self, draw: int) -> Rows:
        samples = self._config.labels_per_class
        return draw_rows(self._train.labels, self._names, samples, "balanced", self._config.seed, draw)

    def _seed(self, draw: int, kind: int) -> int:
        return weights_seed(self._config.seed, draw, kind)


def _neighbors_text(fit: LayerFit) -> str:
    return f", {fit.neighbors[-1].k}-NN {fit.neighbors[-1].top1:.2%}" if fit.neighbors else ""
