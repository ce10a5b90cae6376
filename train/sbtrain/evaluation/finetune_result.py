"""Results of fine-tuning: every fit as soon as it is done, means with intervals, Markdown tables.

A file is known by what it was made of: config, run, images, device and versions give its name. So the same command finds
the fits that it has done before, and more samples or draws go into the same file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from sbformat.manifest import json_digest
from sbtrain.evaluation.few_shot import ALL, Interval, interval
from sbtrain.evaluation.finetune_config import FinetuneConfig, fits_once, samples_text
from sbtrain.run_folder import kept_result, write_result
from sbtrain.runtime import RunError

VERSION = 1


class AnyFit(Protocol):
    """What a file has to know of its fits."""

    @property
    def samples(self) -> int:
        """For each class; 0: all."""

    @property
    def draw(self) -> int:
        """Number of the draw."""


F = TypeVar("F", bound=AnyFit)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One classifier."""

    samples: int
    """For each class; 0: all."""
    draw: int
    images: int
    """Labeled images used, those to stop by included."""
    steps: int
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


@dataclass(frozen=True)
class Shot:
    """All draws of one number of samples per class."""

    fits: tuple[Fit, ...]
    once: bool = False
    """The only fit there can be: another draw would be the same one."""

    @property
    def label(self) -> str:
        """``4``, or ``all``."""
        return samples_text(self.fits[0].samples)

    @property
    def top1(self) -> Interval:
        """Of the draws."""
        return interval([fit.top1 for fit in self.fits])

    @property
    def top5(self) -> Interval:
        """Of the draws."""
        return interval([fit.top5 for fit in self.fits])

    def gain(self, control: Shot) -> Interval:
        """Return the interval of the differences in top-1, draw by draw; an only fit stands beside every draw."""
        mine = self.fits * len(control.fits) if self.once else self.fits
        return interval([a.top1 - b.top1 for a, b in zip(mine, control.fits, strict=True)])

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        summary = {"top1": self.top1.to_json(), "top5": self.top5.to_json()}
        return {"samples_per_class": self.label, "images": self.fits[0].images, "draws": len(self.fits), **summary}


class FitFile(Generic[F]):
    """A file of fits in ``results/``: read where it is there, written whole after every one.

    Parameters
    ----------
    run_dir : Path
    config : FinetuneConfig
    about : dict
        Everything else that the numbers depend on, as JSON values.

    Raises
    ------
    RunError
        The file is damaged.
    """

    kind: ClassVar[str]
    """What its name begins with, and its format ends with."""
    fit_type: ClassVar[Any]

    def __init__(self, run_dir: Path, config: FinetuneConfig, about: dict[str, Any]) -> None:
        self.config, self._run_dir = config, run_dir
        fields = {k: v for k, v in config.to_json().items() if k not in ("samples_per_class", "draws")}
        self._head = {"format": f"sbtrain-{self.kind}", "version": VERSION, "config": fields, **about}
        self.name = f"{self.kind}-{config.name}-{json_digest(self._head)[:8]}"
        self.path = run_dir / "results" / f"{self.name}.json"
        self._fits: dict[tuple[int, int], F] = {(fit.samples, fit.draw): fit for fit in self._read()}

    def missing(self) -> list[tuple[int, int]]:
        """Return (samples, draw) of what the config asks for and is not there: one draw after the other."""
        config = self.config
        asked = [
            (k, draw) for draw in range(config.draws) for k in config.samples_per_class if draw < config.draws_of(k)
        ]
        return [key for key in asked if key not in self._fits]

    def add(self, fit: F, confusion: dict[str, Any]) -> None:
        """Take in one fit, and write the file."""
        self._fits[fit.samples, fit.draw] = fit
        write_result(self._run_dir, self.name, self.to_json())

    def asked(self) -> list[tuple[F, ...]]:
        """Return what the config asks for, all draws of one number of samples together."""
        config = self.config
        return [tuple(self._fits[k, draw] for draw in range(config.draws_of(k))) for k in config.samples_per_class]

    def summary(self, fits: tuple[F, ...]) -> dict[str, Any]:
        """Return what the draws of one number of samples say, as JSON values."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """Return everything in the file, fits by number of samples and draw."""
        fits = sorted(self._fits.values(), key=lambda fit: (fit.samples == ALL, fit.samples, fit.draw))
        numbers = dict.fromkeys(fit.samples for fit in fits)
        shots = [
            self.summary(counted(self._head["config"], [fit for fit in fits if fit.samples == k])) for k in numbers
        ]
        return {**self._head, "results": shots, "fits": [asdict(fit) for fit in fits]}  # type: ignore[call-overload]

    def _read(self) -> list[F]:
        self._there = kept_result(self.path, self._head)
        try:
            return [self.fit_type(**fit) for fit in self._there["fits"]]
        except TypeError as error:
            raise RunError(f"{self.path}: not a result of this command ({error}). Move it away") from error


class ResultFile(FitFile[Fit]):
    """``results/finetune-….json``: classifiers of classes."""

    kind, fit_type = "finetune", Fit

    def __init__(self, run_dir: Path, config: FinetuneConfig, about: dict[str, Any]) -> None:
        super().__init__(run_dir, config, about)
        self._confusion: dict[str, Any] | None = self._there.get("confusion")

    def add(self, fit: Fit, confusion: dict[str, Any]) -> None:
        """Take in one fit, and write the file, which keeps the confusion of the newest fit on most samples."""
        if fit.samples == max([*self._fits, (fit.samples, fit.draw)], key=_most)[0]:
            self._confusion = {"samples_per_class": samples_text(fit.samples), "draw": fit.draw, **confusion}
        super().add(fit, confusion)

    def shots(self) -> list[Shot]:
        """Return what the config asks for, every fit of it done."""
        return [Shot(fits, fits_once(self._head["config"], fits[0].samples)) for fits in self.asked()]

    def summary(self, fits: tuple[Fit, ...]) -> dict[str, Any]:
        """Return means with intervals."""
        return Shot(fits, fits_once(self._head["config"], fits[0].samples)).to_json()

    def to_json(self) -> dict[str, Any]:
        """Return everything in the file; files written before there was a confusion have none."""
        return {**super().to_json(), **({} if self._confusion is None else {"confusion": self._confusion})}


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


def markdown(header: list[str], rows: list[list[str]], texts: int = 0) -> str:
    """Return an aligned Markdown table: its first `texts` columns hold words and begin at the left, the others numbers."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        " | ".join(cell.ljust(widths[i]) if i < texts else cell.rjust(widths[i]) for i, cell in enumerate(row))
        for row in [header, *rows]
    ]
    rule = " | ".join("-" * width if i < texts else "-" * (width - 1) + ":" for i, width in enumerate(widths))
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])
