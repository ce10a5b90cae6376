"""Few-shot fine-tuning: k labels a class, several draws, pretrained or from scratch.

No image of the reported split has a part in any choice. There is no early stopping unless `hold_out` takes labels for
it out of the k: the number of steps follows from the number of labels alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbformat.errors import ConfigError
from sbformat.manifest import Manifest
from sbformat.words import counted
from sbtrain.data import Batch, Rows
from sbtrain.evaluation.attribute_result import AttributeFile, AttributeFit
from sbtrain.evaluation.attributes import evaluate_attributes
from sbtrain.evaluation.augmented import Augmented, Centered, seen_size, views_of
from sbtrain.evaluation.chosen import Chosen, chosen_rows
from sbtrain.evaluation.confusion import Confusion
from sbtrain.evaluation.few_shot import CLASSIFIER, NETWORKS, draw_rows, hold_out, weights_seed
from sbtrain.evaluation.finetune_config import FinetuneConfig, samples_text
from sbtrain.evaluation.finetune_result import Fit, ResultFile
from sbtrain.evaluation.fitting import Fitter, Interrupted, evaluate
from sbtrain.evaluation.folds import read_folds
from sbtrain.evaluation.labeled import Features, Labeled, Source
from sbtrain.evaluation.pretrained import Pretrained, check_classes, seeded
from sbtrain.methods.supervised import Classifier, Encoder, Supervised
from sbtrain.progress import LINE_SECONDS
from sbtrain.runtime import Runtime

Say = Callable[[str], None]
#: Rows, pass -> batch.
Views = Callable[[Rows, int], Batch]


def remarks(pretrained: Pretrained, config: FinetuneConfig) -> list[str]:
    """Return what a reader of the numbers has to know and no table shows."""
    layer = config.layer or pretrained.method.layers()[-1]
    found = [f"  classified by layer {layer}{', frozen' if config.freeze else ', all weights before it learn too'}"]
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
) -> ResultFile | AttributeFile:
    """Fit every classifier that `config` asks for and the result file does not have yet.

    Returns
    -------
    ResultFile, or AttributeFile where images have attributes
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
    attributes = _has_attributes(manifest, config)
    folds = None if config.folds is None else read_folds(config.folds, manifest, config.split)
    about = pretrained.about(config, runtime) | ({} if folds is None else {"folds": folds.digest})
    kind: type[AttributeFile | ResultFile] = AttributeFile if attributes else ResultFile
    result = kind(pretrained.run_dir, config, about)
    if not result.missing():
        return result
    fits = _Fits(pretrained, config, runtime, say, interrupted)
    try:
        # A k that cannot be is found out before any fit.
        rows = {(k, d): fits.rows(k, d) if folds is None else folds.rows[d] for k, d in result.missing()}
        for i, (samples, draw) in enumerate(rows):
            fit, confusion = fits.run(samples, draw, rows)
            result.add(fit, confusion)  # type: ignore[arg-type]  # both are of attributes, or both are not
            say(
                f"{i + 1} of {len(rows)}: {samples_text(samples)}{'' if attributes else ' per class'}, draw {draw + 1}: "
                f"{fit.text()} after {counted(fit.steps, 'step')}, {fit.seconds:.1f} s"
            )
    finally:
        fits.close()
    return result


def _has_attributes(manifest: Manifest, config: FinetuneConfig) -> bool:
    """Return whether images have attributes instead of a class; refuse what means nothing for those."""
    kinds = {split: manifest.splits[split].label_kind for split in (config.split, config.eval_split)}
    if None not in kinds.values() and len(set(kinds.values())) > 1:
        raise ConfigError(
            f"{manifest.root}: labels of {', '.join(f'{split}: {kind}' for split, kind in kinds.items())}, expected the "
            f"same kind. Choose others with --split and --eval-split"
        )
    attributes = kinds[config.split] == "attribute"
    if attributes and config.protocol == "report":
        raise ConfigError(
            f"protocol report draws images by classes, but those of {config.split} have attributes. Leave --protocol out: "
            f"--samples-per-class then is the number of images"
        )
    return attributes


@dataclass(frozen=True)
class _Frozen:
    """What networks that do not learn give."""

    width: int
    encode: Callable[[Batch], Tensor]
    train: Source
    reported: Source


