"""Results of a probe: every layer as soon as it is done, means with intervals, Markdown tables.

Like results of fine-tuning a file is known by what it was made of, so that the same command finds what it has done before,
and more layers or draws go into the same file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sbformat.manifest import json_digest
from sbtrain.evaluation.few_shot import Interval, interval
from sbtrain.evaluation.finetune_result import markdown
from sbtrain.evaluation.neighbors import WEIGHTED, Vote
from sbtrain.evaluation.probe_config import ProbeConfig
from sbtrain.run_folder import kept_result, write_result
from sbtrain.runtime import RunError

FORMAT = "sbtrain-probe"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Neighbors:
    """What one vote of nearest neighbors got right."""

    k: int
    temperature: float | None
    top1: float
    top5: float

    @property
    def vote(self) -> Vote:
        """Its kind."""
        return Vote(self.k, self.temperature)


@dataclass(frozen=True, kw_only=True)
class LayerFit:
    """One linear classifier on one layer, and the nearest neighbors of the same labels."""

    layer: str
    draw: int
    features: int
    """That the classifier sees."""
    cells: int
    """Of these, along a side of the resized maps."""
    images: int
    """Labeled images used."""
    steps: int
    top1: float
    top5: float
    seconds: float
    """Features included where they were computed for this draw."""
    neighbors: tuple[Neighbors, ...]
    """Empty where they would be the same as in draw 0."""


@dataclass(frozen=True)
class Layer:
    """All draws of one layer."""

    fits: tuple[LayerFit, ...]

    @property
    def name(self) -> str:
        """Of the layer."""
        return self.fits[0].layer

    @property
    def top1(self) -> Interval:
        """Of the classifiers."""
        return interval([fit.top1 for fit in self.fits])

    @property
    def top5(self) -> Interval:
        """Of the classifiers."""
        return interval([fit.top5 for fit in self.fits])

    @property
    def votes(self) -> list[Vote]:
        """Kinds of votes that were counted."""
        return [found.vote for found in self.fits[0].neighbors]

    def of(self, vote: Vote) -> list[Neighbors]:
        """Return what a vote got right, draw by draw."""
        return [found for fit in self.fits for found in fit.neighbors if found.vote == vote]

    def neighbors(self, vote: Vote) -> Interval:
        """Return the interval of a vote's top-1."""
        return interval([found.top1 for found in self.of(vote)])

    def gain(self, control: Layer) -> Interval:
        """Return the interval of the classifiers' differences in top-1, draw by draw."""
        return interval([a.top1 - b.top1 for a, b in zip(self.fits, control.fits, strict=True)])

    def neighbor_gain(self, control: Layer, vote: Vote) -> Interval:
        """Return the interval of a vote's differences in top-1; one that is the same in every draw counts in each."""
        ours, theirs = self.of(vote), control.of(vote)
        ours = ours * len(theirs) if len(ours) == 1 else ours
        return interval([a.top1 - b.top1 for a, b in zip(ours, theirs, strict=True)])

    def to_json(self) -> dict[str, Any]:
        """Return the classifiers' summary as JSON values."""
        first = self.fits[0]
        shape = {"layer": first.layer, "features": first.features, "cells": first.cells, "images": first.images}
        return {**shape, "draws": len(self.fits), "top1": self.top1.to_json(), "top5": self.top5.to_json()}

    def neighbors_json(self) -> list[dict[str, Any]]:
        """Return the votes' summary as JSON values, one a vote."""
        return [
            {
                "layer": self.name, "k": vote.k, "temperature": vote.temperature, "draws": len(self.of(vote)),
                "top1": self.neighbors(vote).mean, "top1_ci95": self.neighbors(vote).half_width,
                "top5": interval([found.top5 for found in self.of(vote)]).mean,
            }
            for vote in self.votes
        ]  # fmt: skip


