"""Few-shot fine-tuning: k labels a class, several draws, pretrained or from scratch.

No image of the reported split has a part in any choice. There is no early stopping unless `hold_out` takes labels for
it out of the k: the number of steps follows from the number of labels alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from sbformat.permutation import permute
from sbtrain.chosen import Chosen, chosen_rows
from sbtrain.confusion import Confusion
from sbtrain.data import Batch, Rows
from sbtrain.few_shot import draw_rows, hold_out
from sbtrain.finetune_config import FinetuneConfig, samples_text
from sbtrain.finetune_result import Fit, ResultFile
from sbtrain.fitting import Fitter, Interrupted, evaluate
from sbtrain.labeled import Features, Labeled, Source
from sbtrain.methods.supervised import Classifier, Encoder, Supervised
from sbtrain.pretrained import Pretrained, check_classes, seeded
from sbtrain.runtime import Runtime

Say = Callable[[str], None]
#: Keys of initial weights: those of the networks, and those of the classifier, the same whatever it sits on.
_NETWORKS, _CLASSIFIER = 0, 1


def remarks(pretrained: Pretrained, config: FinetuneConfig) -> list[str]:
    """Return what a reader of the numbers has to know and no table shows."""
    found = []
    if config.unheld:
        found.append(
            f"hold-out {config.hold_out:g} of {', '.join(config.unheld)} per class is no image: these fits take a fixed "
            f"number of steps"
        )
    return found if config.from_scratch else found + pretrained.seen(config.eval_split)


def finetune(
    pretrained: Pretrained,
    config: FinetuneConfig,
    runtime: Runtime,
    say: Say,
    interrupted: Callable[[], bool] = lambda: False,
) -> ResultFile:
    """Fit every classifier that `config` asks for and the result file does not have yet.

    Returns
    -------
    ResultFile
        With every fit asked for.

    Raises
    ------
    SplitbrainError
        Splits, labels or options do not allow it, or a loss is not finite.
    Interrupted
        A signal came; finished fits are in the file.
    """
    manifest = pretrained.manifest
    check_classes(manifest, config.split, config.eval_split)
    result = ResultFile(pretrained.run_dir, config, pretrained.about(config, runtime))
    if not result.missing():
        return result
    fits = _Fits(pretrained, config, runtime, interrupted)
    try:
        rows = {key: fits.rows(*key) for key in result.missing()}  # a k that cannot be is found out before any fit
        for i, (samples, draw) in enumerate(rows):
            fit, confusion = fits.run(samples, draw, rows)
            result.add(fit, confusion.to_json())
            say(
                f"{i + 1} of {len(rows)}: {samples_text(samples)} per class, draw {draw + 1}: top-1 {fit.top1:.2%}, "
                f"top-5 {fit.top5:.2%} after {fit.steps} steps, {fit.seconds:.1f} s"
            )
    finally:
        fits.close()
    return result


class _Fits:
    """Makes one classifier after another; keeps images, and features while they stay the same."""

    def __init__(
        self, pretrained: Pretrained, config: FinetuneConfig, runtime: Runtime, interrupted: Callable[[], bool]
    ) -> None:
        self._pretrained, self._config, self._runtime = pretrained, config, runtime
        self._interrupted = interrupted
        needed = pretrained.method.inputs.datasets
        self._train = Labeled(pretrained.manifest, config.split, needed, runtime.device)
        self._eval_split = Labeled(pretrained.manifest, config.eval_split, needed, runtime.device)
        self._reported = Chosen(self._eval_split, chosen_rows(len(self._eval_split), config.eval_limit))
        self._features: tuple[int, int, Source, Source] | None = None
        """Draw, number of features, and both splits."""

    def close(self) -> None:
        self._train.close()
        self._eval_split.close()

    def rows(self, samples: int, draw: int) -> Rows:
        config, names = self._config, self._pretrained.manifest.label_names
        return draw_rows(self._train.labels, names, samples, config.protocol, config.seed, draw)

    def run(self, samples: int, draw: int, rows: dict[tuple[int, int], Rows]) -> tuple[Fit, Confusion]:
        begun = time.perf_counter()
        model, train, reported = self._parts(draw, rows)
        nn.Module.to(model, self._runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        mine = rows[samples, draw]
        steps = Fitter(train, self._config, self._runtime, self._interrupted).fit(model, mine, self._seed(draw))
        confusion = Confusion(self._pretrained.manifest.label_names, self._runtime.device)
        top1, top5 = evaluate(model, reported, self._runtime, self._interrupted, confusion)
        seconds = time.perf_counter() - begun
        held = len(hold_out(mine, self._train.labels, self._config.hold_out)[1])
        fit = Fit(
            samples=samples, draw=draw, images=len(mine), steps=steps, top1=top1, top5=top5, seconds=seconds, held_out=held
        )  # fmt: skip
        return fit, confusion

    def _parts(self, draw: int, rows: dict[tuple[int, int], Rows]) -> tuple[Classifier | Supervised, Source, Source]:
        if not self._config.freeze:
            encoder = self._encoder(draw)
            return Supervised(encoder, self._classifier(encoder.width, draw)), self._train, self._reported
        width, train, reported = self._frozen(draw, rows)
        return self._classifier(width, draw), train, reported

    def _frozen(self, draw: int, rows: dict[tuple[int, int], Rows]) -> tuple[int, Source, Source]:
        # A run's features serve every draw; new weights are others in each.
        kept = draw if self._config.from_scratch else 0
        if self._features is None or self._features[0] != kept:
            self._features = None
            encoder = self._encoder(draw).eval()
            nn.Module.to(encoder, self._runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            wanted = [mine for (_, d), mine in rows.items() if d == draw or not self._config.from_scratch]

            def encode(batch: Batch) -> Tensor:
                if self._interrupted():
                    raise Interrupted
                features: Tensor = encoder(batch)
                return features

            train = Features(self._train, np.concatenate(wanted), encode, self._runtime)
            reported = Features(self._reported, np.arange(len(self._reported.labels)), encode, self._runtime)
            self._features = kept, encoder.width, train, reported
        return self._features[1:]

    def _encoder(self, draw: int) -> Encoder:
        start = self._pretrained
        method = start.networks(self._config.from_scratch, self._seed(draw, _NETWORKS))
        return Encoder(method, start.manifest, self._config.layer, self._config.pool)

    def _classifier(self, width: int, draw: int) -> Classifier:
        with seeded(self._seed(draw, _CLASSIFIER)):
            return Classifier(width, len(self._pretrained.manifest.label_names), self._config.standardize)

    def _seed(self, draw: int, kind: int = _CLASSIFIER) -> int:
        return permute(draw, 1 << 62, self._config.seed, kind)
