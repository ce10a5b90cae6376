"""Results of fine-tuning: every draw, mean and interval, as JSON and as Markdown tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sbtrain.few_shot import Interval, interval
from sbtrain.finetune_config import FinetuneConfig

FORMAT = "sbtrain-finetune"
VERSION = 1


@dataclass(frozen=True)
class Shot:
    """All draws of one number of samples per class."""

    samples: int
    """For each class; 0: all."""
    images: int
    """Labeled images used, those to stop by included."""
    steps: tuple[int, ...]
    top1: tuple[float, ...]
    """Share of images whose class is the best, one value a draw."""
    top5: tuple[float, ...]
    """Share of images whose class is among the best five."""

    @property
    def label(self) -> str:
        """``4``, or ``all``."""
        return str(self.samples) if self.samples else "all"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, with mean and interval."""
        return {
            "samples_per_class": self.samples or "all",
            "images": self.images,
            "steps": list(self.steps),
            "top1": {**interval(self.top1).to_json(), "draws": list(self.top1)},
            "top5": {**interval(self.top5).to_json(), "draws": list(self.top5)},
        }


@dataclass(frozen=True, kw_only=True)
class FinetuneResult:
    """What ``results/finetune-*.json`` says."""

    config: FinetuneConfig
    run: dict[str, Any]
    """The pretraining run: step of its checkpoint, its config, record of its images."""
    data: dict[str, Any]
    """Records of the labeled and of the reported split."""
    classes: int
    eval_images: int
    shots: tuple[Shot, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "config": self.config.to_json(),
            "run": self.run,
            "data": self.data,
            "classes": self.classes,
            "eval_images": self.eval_images,
            "chance": 1 / self.classes,
            "results": [shot.to_json() for shot in self.shots],
            "seconds": self.seconds,
        }


def table(result: FinetuneResult) -> str:
    """Return a Markdown table of one result, in percent."""
    rows = [
        [shot.label, f"{shot.images:,}", interval(shot.top1).text(), interval(shot.top5).text()] for shot in result.shots
    ]
    return markdown(["samples per class", "images", "top-1 %", "top-5 %"], rows)


def comparison_table(pretrained: FinetuneResult, scratch: FinetuneResult) -> str:
    """Return a Markdown table of both, and of the gain draw by draw: the same images are drawn for both."""
    rows = []
    for ours, control in zip(pretrained.shots, scratch.shots, strict=True):
        a, b = interval(ours.top1), interval(control.top1)
        gain = gains(ours, control)
        rows.append([ours.label, a.text(), b.text(), gain.text(), interval(ours.top5).text(), interval(control.top5).text()])
    header = ["samples per class", "pretrained top-1 %", "from scratch", "gain", "pretrained top-5 %", "from scratch"]
    return markdown(header, rows)


def gains(ours: Shot, control: Shot) -> Interval:
    """Return the interval of the differences in top-1, draw by draw."""
    return interval([a - b for a, b in zip(ours.top1, control.top1, strict=True)])


def caption(result: FinetuneResult) -> str:
    """Return the sentence below a table: what the numbers are."""
    config = result.config
    n = config.draws
    return (
        f"{result.eval_images:,} images of {config.eval_split}, {result.classes} classes, chance {100 / result.classes:.3g} %; "
        + (f"mean ± 95 % interval of {n} draws" if n > 1 else "one draw")
        + (", unbalanced as in the report" if config.protocol == "report" else ", exactly as many of each class")
    )


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return an aligned Markdown table."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [" | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    rule = " | ".join("-" * (width - 1) + ":" for width in widths)
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])