class ProbeFile:
    """``results/probe-….json``: read where it is there, written whole after every classifier.

    Parameters
    ----------
    run_dir : Path
    config : ProbeConfig
    layers : sequence of str
        Every layer of the network, from input to output; `config` may ask for some of them.
    about : dict
        Everything else that the numbers depend on, as JSON values.

    Raises
    ------
    RunError
        The file is damaged.
    """

    def __init__(self, run_dir: Path, config: ProbeConfig, layers: Sequence[str], about: dict[str, Any]) -> None:
        self.config, self._run_dir, self._order = config, run_dir, list(layers)
        fields = {name: value for name, value in config.to_json().items() if name not in ("layers", "draws")}
        self._head = {"format": FORMAT, "version": VERSION, "config": fields, **about}
        self.name = f"{config.name}-{json_digest(self._head)[:8]}"
        self.path = run_dir / "results" / f"{self.name}.json"
        try:
            fits = [_fit(**fit) for fit in kept_result(self.path, self._head)["fits"]]
        except TypeError as error:
            raise RunError(f"{self.path}: not a result of this command ({error}). Move it away") from error
        self._fits = {(fit.layer, fit.draw): fit for fit in fits}

    @property
    def asked(self) -> list[str]:
        """Layers that the config asks for, from input to output."""
        return [layer for layer in self._order if layer in (self.config.layers or self._order)]

    def missing(self) -> list[tuple[str, int]]:
        """Return (layer, draw) of what the config asks for and is not there: one layer after the other."""
        asked = [(layer, draw) for layer in self.asked for draw in range(self.config.draws)]
        return [key for key in asked if key not in self._fits]

    def add(self, fit: LayerFit) -> None:
        """Take in one fit, and write the file."""
        self._fits[fit.layer, fit.draw] = fit
        write_result(self._run_dir, self.name, self.to_json())

    def layers(self) -> list[Layer]:
        """Return what the config asks for, every fit of it done."""
        return [Layer(tuple(self._fits[layer, draw] for draw in range(self.config.draws))) for layer in self.asked]

    def to_json(self) -> dict[str, Any]:
        """Return everything in the file, fits by layer and draw."""
        fits = sorted(self._fits.values(), key=lambda fit: (self._order.index(fit.layer), fit.draw))
        layers = [
            Layer(tuple(fit for fit in fits if fit.layer == name)) for name in dict.fromkeys(f.layer for f in fits)
        ]
        results = {"results": [layer.to_json() for layer in layers]}
        neighbors = {"neighbors": [found for layer in layers for found in layer.neighbors_json()]}
        return {**self._head, **results, **neighbors, "fits": [asdict(fit) for fit in fits]}


def table(layers: Sequence[Layer]) -> str:
    """Return a Markdown table of one result, in percent."""
    votes = layers[0].votes
    rows = [
        [
            layer.name,
            f"{layer.fits[0].features:,}",
            layer.top1.text(),
            layer.top5.text(),
            *(layer.neighbors(vote).text() for vote in votes),
        ]
        for layer in layers
    ]
    return markdown(["layer", "features", "linear top-1 %", "top-5 %", *map(_heading, votes)], rows)


def comparison_table(ours: Sequence[Layer], control: Sequence[Layer]) -> str:
    """Return a Markdown table of both, and of the gains."""
    header = ["layer", "linear top-1 %", "new weights", "gain", _heading(WEIGHTED), "new weights", "gain"]
    rows = [
        [
            a.name, a.top1.text(), b.top1.text(), a.gain(b).text(), a.neighbors(WEIGHTED).text(),
            b.neighbors(WEIGHTED).text(), a.neighbor_gain(b, WEIGHTED).text(),
        ]
        for a, b in zip(ours, control, strict=True)
    ]  # fmt: skip
    return markdown(header, rows)


def caption(config: ProbeConfig, images: int, classes: int, labeled: int) -> str:
    """Return the sentence below a table: what the numbers are."""
    draws = f"mean ± 95 % interval of {config.draws} draws" if config.draws > 1 else "one draw"
    return (
        f"{images:,} images of {config.eval_split}, {classes} classes, chance {100 / classes:.3g} %; {labeled:,} labeled "
        f"images of {config.split}, {draws}; kNN by cosine of the layer's means over cells"
    )


def _heading(vote: Vote) -> str:
    return f"{vote.k}-NN top-1 %" + ("" if vote.temperature is None else f" (t = {vote.temperature:g})")


def _fit(neighbors: list[dict[str, Any]], **fields: Any) -> LayerFit:
    return LayerFit(neighbors=tuple(Neighbors(**found) for found in neighbors), **fields)