class _Fits:
    """Makes one classifier after another; keeps images, and features while they stay the same."""

    def __init__(
        self,
        pretrained: Pretrained,
        config: FinetuneConfig,
        runtime: Runtime,
        say: Say,
        interrupted: Callable[[], bool],
    ) -> None:
        self._pretrained, self._config, self._runtime = pretrained, config, runtime
        self._say, self._interrupted = say, interrupted
        needed = pretrained.method.inputs.datasets
        self._train = Labeled(pretrained.manifest, config.split, needed, runtime.device, attributes=True)
        self._eval_split = Labeled(pretrained.manifest, config.eval_split, needed, runtime.device, attributes=True)
        self._size = seen_size(pretrained.method, pretrained.manifest.image_size)
        self._reported: Source = Chosen(self._eval_split, chosen_rows(len(self._eval_split), config.eval_limit))
        if config.center < 1:
            self._reported = Centered(self._reported, self._size, config.center)
        self._told = time.monotonic()
        self._features: tuple[int, _Frozen] | None = None
        """Draw, and what was computed for it."""

    def close(self) -> None:
        self._train.close()
        self._eval_split.close()

    def rows(self, samples: int, draw: int) -> Rows:
        config, names = self._config, self._pretrained.manifest.label_names
        rows = draw_rows(self._train.labels, names, samples, config.protocol, config.seed, draw)
        if len(hold_out(rows, self._train.labels, config.hold_out)[0]) < 2:
            raise ConfigError(
                f"{samples_text(samples)} labeled images of {config.split} leave fewer than two to learn from. "
                f"Use --samples-per-class with larger numbers, or all: of images with attributes it counts all of them"
            )
        return rows

    def run(
        self, samples: int, draw: int, rows: dict[tuple[int, int], Rows]
    ) -> tuple[Fit | AttributeFit, dict[str, Any] | None]:
        """Return a fit and, of classes, which one was taken for which."""
        begun, self._told = time.perf_counter(), time.monotonic()
        model, train, reported, views = self._parts(draw, rows)
        self._runtime.place(model)
        mine = rows[samples, draw]
        fitter = Fitter(train, self._config, self._runtime, self._interrupted, views, self._tell)
        steps = fitter.fit(model, mine, self._seed(draw))
        held = len(hold_out(mine, self._train.labels, self._config.hold_out)[1])
        made = {"samples": samples, "draw": draw, "images": len(mine), "steps": steps, "held_out": held}
        if self._train.labels.ndim == 2:
            scores = evaluate_attributes(model, reported, self._runtime, self._interrupted)
            return AttributeFit(**made, **asdict(scores), seconds=time.perf_counter() - begun), None
        confusion = Confusion(self._pretrained.manifest.label_names, self._runtime.device)
        top1, top5 = evaluate(model, reported, self._runtime, self._interrupted, confusion)
        return Fit(**made, top1=top1, top5=top5, seconds=time.perf_counter() - begun), confusion.to_json()

    def _tell(self, step: int, steps: int) -> None:
        if time.monotonic() - self._told >= LINE_SECONDS and step < steps:
            self._told = time.monotonic()
            self._say(f"  step {step:,} of {steps:,}")

    def _parts(
        self, draw: int, rows: dict[tuple[int, int], Rows]
    ) -> tuple[Classifier | Supervised, Source, Source, Views | None]:
        if not self._config.freeze:
            encoder = self._encoder(draw)
            model = Supervised(encoder, self._classifier(encoder.width, draw))
            return model, self._train, self._reported, self._views(draw)
        frozen = self._frozen(draw, rows)
        return self._classifier(frozen.width, draw), frozen.train, frozen.reported, self._views(draw, frozen.encode)

    def _views(self, draw: int, encode: Callable[[Batch], Tensor] | None = None) -> Views | None:
        if self._config.augmentation == "none":
            return None
        augment = views_of(self._config.augmentation, self._size, self._seed(draw)).to(self._runtime.device)
        return Augmented(self._train, augment, encode).batch

    def _frozen(self, draw: int, rows: dict[tuple[int, int], Rows]) -> _Frozen:
        # A run's features serve every draw; new weights are others in each.
        kept = draw if self._config.from_scratch else 0
        if self._features is None or self._features[0] != kept:
            begins, self._features = self._features is None, None
            encoder = self._encoder(draw).eval()
            self._runtime.place(encoder)
            wanted = [mine for (_, d), mine in rows.items() if d == draw or not self._config.from_scratch]

            @torch.no_grad()
            def encode(batch: Batch) -> Tensor:
                if self._interrupted():
                    raise Interrupted
                with self._runtime.autocast():
                    features: Tensor = encoder(batch)
                return features

            if begins:
                images = len(np.unique(np.concatenate(wanted))) + len(self._reported.labels)
                often = "for every draw" if self._config.from_scratch else "once"
                often += "; those of augmented images anew in every pass" if self._config.augmentation != "none" else ""
                self._say(f"computing features of {images:,} images, {often}")
            train = Features(self._train, np.concatenate(wanted), encode, self._runtime)
            reported = Features(self._reported, np.arange(len(self._reported.labels)), encode, self._runtime)
            self._features = kept, _Frozen(encoder.width, encode, train, reported)
        return self._features[1]

    def _encoder(self, draw: int) -> Encoder:
        start = self._pretrained
        method = start.networks(self._config.from_scratch, self._seed(draw, NETWORKS))
        return Encoder(method, start.manifest, self._config.layer, self._config.pool)

    def _classifier(self, width: int, draw: int) -> Classifier:
        with seeded(self._seed(draw, CLASSIFIER)):
            classes = len(self._pretrained.manifest.label_names)
            return Classifier(width, classes, self._config.standardize, self._config.head == "normal")

    def _seed(self, draw: int, kind: int = CLASSIFIER) -> int:
        return weights_seed(self._config.seed, draw, kind)
