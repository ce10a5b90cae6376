"""Few-shot fine-tuning: k labels a class, several draws, pretrained or from scratch.

No image of the reported split has a part in any choice. There is no early stopping unless `hold_out` takes labels for
it out of the k: the number of steps follows from the number of labels alone.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import sbformat
from sbformat.errors import ConfigError
from sbformat.permutation import permute
from sbtrain.build import build_method
from sbtrain.data import Batch, Rows
from sbtrain.few_shot import draw_rows, hold_out
from sbtrain.finetune_config import FinetuneConfig, samples_text
from sbtrain.finetune_result import Fit, ResultFile
from sbtrain.fitting import Fitter, Interrupted, evaluate
from sbtrain.labeled import Features, Labeled, Source
from sbtrain.methods.supervised import Classifier, Encoder, Supervised
from sbtrain.pretrained import Pretrained, check_split, holds
from sbtrain.run_folder import data_record
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
    if not config.from_scratch and holds(pretrained.manifest, config.eval_split, pretrained.record["data"]):
        found.append(
            f"the run was pretrained on the images of split {config.eval_split}, which are reported: not a result on "
            f"images that it has not seen. Report another --eval-split, or pretrain on another --split"
        )
    return found


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
    for split in (config.split, config.eval_split):
        check_split(manifest, split)
    if len(manifest.label_names) < 2 and manifest.splits[config.split].label_kind == "class":
        raise ConfigError(f"{manifest.root} has {len(manifest.label_names)} class, expected 2 or more")
    result = ResultFile(pretrained.run_dir, config, _about(pretrained, config, runtime))
    fits = _Fits(pretrained, config, runtime, interrupted)
    try:
        rows = {key: fits.rows(*key) for key in result.missing()}  # a k that cannot be is found out before any fit
        for i, (samples, draw) in enumerate(rows):
            fit = fits.run(samples, draw, rows)
            result.add(fit)
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
        self._reported = Labeled(pretrained.manifest, config.eval_split, needed, runtime.device)
        self._features: tuple[int, int, Source, Source] | None = None
        """Draw, number of features, and both splits."""

    def close(self) -> None:
        self._train.close()
        self._reported.close()

    def rows(self, samples: int, draw: int) -> Rows:
        config, names = self._config, self._pretrained.manifest.label_names
        return draw_rows(self._train.labels, names, samples, config.protocol, config.seed, draw)

    def run(self, samples: int, draw: int, rows: dict[tuple[int, int], Rows]) -> Fit:
        begun = time.perf_counter()
        model, train, reported = self._parts(draw, rows)
        nn.Module.to(model, self._runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        mine = rows[samples, draw]
        steps = Fitter(train, self._config, self._runtime, self._interrupted).fit(model, mine, self._seed(draw))
        top1, top5 = evaluate(model, reported, self._runtime, self._interrupted)
        seconds = time.perf_counter() - begun
        held = len(hold_out(mine, self._train.labels, self._config.hold_out)[1])
        return Fit(
            samples=samples, draw=draw, images=len(mine), steps=steps, top1=top1, top5=top5, seconds=seconds, held_out=held
        )  # fmt: skip

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
            reported = Features(self._reported, np.arange(len(self._reported)), encode, self._runtime)
            self._features = kept, encoder.width, train, reported
        return self._features[1:]

    def _encoder(self, draw: int) -> Encoder:
        start = self._pretrained
        with _seeded(self._seed(draw, _NETWORKS)):
            scratch = self._config.from_scratch
            method = build_method(start.config, start.manifest) if scratch else copy.deepcopy(start.method)
        return Encoder(method, start.manifest, self._config.layer, self._config.pool)

    def _classifier(self, width: int, draw: int) -> Classifier:
        with _seeded(self._seed(draw, _CLASSIFIER)):
            return Classifier(width, len(self._pretrained.manifest.label_names), self._config.standardize)

    def _seed(self, draw: int, kind: int = _CLASSIFIER) -> int:
        return permute(draw, 1 << 62, self._config.seed, kind)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _about(pretrained: Pretrained, config: FinetuneConfig, runtime: Runtime) -> dict[str, Any]:
    manifest = pretrained.manifest
    # New weights are the same whatever the run has learned since.
    run = {**pretrained.record, "checkpoint": None} if config.from_scratch else pretrained.record
    return {
        "run": run,
        "data": {split: data_record(manifest, split) for split in (config.split, config.eval_split)},
        "classes": len(manifest.label_names),
        "eval_images": manifest.splits[config.eval_split].images,
        "device": runtime.name,
        "dtype": str(runtime.dtype).removeprefix("torch."),
        "versions": {"sbtrain": sbformat.__version__, "torch": torch.__version__},
    }
