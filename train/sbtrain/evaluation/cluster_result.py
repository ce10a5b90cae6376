"""Results of a clustering: every start as soon as it is done, means with intervals, a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sbtrain.evaluation.cluster_config import ClusterConfig
from sbtrain.evaluation.few_shot import Interval, interval
from sbtrain.evaluation.results import FitFile, markdown

#: Field of `ClusterFit` -> head of its column.
SCORES = {"nmi": "NMI %", "ami": "AMI %", "ari": "ARI %", "acc": "ACC %"}


@dataclass(frozen=True, kw_only=True)
class ClusterFit:
    """One assignment of the reported images to clusters."""

    draw: int
    nmi: float
    ami: float
    ari: float
    acc: float
    """Share of images whose cluster is matched with their class, one cluster a class."""
    clusters: int
    """That there are."""
    used: int
    """That hold an image."""
    usage_entropy: float
    """Of the clusters' shares, in units of the logarithm of their number: 1 where all hold as many, 0 for one alone."""
    seconds: float


class ClusterFile(FitFile[ClusterConfig, int, ClusterFit]):
    """``results/cluster-….json``: assignments by number of the draw; `config` is settled."""

    kind, fit_type, counts = "cluster", ClusterFit, "contingency"

    def key(self, fit: ClusterFit) -> int:
        """Return the draw."""
        return fit.draw

    def keys(self) -> list[int]:
        """Return the draws that the config asks for."""
        return list(range(self.config.draws))

    def fits(self) -> list[ClusterFit]:
        """Return what the config asks for, all of it done."""
        return [self._fits[draw] for draw in self.keys()]

    def summary(self, fits: Sequence[ClusterFit]) -> dict[str, Any]:
        """Return means with intervals."""
        scores = {name: score_of(fits, name).to_json() for name in (*SCORES, "used", "usage_entropy")}
        return {"clusters": fits[0].clusters, "draws": len(fits), "scores": scores}


def score_of(fits: Sequence[ClusterFit], name: str) -> Interval:
    """Return a score's interval over draws."""
    return interval([float(getattr(fit, name)) for fit in fits])


def cluster_table(results: Sequence[ClusterFile]) -> str:
    """Return a Markdown table, a row a result, scores in percent."""
    rows = []
    for result in results:
        fits = result.fits()
        used, entropy = score_of(fits, "used"), score_of(fits, "usage_entropy")
        weights = "new weights" if result.config.from_scratch else "pretrained"
        scores = [score_of(fits, name).text() for name in SCORES]
        rows.append([weights, *scores, f"{used.mean:g} of {fits[0].clusters}", f"{entropy.mean:.3f}"])
    return markdown(["", *SCORES.values(), "clusters used", "usage entropy"], rows)


def cluster_caption(result: ClusterFile, images: int, classes: int) -> str:
    """Return the sentence below a table: what the numbers are."""
    config, draws = result.config, len(result.fits())
    if config.method == "classifier":
        how = f"classifier {config.classifier}" + (f", mean ± 95 % interval of {draws} weights" if draws > 1 else "")
    else:
        spread = f"mean ± 95 % interval of {draws} starts" if draws > 1 else "one start"
        how = (
            f"k-means on unit features of {config.layer or 'the last layer'}, centers of {config.learn_split}, {spread}"
        )
    return (
        f"{images:,} images of {config.split}, {classes} classes; {how}. NMI and AMI: arithmetic averaging; "
        f"ACC: best matching of clusters with classes; usage entropy: 1 where all clusters hold as many images"
    )
