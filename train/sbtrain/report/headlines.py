"""The head of a page: what it is of, its best numbers by name, and runs whose features had collapsed when they ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sbtrain.evaluation.few_shot import ALL, Interval
from sbtrain.report.beside import interval_of
from sbtrain.report.compare import best_shot
from sbtrain.report.document import Highlight
from sbtrain.report.finetuned import Finetuned
from sbtrain.report.layers import neighbors_text, read_probe
from sbtrain.report.runs import Run

#: Method -> its name in a title; a denoising autoencoder is part of the split-brain report.
METHODS = {
    "split_brain": "Split-brain", "denoising": "Split-brain", "simsiam": "SimSiam", "self_classifier": "Self-Classifier",
    "supervised": "Supervised",
}  # fmt: skip


def title_of(runs: Sequence[Run]) -> str:
    """Return the title of a page: the methods of its runs."""
    found = {METHODS.get(str(run.config.get("method")), "") for run in runs} - {""}
    names = [name for name in dict.fromkeys(METHODS.values()) if name in found]
    listed = " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
    return f"{listed} pretraining: what was measured" if names else "Pretraining: what was measured"


def collapsed_remarks(runs: Sequence[Run]) -> list[str]:
    """Return a sentence on each run that was collapsed at its last line."""
    return [f"{run.name}: {run.series.collapsed}" for run in runs if run.series.collapsed]


def highlights_of(runs: Sequence[Run]) -> list[Highlight]:
    """Return the numbers at the head of a page."""
    found = [*_accuracy(runs), *_clusters(runs)]
    speeds = [(speed, run) for run in runs if (speed := run.series.mean("speed.images_per_s")) is not None]
    if speeds:
        speed, run = max(speeds, key=lambda pair: pair[0])
        device = (run.summary or {}).get("device", "unfinished run")
        found.append(Highlight("pretraining, images/s", f"{speed:,.0f}", f"{run.label}; {device}"))
    done = sum(run.summary is not None for run in runs)
    note = "the others are shown as far as they are" if done < len(runs) else "each to its last step"
    found.append(Highlight("runs finished", f"{done} of {len(runs)}", note))
    return found


@dataclass(frozen=True)
class _Measured:
    """An accuracy, by what it was measured, and the same from new weights."""

    top1: Interval
    what: str
    control: Interval | None


def _accuracy(runs: Sequence[Run]) -> list[Highlight]:
    """Return the best top-1 of all evaluations and its control; without those whose interval is wider than they are high."""
    measured = [
        each
        for run in runs
        for each in (*_finetuned(run), *_probed(run))
        if (each.top1.half_width or 0.0) <= each.top1.mean
    ]
    if not measured:
        return []
    best = max(measured, key=lambda each: each.top1.mean)
    found = [Highlight("best top-1", f"{best.top1.text()} %", best.what)]
    if best.control is not None:
        found.append(Highlight("the same from scratch", f"{best.control.text()} %", "the control: new weights"))
    return found


def _finetuned(run: Run) -> Iterator[_Measured]:
    for result in run.finetuned:
        if result.scratch:
            continue
        shot, control = best_shot(result), run.control(result)
        same = next((each for each in control.shots if each.label == shot.label), None) if control else None
        labels = "all labels" if shot.fits[0].samples == ALL else f"{shot.label} labels a class"
        what = f"classifier on {labels} ({result.setting}), {_classes(result)}; {run.name}"
        yield _Measured(shot.top1, what, None if same is None else same.top1)


def _classes(result: Finetuned) -> str:
    return f"{result.classes:,} classes"


def _probed(run: Run) -> Iterator[_Measured]:
    probes = []
    for data in run.probes:
        try:
            probes.append((read_probe(run, data), data))
        except (KeyError, TypeError, ValueError, AttributeError):
            continue  # said where its layers would stand
    for probe, data in probes:
        controls = [each for each, _ in probes if each.scratch and each.key == probe.key]
        beside = _numbers(controls[0].results, controls[0].near) if controls else {}
        for what, top1 in ({} if probe.scratch else _numbers(probe.results, probe.near)).items():
            yield _Measured(top1, f"{what}, {data.get('classes')} classes; {run.name}", beside.get(what))


def _numbers(results: list[dict[str, Any]], near: list[dict[str, Any]]) -> dict[str, Interval]:
    """Return the accuracies of a probe by what they are of."""
    linear = {f"linear probe of {each['layer']}": interval_of(each.get("top1")) for each in results}
    votes = {
        f"nearest neighbors of {each['layer']}, {neighbors_text(each)}": interval_of(
            {"mean": each.get("top1"), "ci95": each.get("top1_ci95")}
        )
        for each in near
    }
    return {what: top1 for what, top1 in (linear | votes).items() if top1 is not None}


def _clusters(runs: Sequence[Run]) -> list[Highlight]:
    """Return the best accuracy of clusters, after matching them with classes."""
    found = []
    for run in runs:
        for data in run.clusterings:
            config, scores = data.get("config"), data.get("scores")
            if not isinstance(config, dict) or not isinstance(scores, dict) or config.get("from_scratch"):
                continue
            if (acc := interval_of(scores.get("acc"))) is not None:
                how = "its own classes" if config.get("method") == "classifier" else "k-means"
                found.append((acc, f"{how}, matched with {data.get('classes')} classes; {run.name}"))
    if not found:
        return []
    acc, what = max(found, key=lambda pair: pair[0].mean)
    return [Highlight("best clusters, ACC", f"{acc.text()} %", what)]
