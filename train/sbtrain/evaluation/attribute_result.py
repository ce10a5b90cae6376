"""Results of fine-tuning on attributes: ``results/attributes-….json`` and its Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sbtrain.evaluation.attributes import AttributeScores
from sbtrain.evaluation.few_shot import Interval, gain, interval
from sbtrain.evaluation.finetune_config import FinetuneConfig, samples_text
from sbtrain.evaluation.finetune_result import Drawn, FinetuneFile, draws_text
from sbtrain.evaluation.results import markdown

#: Field of `AttributeScores` -> head of its column.
METRICS = {
    "jaccard_macro": "Jaccard macro %",
    "jaccard_micro": "Jaccard micro %",
    "accuracy": "accuracy %",
    "auc_macro": "AUC macro %",
    "auc_micro": "AUC micro %",
}


@dataclass(frozen=True, kw_only=True)
class AttributeFit(Drawn, AttributeScores):
    """One classifier of attributes and its scores."""

    seconds: float
    held_out: int = 0
    """Of `images`, those to stop by; 0: a fixed number of steps."""

    def text(self) -> str:
        """Return the scores in words."""
        return f"Jaccard macro {self.jaccard_macro:.2%}, micro {self.jaccard_micro:.2%}, accuracy {self.accuracy:.2%}"


Fits = tuple[AttributeFit, ...]


class AttributeFile(FinetuneFile[AttributeFit]):
    """``results/attributes-….json``."""

    kind, fit_type = "attributes", AttributeFit

    def of_draws(self, fits: Fits) -> dict[str, Any]:
        """Return means with intervals, as JSON values; None of a score that is not defined."""
        found = {name: score_of(fits, name) for name in METRICS}
        scores = {name: None if value is None else value.to_json() for name, value in found.items()}
        asked = {"samples": samples_text(fits[0].samples), "images": fits[0].images, "draws": len(fits)}
        return {**asked, **scores, "auc_left_out": fits[0].auc_left_out}


def score_of(fits: Fits, name: str) -> Interval | None:
    """Return a score's interval over draws; None where it is not defined."""
    values = [asdict(fit)[name] for fit in fits]
    return None if None in values else interval(values)


def attribute_table(shots: Sequence[Fits]) -> str:
    """Return a Markdown table of one result, in percent."""
    rows = [
        [samples_text(fits[0].samples), f"{fits[0].images:,}", *(_text(score_of(fits, name)) for name in METRICS)]
        for fits in shots
    ]
    return markdown(["samples", "images", *METRICS.values()], rows)


def attribute_comparison(pretrained: Sequence[Fits], scratch: Sequence[Fits]) -> str:
    """Return a Markdown table of both, and of the gain draw by draw: the same images are drawn for both."""
    rows = [
        [
            f"{ours[0].images:,}", head.removesuffix(" %"), _text(score_of(ours, name)),
            _text(score_of(control, name)), _text(_gain(ours, control, name)),
        ]
        for ours, control in zip(pretrained, scratch, strict=True)
        for name, head in METRICS.items()
    ]  # fmt: skip
    return markdown(["images", "score", "pretrained %", "from scratch", "gain"], rows)


def attribute_caption(config: FinetuneConfig, images: int, fits: Fits) -> str:
    """Return the sentence below a table: what the numbers are."""
    left_out = fits[0].auc_left_out
    curves = f"; AUC macro leaves out {left_out} that all of these images have or none" if left_out else ""
    part = " (always the same part of it)" if config.eval_limit else ""
    return (
        f"{images:,} images of {config.eval_split}{part}; {draws_text(config)}. Jaccard: said and true / said or true, "
        f"macro: mean over attributes; micro: over all answers{curves}"
    )


def _gain(ours: Fits, control: Fits, name: str) -> Interval | None:
    mine, theirs = ([asdict(fit)[name] for fit in fits] for fits in (ours, control))
    return None if None in [*mine, *theirs] else gain(mine, theirs)


def _text(value: Interval | None) -> str:
    return "–" if value is None else value.text()
