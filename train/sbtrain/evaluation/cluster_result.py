"""Results of a clustering: every start as soon as it is done, means with intervals, a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sbformat.manifest import json_digest
from sbtrain.evaluation.cluster_config import ClusterConfig
from sbtrain.evaluation.few_shot import Interval, interval
from sbtrain.evaluation.finetune_result import markdown
from sbtrain.run_folder import kept_result, write_result
from sbtrain.runtime import RunError

FORMAT = "sbtrain-cluster"
VERSION = 1
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


class ClusterFile:
    """``results/cluster-….json``: read where it is there, written whole after every start.

    Parameters
    ----------
    run_dir : Path
    config : ClusterConfig
        Settled.
    about : dict
        Everything else that the numbers depend on, as JSON values.

    Raises
    ------
    RunError
        The file is damaged.
    """

    def __init__(self, run_dir: Path, config: ClusterConfig, about: dict[str, Any]) -> None:
        self.config, self._run_dir = config, run_dir
        fields = {name: value for name, value in config.to_json().items() if name != "draws"}
        self._head = {"format": FORMAT, "version": VERSION, "config": fields, **about}
        self.name = f"{config.name}-{json_digest(self._head)[:8]}"
        self.path = run_dir / "results" / f"{self.name}.json"
        there = kept_result(self.path, self._head)
        self._contingency: dict[str, Any] | None = there.get("contingency")
        try:
            self._fits = {fit["draw"]: ClusterFit(**fit) for fit in there["fits"]}
        except (TypeError, KeyError) as error:
            raise RunError(f"{self.path}: not a result of this command ({error}). Move it away") from error

    def missing(self) -> list[int]:
        """Return the draws that the config asks for and that are not there."""
        return [draw for draw in range(self.config.draws) if draw not in self._fits]

    def add(self, fit: ClusterFit, contingency: dict[str, Any] | None) -> None:
        """Take in one assignment, and write the file, which keeps the counts of the newest one."""
        self._fits[fit.draw], self._contingency = fit, contingency
        write_result(self._run_dir, self.name, self.to_json())

    def fits(self) -> list[ClusterFit]:
        """Return what the config asks for, all of it done."""
        return [self._fits[draw] for draw in range(self.config.draws)]

    def to_json(self) -> dict[str, Any]:
        """Return everything in the file."""
        fits = [self._fits[draw] for draw in sorted(self._fits)]
        names = (*SCORES, "used", "usage_entropy")
        scores = {name: score_of(fits, name).to_json() for name in names}
        counts = {} if self._contingency is None else {"contingency": self._contingency}
        return {
            **self._head, "clusters": fits[0].clusters, "draws": len(fits), "scores": scores,
            "fits": [asdict(fit) for fit in fits], **counts,
        }  # fmt: skip


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
