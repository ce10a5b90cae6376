"""What a probe is asked to do: one frozen value, checked where it is made, stored with the result."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sbformat.errors import ConfigError
from sbtrain.config import Precision
from sbtrain.evaluation.few_shot import ALL
from sbtrain.evaluation.finetune_config import FinetuneConfig, samples_text


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Every option of ``sbtrain probe`` that a result depends on.

    The defaults are those of the linear tests of R. Zhang, P. Isola and A. Efros, CVPR 2017, table 7 and the code of their
    tests: 140,000 steps of 256 images are 28 passes over ImageNet, and 40,000 of them two sevenths.

    Raises
    ------
    ConfigError
        A value out of range.
    """

    layers: tuple[str, ...] = ()
    """Layers of the run's network; none: every one."""
    draws: int = 3
    """Weights and orders of each layer's classifier, and subsets of the labels."""
    labels_per_class: int = ALL
    """Labeled images of each class; 0: all."""
    from_scratch: bool = False
    """The same network with new weights: the control."""
    dimensions: int = 9600
    """Maps are resized to as many cells as give this many numbers or fewer."""
    epochs: int = 28
    """Passes over the labeled images."""
    min_steps: int = 140
    """More passes, where the images are so few that `epochs` of them are fewer steps."""
    batch_size: int = 256
    lr: float = 0.01
    """Of SGD with momentum 0.9; a tenth after two, four and six sevenths of the steps."""
    weight_decay: float = 5e-4
    seed: int = 0
    precision: Precision = "auto"
    split: str = "train"
    eval_split: str = "val"
    eval_limit: int = 0
    """Report this many images of `eval_split`, the same ones always; 0: all."""

    def __post_init__(self) -> None:
        if self.dimensions < 1:
            raise ConfigError(f"dimensions {self.dimensions}, expected 1 or more")
        _ = self.fit  # checks the rest

    @property
    def fit(self) -> FinetuneConfig:
        """How a classifier is fitted, in the terms of fine-tuning."""
        return FinetuneConfig(
            samples_per_class=(self.labels_per_class,), draws=self.draws, from_scratch=self.from_scratch, freeze=True,
            epochs=self.epochs, min_steps=self.min_steps, batch_size=self.batch_size, optimizer="sgd", lr=self.lr,
            weight_decay=self.weight_decay, schedule="step-decay", decay=0.1, seed=self.seed, precision=self.precision,
            split=self.split, eval_split=self.eval_split, eval_limit=self.eval_limit,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """Part of a result's name, such as ``16-scratch``; none by default."""
        parts = [samples_text(self.labels_per_class)] if self.labels_per_class != ALL else []
        parts += ["scratch"] if self.from_scratch else []
        return "-".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "layers": list(self.layers), "labels_per_class": samples_text(self.labels_per_class)}
