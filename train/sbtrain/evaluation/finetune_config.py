"""What a fine-tuning is asked to do: one frozen value, checked where it is made, stored with the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sbformat.errors import ConfigError
from sbtrain.config import Precision, check_number
from sbtrain.evaluation.few_shot import ALL, Protocol, held_count
from sbtrain.evaluation.folds import FOLDS
from sbtrain.optim import Optimizer, Schedule

Head = Literal["random", "normal", "ridge"]
Augmentation = Literal["none", "crop_flip", "crop_flip_report"]
#: Fields that came after the first results: left out of a result where they say what was always done, so that the same
#: command still finds it.
_LATER = {"augmentation": "none", "center": 1.0}
_LEAST = {"draws": 1, "pool": 0, "epochs": 1, "min_steps": 1, "batch_size": 2, "eval_limit": 0}


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Every option of ``sbtrain finetune`` that a result depends on.

    Raises
    ------
    ConfigError
        A value out of range.
    """

    samples_per_class: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, ALL)
    """Labeled images of each class; 0: all."""
    draws: int = 5
    """Subsets, and initial weights, for each number of samples."""
    protocol: Protocol = "balanced"
    """balanced: exactly that many of each class; report: as many in all, whatever their classes."""
    from_scratch: bool = False
    """The same network with new weights: the control."""
    freeze: bool = False
    """Train the classifier alone."""
    layer: str | None = None
    """Layer of both halves that the classifier sees; None: the output maps, as in the report."""
    pool: int = 0
    """Average the layer to pool x pool cells; 0: as it is, as in the report."""
    standardize: bool = True
    """Features to mean 0 and variance 1 over the batch, as in the original paper's linear tests. Output maps are log-odds,
    most of them far below 0, and what they share drowns what tells images apart."""
    head: Head = "random"
    """Weights of the classifier to begin with: random; ``normal``: of deviation 0.01 without bias, as the linear tests of
    SimSiam and Self-Classifier have it; or those of ridge regression on the drawn images' features, which is the whole fit
    where `freeze` is set (A. Kumar et al., ICLR 2022, on why to solve the head first)."""
    augmentation: Augmentation = "none"
    """What a fit learns from: the images as they are, or their views, other ones in every pass: ``crop_flip``: crops of
    (0.08, 1) of the area, mirrored or not; ``crop_flip_report``: of (0.8, 1.2), as the SimSiam report's code has it.
    With `freeze` the network looks at each of them, in its eval mode."""
    center: float = 1.0
    """Of the sides, the part around the center that reported images are seen by: 0.875 for "resize to 256, crop 224"."""
    epochs: int = 8
    """Passes over the drawn images."""
    min_steps: int = 40
    """More passes, where the drawn images are so few that `epochs` of them are fewer steps."""
    batch_size: int = 32
    optimizer: Optimizer = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"
    decay: float = 0.5
    """epoch-decay: factor after every pass over the drawn images."""
    hold_out: float = 0.0
    """Share of each class's samples to stop by instead of to learn from; 0: every fit runs its fixed number of steps."""
    seed: int = 0
    precision: Precision = "auto"
    split: str = "train"
    eval_split: str = "val"
    eval_limit: int = 0
    """Report this many images of `eval_split`, the same ones always, for networks that are slow; 0: all."""
    folds: Path | None = None
    """File of ten subsets of `split`, STL-10's ``fold_indices.txt``: draw d learns from subset d."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if get_origin(hint) is Literal and value not in get_args(hint):
                raise ConfigError(f"{name} {value!r}, expected one of {', '.join(get_args(hint))}")
            check_number(name, value)
        if not self.samples_per_class or min(self.samples_per_class) < 0:
            raise ConfigError(f"samples per class {self.samples_per_class}, expected numbers from 1 on, or all")
        if self.folds and (self.samples_per_class != (ALL,) or self.draws > FOLDS):
            raise ConfigError(
                f"{self.draws} draws of {', '.join(map(samples_text, self.samples_per_class))} samples, but folds say which "
                f"images: use --samples-per-class all, and at most {FOLDS} draws"
            )
        if not 0 < self.center <= 1:
            raise ConfigError(f"center {self.center}, expected a part of the sides, more than 0 and at most 1")
        if self.augmentation != "none" and self.head == "ridge" and self.freeze:
            raise ConfigError(
                f"augmentation {self.augmentation}, but ridge regression of frozen features is solved on the images as they "
                f"are. Use --head normal, or leave --augmentation out"
            )
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} {getattr(self, name)}, expected {least} or more")
        for name in ("lr", "decay"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} {getattr(self, name)}, expected more than 0")
        if self.weight_decay < 0:
            raise ConfigError(f"weight_decay {self.weight_decay}, expected 0 or more")
        if not 0 <= self.hold_out <= 0.5:
            raise ConfigError(f"hold_out {self.hold_out}, expected a share of 0 to 0.5 of the samples")
        if self.head == "ridge" and self.freeze and self.hold_out:
            raise ConfigError(
                f"hold_out {self.hold_out}, but ridge regression of frozen features takes no steps to stop"
            )
        if self.split == self.eval_split:
            raise ConfigError(f"split and eval split are both {self.split}: a result on training images says nothing")

    @property
    def unheld(self) -> list[str]:
        """Samples per class that are too few for `hold_out` to take one away: their fits do not stop early."""
        if not self.hold_out or self.protocol != "balanced":
            return []
        return [samples_text(k) for k in self.samples_per_class if k != ALL and not held_count(k, self.hold_out)]

    def draws_of(self, samples: int) -> int:
        """Return how many fits of `samples` there are: one, where every draw would be the same fit."""
        return 1 if fits_once(self.to_json(), samples) else self.draws

    def steps(self, per_pass: int) -> int:
        """Return how many steps a fit takes, `per_pass` of them a pass over its images."""
        return max(self.min_steps, self.epochs * per_pass)

    @property
    def name(self) -> str:
        """Part of a result's name, such as ``conv4-pool1-frozen``."""
        parts = [self.layer or "output"]
        parts += [f"pool{self.pool}"] if self.pool else []
        parts += ["frozen"] if self.freeze else []
        parts += [self.head] if self.head != "random" else []
        parts += [self.augmentation] if self.augmentation != "none" else []
        parts += ["folds"] if self.folds else []
        parts += ["report"] if self.protocol == "report" else []
        parts += ["scratch"] if self.from_scratch else []
        return "-".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; of folds that there are some, which ones a result says elsewhere."""
        found = {**asdict(self), "samples_per_class": [samples_text(k) for k in self.samples_per_class]}
        del found["folds"]
        kept = {name: value for name, value in found.items() if name not in _LATER or value != _LATER[name]}
        return kept | ({"folds": FOLDS} if self.folds else {})


def fits_once(config: Mapping[str, Any], samples: int) -> bool:
    """Return whether every draw is the same fit: ridge regression of a run's frozen features on every image of the split.

    `config` is a `FinetuneConfig` as JSON values. Draws of such a fit differ by nothing: an interval over them would be 0.
    """
    solved = bool(config.get("freeze")) and config.get("head") == "ridge"
    return solved and samples == ALL and not config.get("from_scratch") and not config.get("folds")


def samples_text(samples: int) -> str:
    """Return ``4``, or ``all``."""
    return str(samples) if samples != ALL else "all"


def samples_from_text(text: str) -> tuple[int, ...]:
    """Parse ``1,2,4,all``; each number counts once, in rising order.

    Raises
    ------
    ConfigError
        A part is neither a number from 1 on nor ``all``.
    """
    parts = {part.strip() for part in text.split(",")}
    for part in parts:
        if part != "all" and not (part.isascii() and part.isdecimal() and int(part) > 0):
            raise ConfigError(f"samples per class {text!r}: {part!r} is neither a number from 1 on nor all")
    numbers = sorted({int(part) for part in parts - {"all"}})
    return (*numbers, ALL) if "all" in parts else tuple(numbers)
