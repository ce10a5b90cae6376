"""What a clustering is asked to do: one frozen value, checked where it is made, stored with the result."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from sbformat.errors import ConfigError
from sbtrain.config import Precision, check_number
from sbtrain.methods import Method, SelfClassifier

Assignment = Literal["auto", "classifier", "kmeans"]
#: Fields that the other kind of assignment does without.
_OF = {"classifier": ("classifier",), "kmeans": ("clusters", "layer", "pool", "learn_split")}
_LEAST = {"classifier": 0, "clusters": 0, "pool": 0, "draws": 1, "limit": 0}


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Every option of ``sbtrain cluster`` that a result depends on.

    Raises
    ------
    ConfigError
        A value out of range.
    """

    method: Assignment = "auto"
    """Who says which cluster an image belongs to: a classifier of the run, or k-means on its features; auto: the
    classifier where the run has one."""
    classifier: int = 0
    """Which of Self-Classifier's, from 0 on."""
    clusters: int = 0
    """k-means: how many; 0: as many as there are classes."""
    layer: str | None = None
    """k-means: layer of the run's network; None: the last one."""
    pool: int = 1
    """k-means: average the layer to pool x pool cells; 0: as it is."""
    learn_split: str = "train"
    """k-means: images that the centers are means of; their labels are not looked at."""
    draws: int = 5
    """Starts of k-means, or new weights; a trained classifier needs one."""
    from_scratch: bool = False
    """New weights instead of the run's: the control."""
    center: float = 1.0
    """Of the sides, the part around the center that is seen: 0.875 for "resize to 256, crop 224"."""
    seed: int = 0
    precision: Precision = "auto"
    split: str = "test"
    """Images that are reported; they choose nothing."""
    limit: int = 0
    """Report this many of them, the same ones always; 0: all."""

    def __post_init__(self) -> None:
        if self.method not in get_args(Assignment):
            raise ConfigError(f"method {self.method!r}, expected one of {', '.join(get_args(Assignment))}")
        for field in fields(self):
            check_number(field.name, getattr(self, field.name))
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} {getattr(self, name)}, expected {least} or more")
        if self.clusters == 1:
            raise ConfigError("clusters 1, expected 2 or more, or 0 for the number of classes")
        if not 0 < self.center <= 1:
            raise ConfigError(f"center {self.center}, expected a part of the sides, more than 0 and at most 1")

    def settled(self, method: Method) -> ClusterConfig:
        """Return what is done with a method: who assigns, and nothing that he does without.

        Raises
        ------
        ConfigError
            The method has no classifier, or not that many; or k-means would learn from the reported images.
        """
        kind = self.method
        if kind == "auto":
            kind = "classifier" if isinstance(method, SelfClassifier) else "kmeans"
        if kind == "classifier":
            _check_classifier(method, self.classifier)
        elif self.learn_split == self.split:
            raise ConfigError(
                f"learn_split and split are both {self.split}: reported images would be what centers are means of. Use "
                f"another --learn-split"
            )
        unused = _OF["kmeans" if kind == "classifier" else "classifier"]
        default: dict[str, Any] = {field.name: field.default for field in fields(self) if field.name in unused}
        draws = 1 if kind == "classifier" and not self.from_scratch else self.draws
        return replace(self, method=kind, draws=draws, **default)

    @property
    def name(self) -> str:
        """Part of a result's name, such as ``test-kmeans``."""
        return "-".join([self.split, self.method, *(["scratch"] if self.from_scratch else [])])

    @property
    def splits(self) -> ClusterSplits:
        """The images that it is about."""
        learned = self.learn_split if self.method == "kmeans" else self.split
        return ClusterSplits(learned, self.split, self.limit, self.from_scratch)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class ClusterSplits:
    """As `sbtrain.evaluation.pretrained.Splits`."""

    split: str
    eval_split: str
    eval_limit: int
    from_scratch: bool


def _check_classifier(method: Method, number: int) -> None:
    if not isinstance(method, SelfClassifier):
        raise ConfigError(
            "method classifier, but this run's method has no classes of its own: only self_classifier has. "
            "Use --method kmeans"
        )
    last = len(method.counts) - 1
    if number > last:
        there = f"{last + 1}. Use --classifier 0 to {last}" if last else "one. Use --classifier 0"
        raise ConfigError(f"classifier {number}, this run has {there}")
