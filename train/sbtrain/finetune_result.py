"""Results of fine-tuning: every fit as soon as it is done, means with intervals, Markdown tables.

A file is known by what it was made of: config, run, images, device and versions give its name. So the same command finds
the fits that it has done before, and more samples or draws go into the same file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sbformat.manifest import json_digest
from sbtrain.few_shot import ALL, Interval, interval
from sbtrain.finetune_config import FinetuneConfig, samples_text
from sbtrain.run_folder import kept_result, write_result
from sbtrain.runtime import RunError

FORMAT = "sbtrain-finetune"
VERSION = 1


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


@dataclass(frozen=True)
class Shot:
    """All draws of one number of samples per class."""

    fits: tuple[Fit, ...]

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
        """Return the interval of the differences in top-1, draw by draw."""
        return interval([a.top1 - b.top1 for a, b in zip(self.fits, control.fits, strict=True)])

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        summary = {"top1": self.top1.to_json(), "top5": self.top5.to_json()}
        return {"samples_per_class": self.label, "images": self.fits[0].images, "draws": len(self.fits), **summary}


class ResultFile:
    """``results/finetune-….json``: read where it is there, written whole after every fit.

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

    def __init__(self, run_dir: Path, config: FinetuneConfig, about: dict[str, Any]) -> None:
        self.config, self._run_dir = config, run_dir
        fields = {k: v for k, v in config.to_json().items() if k not in ("samples_per_class", "draws")}
        self._head = {"format": FORMAT, "version": VERSION, "config": fields, **about}
        self.name = f"{config.name}-{json_digest(self._head)[:8]}"
        self.path = run_dir / "results" / f"{self.name}.json"
        self._confusion: dict[str, Any] | None = None
        self._fits = {(fit.samples, fit.draw): fit for fit in self._read()}

    def missing(self) -> list[tuple[int, int]]:
        """Return (samples, draw) of what the config asks for and is not there: one draw after the other."""
        asked = [(k, draw) for draw in range(self.config.draws) for k in self.config.samples_per_class]
        return [key for key in asked if key not in self._fits]

    def add(self, fit: Fit, confusion: dict[str, Any]) -> None:
        """Take in one fit, and write the file, which keeps the confusion of the newest fit on most samples."""
        self._fits[fit.samples, fit.draw] = fit
        if fit.samples == max(self._fits, key=_most)[0]:
            self._confusion = {"samples_per_class": samples_text(fit.samples), "draw": fit.draw, **confusion}
        write_result(self._run_dir, self.name, self.to_json())

    def shots(self) -> list[Shot]:
        """Return what the config asks for, every fit of it done."""
        draws = range(self.config.draws)
        return [Shot(tuple(self._fits[k, draw] for draw in draws)) for k in self.config.samples_per_class]

    def to_json(self) -> dict[str, Any]:
        """Return everything in the file, fits by number of samples and draw."""
        fits = sorted(self._fits.values(), key=lambda fit: (fit.samples == ALL, fit.samples, fit.draw))
        numbers = dict.fromkeys(fit.samples for fit in fits)
        shots = [Shot(tuple(fit for fit in fits if fit.samples == k)) for k in numbers]
        # Files written before there was a confusion have none.
        confusion = {} if self._confusion is None else {"confusion": self._confusion}
        results = {"results": [shot.to_json() for shot in shots], "fits": [asdict(fit) for fit in fits]}
        return {**self._head, **results, **confusion}

    def _read(self) -> list[Fit]:
        data = kept_result(self.path, self._head)
        self._confusion = data.get("confusion")
        try:
            return [Fit(**fit) for fit in data["fits"]]
        except TypeError as error:
            raise RunError(f"{self.path}: not a result of this command ({error}). Move it away") from error


def _most(key: tuple[int, int]) -> tuple[bool, int]:
    return key[0] == ALL, key[0]


def table(shots: Sequence[Shot]) -> str:
    """Return a Markdown table of one result, in percent."""
    rows = [[shot.label, f"{shot.fits[0].images:,}", shot.top1.text(), shot.top5.text()] for shot in shots]
    return markdown(["samples per class", "images", "top-1 %", "top-5 %"], rows)


def comparison_table(pretrained: Sequence[Shot], scratch: Sequence[Shot]) -> str:
    """Return a Markdown table of both, and of the gain draw by draw: the same images are drawn for both."""
    header = ["samples per class", "pretrained top-1 %", "from scratch", "gain", "pretrained top-5 %", "from scratch"]
    rows = [
        [a.label, a.top1.text(), b.top1.text(), a.gain(b).text(), a.top5.text(), b.top5.text()]
        for a, b in zip(pretrained, scratch, strict=True)
    ]
    return markdown(header, rows)


def caption(config: FinetuneConfig, images: int, classes: int) -> str:
    """Return the sentence below a table: what the numbers are."""
    draws = f"mean ± 95 % interval of {config.draws} draws" if config.draws > 1 else "one draw"
    kind = "as many images, of any class" if config.protocol == "report" else "exactly as many of each class"
    part = " (always the same part of it)" if config.eval_limit else ""
    return f"{images:,} images of {config.eval_split}{part}, {classes} classes, chance {100 / classes:.3g} %; {draws}, {kind}"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return an aligned Markdown table."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [" | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    rule = " | ".join("-" * (width - 1) + ":" for width in widths)
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])
