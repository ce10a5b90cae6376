"""Results of a probe: every layer as soon as it is done, means with intervals, Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbtrain.evaluation.neighbors import FEW, WEIGHTED, Vote
from sbtrain.evaluation.probe_config import ProbeConfig
from sbtrain.evaluation.results import Draws, FitFile, markdown


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
class Layer(Draws[LayerFit]):
    """All draws of one layer."""

    @property
    def name(self) -> str:
        """Of the layer."""
        return self.fits[0].layer

    @property
    def votes(self) -> list[Vote]:
        """Kinds of votes that were counted."""
        return [found.vote for found in self.fits[0].neighbors]

    def neighbors(self, vote: Vote) -> Draws[Neighbors]:
        """Return what a vote got right, draw by draw; one that is the same in every draw counts once."""
        return Draws(tuple(found for fit in self.fits for found in fit.neighbors if found.vote == vote))

    def to_json(self) -> dict[str, Any]:
        """Return the classifiers' summary as JSON values."""
        first = self.fits[0]
        shape = {"layer": first.layer, "features": first.features, "cells": first.cells, "images": first.images}
        return {**shape, "draws": len(self.fits), "top1": self.top1.to_json(), "top5": self.top5.to_json()}

    def neighbors_json(self) -> list[dict[str, Any]]:
        """Return the votes' summary as JSON values, one a vote."""
        judged = {vote: self.neighbors(vote) for vote in self.votes}
        return [
            {
                "layer": self.name, "k": vote.k, "temperature": vote.temperature, "draws": len(draws.fits),
                "top1": draws.top1.mean, "top1_ci95": draws.top1.half_width, "top5": draws.top5.mean,
            }
            for vote, draws in judged.items()
        ]  # fmt: skip


def _fit(neighbors: list[dict[str, Any]], **fields: Any) -> LayerFit:
    return LayerFit(neighbors=tuple(Neighbors(**found) for found in neighbors), **fields)


class ProbeFile(FitFile[ProbeConfig, tuple[str, int], LayerFit]):
    """``results/probe-….json``: fits by layer and draw.

    Parameters
    ----------
    run_dir, config, about
        As of `FitFile`.
    layers : sequence of str
        Every layer of the network, from input to output; `config` may ask for some of them.
    """

    kind, fit_type, amounts = "probe", staticmethod(_fit), ("layers", "draws")

    def __init__(self, run_dir: Path, config: ProbeConfig, layers: Sequence[str], about: dict[str, Any]) -> None:
        self._order = list(layers)
        super().__init__(run_dir, config, about)

    @property
    def asked(self) -> list[str]:
        """Layers that the config asks for, from input to output."""
        return [layer for layer in self._order if layer in (self.config.layers or self._order)]

    def key(self, fit: LayerFit) -> tuple[str, int]:
        """Return layer and draw."""
        return fit.layer, fit.draw

    def keys(self) -> list[tuple[str, int]]:
        """Return (layer, draw) of all fits that the config asks for: one layer after the other."""
        return [(layer, draw) for layer in self.asked for draw in range(self.config.draws)]

    def place(self, key: tuple[str, int]) -> Any:
        """Return what fits are sorted by: layers from input to output."""
        return self._order.index(key[0]), key[1]

    def layers(self) -> list[Layer]:
        """Return what the config asks for, every fit of it done."""
        return [Layer(tuple(self._fits[layer, draw] for draw in range(self.config.draws))) for layer in self.asked]

    def summary(self, fits: Sequence[LayerFit]) -> dict[str, Any]:
        """Return what is said of each layer, by classifiers and by neighbors."""
        layers = [
            Layer(tuple(fit for fit in fits if fit.layer == name)) for name in dict.fromkeys(f.layer for f in fits)
        ]
        neighbors = [found for layer in layers for found in layer.neighbors_json()]
        return {"results": [layer.to_json() for layer in layers], "neighbors": neighbors}


def table(layers: Sequence[Layer]) -> str:
    """Return a Markdown table of one result, in percent."""
    votes = layers[0].votes
    rows = [
        [
            layer.name,
            f"{layer.fits[0].features:,}",
            layer.top1.text(),
            layer.top5.text(),
            *(layer.neighbors(vote).top1.text() for vote in votes),
        ]
        for layer in layers
    ]
    return markdown(["layer", "features", "linear top-1 %", "top-5 %", *map(_heading, votes)], rows)


def comparison_table(ours: Sequence[Layer], control: Sequence[Layer], per_class: float) -> str:
    """Return a Markdown table of both, and of the gains; `per_class` labeled images a class are the neighbors."""
    vote = WEIGHTED if per_class >= WEIGHTED.k else FEW  # more neighbors than a class has would be of other classes
    header = ["layer", "linear top-1 %", "new weights", "gain", _heading(vote), "new weights", "gain"]
    rows = []
    for a, b in zip(ours, control, strict=True):
        neighbors = _beside(a.neighbors(vote), b.neighbors(vote))
        rows.append([a.name, *_beside(a, b), *neighbors])
    return markdown(header, rows)


def caption(config: ProbeConfig, images: int, classes: int, labeled: int) -> str:
    """Return the sentence below a table: what the numbers are."""
    draws = f"mean ± 95 % interval of {config.draws} draws" if config.draws > 1 else "one draw"
    return (
        f"{images:,} images of {config.eval_split}, {classes} classes, chance {100 / classes:.3g} %; {labeled:,} labeled "
        f"images of {config.split}, {draws}; kNN by cosine of the layer's means over cells"
    )


def _beside(ours: Draws[Any], control: Draws[Any]) -> list[str]:
    return [ours.top1.text(), control.top1.text(), ours.gain(control).text()]


def _heading(vote: Vote) -> str:
    return f"{vote.k}-NN top-1 %" + ("" if vote.temperature is None else f" (t = {vote.temperature:g})")
