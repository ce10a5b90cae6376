"""Results of fine-tuning: every fit as soon as it is done, means with intervals, Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sbtrain.evaluation.few_shot import ALL
from sbtrain.evaluation.finetune_config import FinetuneConfig, fits_once, samples_text
from sbtrain.evaluation.results import Draws, FitFile, markdown


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What one classifier learned from."""

    samples: int
    """For each class; of images with attributes, in all; 0: every one."""
    draw: int
    images: int
    """Labeled images used, those to stop by included."""
    steps: int


@dataclass(frozen=True, kw_only=True)
class Fit(Drawn):
    """One classifier."""

    top1: float
    """Share of reported images whose class is the best."""
    top5: float
    """Share of reported images whose class is among the best five."""
    seconds: float
    held_out: int = 0
    """Of `images`, those to stop by; 0: a fixed number of steps."""

    def text(self) -> str:
        """Return the scores in words."""
        return f"top-1 {self.top1:.2%}, top-5 {self.top5:.2%}"


F = TypeVar("F", bound=Drawn)


@dataclass(frozen=True)
class Shot(Draws[Fit]):
    """All draws of one number of samples per class."""

    once: bool = False
    """The only fit there can be: another draw would be the same one."""

    @property
    def label(self) -> str:
        """``4``, or ``all``."""
        return samples_text(self.fits[0].samples)

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        summary = {"top1": self.top1.to_json(), "top5": self.top5.to_json()}
        return {"samples_per_class": self.label, "images": self.fits[0].images, "draws": len(self.fits), **summary}


class FinetuneFile(FitFile[FinetuneConfig, tuple[int, int], F]):
    """A file of fits, each one known by number of samples and draw."""

    amounts = ("samples_per_class", "draws")

    def key(self, fit: F) -> tuple[int, int]:
        """Return samples and draw."""
        return fit.samples, fit.draw

    def keys(self) -> list[tuple[int, int]]:
        """Return (samples, draw) of all fits that the config asks for: one draw after the other."""
        config = self.config
        return [
            (k, draw) for draw in range(config.draws) for k in config.samples_per_class if draw < config.draws_of(k)
        ]

    def place(self, key: tuple[int, int]) -> Any:
        """Return what fits are sorted by: every sample comes last."""
        return (*_most(key), key[1])

    def asked(self) -> list[tuple[F, ...]]:
        """Return what the config asks for, all draws of one number of samples together."""
        config = self.config
        return [tuple(self._fits[k, draw] for draw in range(config.draws_of(k))) for k in config.samples_per_class]

    def summary(self, fits: Sequence[F]) -> dict[str, Any]:
        """Return what is said of each number of samples."""
        of_number = {k: [fit for fit in fits if fit.samples == k] for k in dict.fromkeys(fit.samples for fit in fits)}
        return {"results": [self.of_draws(counted(self._head["config"], mine)) for mine in of_number.values()]}

    def of_draws(self, fits: tuple[F, ...]) -> dict[str, Any]:
        """Return what the draws of one number of samples say, as JSON values."""
        raise NotImplementedError


class ResultFile(FinetuneFile[Fit]):
    """``results/finetune-….json``: classifiers of classes."""

    kind, fit_type, counts = "finetune", Fit, "confusion"

    def add(self, fit: Fit, counts: dict[str, Any] | None = None) -> None:
        """Take in one fit, and write the file, which keeps the confusion of the newest fit on most samples."""
        kept = self._counts
        if fit.samples == max([*self._fits, self.key(fit)], key=_most)[0]:
            kept = {"samples_per_class": samples_text(fit.samples), "draw": fit.draw, **(counts or {})}
        super().add(fit, kept)

    def shots(self) -> list[Shot]:
        """Return what the config asks for, every fit of it done."""
        return [self._shot(fits) for fits in self.asked()]

    def of_draws(self, fits: tuple[Fit, ...]) -> dict[str, Any]:
        """Return means with intervals."""
        return self._shot(fits).to_json()

    def _shot(self, fits: tuple[Fit, ...]) -> Shot:
        return Shot(fits, fits_once(self._head["config"], fits[0].samples))


def _most(key: tuple[int, int]) -> tuple[bool, int]:
    return key[0] == ALL, key[0]


def counted(config: Mapping[str, Any], fits: Sequence[F]) -> tuple[F, ...]:
    """Return those of the fits of one number of samples that say something of their own: one, where all are the same."""
    return tuple(fits[:1] if fits and fits_once(config, fits[0].samples) else fits)


def table(shots: Sequence[Shot]) -> str:
    """Return a Markdown table of one result, in percent."""
    rows = [[_named(shot), f"{shot.fits[0].images:,}", shot.top1.text(), shot.top5.text()] for shot in shots]
    return markdown(["samples per class", "images", "top-1 %", "top-5 %"], rows)


def comparison_table(pretrained: Sequence[Shot], scratch: Sequence[Shot]) -> str:
    """Return a Markdown table of both, and of the gain draw by draw: the same images are drawn for both."""
    header = ["samples per class", "pretrained top-1 %", "from scratch", "gain", "pretrained top-5 %", "from scratch"]
    rows = [
        [_named(a), a.top1.text(), b.top1.text(), a.gain(b).text(), a.top5.text(), b.top5.text()]
        for a, b in zip(pretrained, scratch, strict=True)
    ]
    return markdown(header, rows)


def _named(shot: Shot) -> str:
    return f"{shot.label}, one fit" if shot.once else shot.label


def caption(config: FinetuneConfig, images: int, classes: int) -> str:
    """Return the sentence below a table: what the numbers are."""
    kind = "as many images, of any class" if config.protocol == "report" else "exactly as many of each class"
    kind = "one a fold" if config.folds else kind
    part = " (always the same part of it)" if config.eval_limit else ""
    shown = f"{images:,} images of {config.eval_split}{part}, {classes} classes, chance {100 / classes:.3g} %"
    return f"{shown}; {draws_text(config)}, {kind}"


def draws_text(config: FinetuneConfig) -> str:
    """Return what means and intervals are of."""
    if config.draws > 1 and all(config.draws_of(k) == 1 for k in config.samples_per_class):
        return "one fit, as another draw would be the same"
    return f"mean ± 95 % interval of {config.draws} draws" if config.draws > 1 else "one draw"
