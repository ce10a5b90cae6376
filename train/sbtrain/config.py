"""What a pretraining run is asked to do: one frozen value, checked where it is made, stored whole with the run.

A preset is a TOML file of these fields (`presets/`); the command line overrides any of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sbformat.errors import ConfigError, suggestion
from sbtrain.augment.views import RECIPES
from sbtrain.corrupt import Noise
from sbtrain.inputs import Input, Normalize
from sbtrain.methods.denoising import WIDTHS
from sbtrain.methods.self_classifier import Prior
from sbtrain.methods.simsiam import Projector
from sbtrain.methods.split_brain import Loss
from sbtrain.networks import HALVES
from sbtrain.networks.backbones import check_name
from sbtrain.networks.heads import ClassifierKind, class_counts, head_widths
from sbtrain.optim import Optimizer, Schedule

MethodName = Literal["split_brain", "denoising", "simsiam", "self_classifier"]
Precision = Literal["auto", "float32", "bfloat16"]
Mode = Literal["exact", "fast"]

_IMAGE, _VIEWS = ("split_brain", "denoising"), ("simsiam", "self_classifier")
#: Field that not every method has -> those that do.
FIELDS_OF: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("input", "normalize"), _IMAGE),
    "loss": ("split_brain",),
    **dict.fromkeys(("noise", "noise_level", "reconstruction"), ("denoising",)),
    **dict.fromkeys(("augmentation", "view_size", "zero_init", "weights"), _VIEWS),
    **dict.fromkeys(("projector", "stop_gradient", "constant_predictor_lr"), ("simsiam",)),
    **dict.fromkeys(("head", "classes", "classifier", "prior", "tau_row", "tau_col", "eps"), ("self_classifier",)),
    **dict.fromkeys(("queue", "queue_replace"), ("self_classifier",)),
}
#: Recipe of views where none is named.
AUGMENTATION = {"simsiam": "simsiam_imagenet", "self_classifier": "dino_multicrop"}


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Every option of ``sbtrain pretrain`` that a result depends on.

    Raises
    ------
    ConfigError
        A value out of range or a name that does not exist.
    """

    method: MethodName = "split_brain"
    network: str = "simplenet"
    """split_brain: name of the halves; denoising: ``autoencoder``, ``autoencoder-5`` or either with ``-bn``; simsiam and
    self_classifier: a backbone, `sbtrain.networks.backbones`."""
    split: str = "unlabeled"
    input: Input = "stored"
    """What the network sees: stored levels, or those decoded back to Lab."""
    normalize: Normalize = "unit"
    loss: Loss = "classification"
    """split_brain: bins in every cell, or their mean."""
    noise: Noise = "salt-and-pepper"
    """denoising: how images are corrupted, and by how much."""
    noise_level: float = 0.05
    reconstruction: Literal["bce", "mse"] = "bce"
    augmentation: str = ""
    """simsiam, self_classifier: recipe of the views, `sbtrain.augment.recipes`; empty: the method's on ImageNet."""
    view_size: int = 0
    """Pixels of a side of the global views; local ones keep their share of it. 0: of the stored images."""
    zero_init: bool = False
    """ResNets: residual blocks begin as identities."""
    weights: str = ""
    """simsiam, self_classifier: file of weights that the backbone begins with, `sbtrain.networks.weights`; empty: fresh."""
    projector: Projector = "three-layer"
    """simsiam: layers of z; its predictor's follow."""
    stop_gradient: bool = True
    constant_predictor_lr: bool = True
    head: str = "1hl"
    """self_classifier: ``1hl``, ``2hl``, ``official``, ``v1``, or widths of linear layers such as ``4096-4096-128``."""
    classes: str = "10"
    """``10``; ``1000,2000`` for two classifiers, ``30x30`` for 30 of 30 classes. The first one is evaluated."""
    classifier: ClassifierKind = "weight-norm"
    prior: Prior = "uniform"
    """Where classes are taken to be used alike."""
    tau_row: float = 0.1
    tau_col: float = 0.05
    eps: float = 1e-8
    queue: int = 0
    """Embeddings that wait as nearest neighbors; 0: none."""
    queue_replace: bool = False
    """Replace first views' embeddings by their neighbors, not only log how near these are."""
    epochs: int = 11
    """0: none, of given weights."""
    batch_size: int = 64
    accumulate: int = 1
    """Micro-batches a step: `batch_size` is theirs together."""
    optimizer: Optimizer = "adam"
    lr: float = 1e-4
    weight_decay: float = 0.0
    momentum: float = 0.9
    schedule: Schedule = "epoch-decay"
    decay: float = 0.1
    """epoch-decay: factor after every epoch."""
    final_lr: float = 0.0
    """cosine: learning rate at the end."""
    warmup: int = 0
    """Steps of linear rise before the schedule."""
    warmup_epochs: int = 0
    """Epochs of it, beside those steps."""
    warmup_lr: float = 0.0
    """Learning rate that the rise begins above."""
    clip: float = 0.0
    """Largest norm of the gradient; 0: any."""
    shuffle: str = "exact"
    """``exact``, or ``window=K`` for disks on which random reads are slow."""
    seed: int = 0
    precision: Precision = "auto"
    """auto: bfloat16 where the device has it, else float32."""
    mode: Mode = "exact"
    """exact: the same bits on the same machine; fast: kernels may be chosen by timing."""
    compile: bool = False
    """Compile the networks: other kernels, so other last bits."""
    limit: int = 0
    """Use this many images of the split; 0: all."""
    bad_steps: int = 10
    """Steps in a row with non-finite gradients after which the run goes back to its newest checkpoint and skips the data
    since; looked at every so many steps. Such steps are never applied."""
    rollbacks: int = 3
    """Times to go back to the same checkpoint before giving up."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            _check_type(name, getattr(self, name), hint)
        self._check_network()
        if self.epochs == 0 and not self.weights:
            raise ConfigError("epochs 0: nothing would be learned. Give at least 1, or trained weights: --weights FILE")
        for name in ("batch_size", "accumulate", "lr", "decay", "bad_steps", "tau_row", "tau_col", "eps"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} {getattr(self, name)}, expected more than 0")
        for name in (
            "weight_decay", "momentum", "warmup", "warmup_epochs", "warmup_lr", "final_lr", "clip", "limit", "rollbacks",
            "view_size", "queue", "epochs",
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} {getattr(self, name)}, expected 0 or more")
        if self.batch_size % self.accumulate:
            raise ConfigError(f"batch size {self.batch_size} does not divide into {self.accumulate} micro-batches")
        if not 0 <= self.noise_level <= 1:
            raise ConfigError(f"noise level {self.noise_level}, expected 0 to 1")
        if self.method == "denoising" and self.normalize != "unit":
            raise ConfigError(
                f"normalize {self.normalize}, but denoising compares levels of [0, 1]. Use --normalize unit"
            )
        if self.method in AUGMENTATION:
            self._check_views()

    def _check_network(self) -> None:
        if self.method in AUGMENTATION:
            check_name(self.network)
        elif self.method == "split_brain" and self.network not in HALVES:
            raise ConfigError(f"network {self.network!r}{suggestion(self.network, HALVES)}")
        elif self.method == "denoising" and self.network.removesuffix("-bn") not in WIDTHS:
            raise ConfigError(f"network {self.network!r} of the denoising method{suggestion(self.network, WIDTHS)}")

    def _check_views(self) -> None:
        if self.augmentation and self.augmentation not in RECIPES:
            raise ConfigError(f"augmentation {self.augmentation!r}{suggestion(self.augmentation, RECIPES)}")
        head_widths(self.head)
        C, images = class_counts(self.classes)[0], self.batch_size // self.accumulate
        if self.method == "self_classifier" and images < C:
            raise ConfigError(
                f"{images} images in a {'micro-' if self.accumulate > 1 else ''}batch, {C} classes: with fewer images than "
                f"classes no class can be used alike. Use --batch-size {C * self.accumulate} or, better, ten times that, "
                f"or fewer --classes"
            )
        if self.queue_replace and not self.queue:
            raise ConfigError("queue_replace, but there is no queue. Give its length: --queue 1000")
        if self.batch_size // self.accumulate < 2:
            raise ConfigError(
                f"{self.batch_size // self.accumulate} image in a batch: BatchNorm needs 2. Use a larger --batch-size"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PretrainConfig:
        """Inverse of `to_json`.

        Raises
        ------
        ConfigError
            A field that does not exist, with the nearest that does; or a value as in the constructor.
        """
        known = [field.name for field in fields(cls)]
        for name in data:
            if name not in known:
                raise ConfigError(f"field {name!r}{suggestion(name, known)}")
        return cls(**data)


def check_fields(given: Mapping[str, Any], explicit: Iterable[str]) -> None:
    """Refuse fields that the method does not have, so that nobody waits for an effect of them.

    Parameters
    ----------
    given : mapping
        Fields of a config; those of a preset may have their default.
    explicit : iterable of str
        Names given as options, which may not.

    Raises
    ------
    ConfigError
        With the methods that have it.
    """
    explicit = set(explicit)
    defaults = {field.name: field.default for field in fields(PretrainConfig)}
    method = given.get("method", defaults["method"])
    for name, methods in FIELDS_OF.items():
        if name in given and method not in methods and (name in explicit or given[name] != defaults[name]):
            raise ConfigError(
                f"{name} {given[name]!r}, but method {method} has no such field: it belongs to {' and '.join(methods)}. "
                f"Leave it out, or use --method {methods[0]}"
            )


def _check_type(name: str, value: Any, hint: Any) -> None:
    if get_origin(hint) is Literal:
        if (name, value) == ("method", "supervised"):
            raise ConfigError(
                "method 'supervised' is no pretraining. The supervised control learns on the labels of a run's fine-tuning: "
                "sbtrain finetune --from-scratch"
            )
        if value not in get_args(hint):
            raise ConfigError(f"{name} {value!r}{suggestion(str(value), get_args(hint))}")
    elif hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{name} {value!r}, expected a number")
    elif type(value) is not hint:
        raise ConfigError(f"{name} {value!r}, expected {hint.__name__}")
    check_number(name, value)


def check_number(name: str, value: Any) -> None:
    """Refuse a number that no run can be made of; anything else passes.

    Raises
    ------
    ConfigError
        An infinite float or one that is no number, an integer beyond 64 bits, a negative seed.
    """
    if isinstance(value, float) and not abs(value) <= sys.float_info.max:
        raise ConfigError(f"{name} {value}, expected a finite number")
    if isinstance(value, int) and not abs(value) < 1 << 63:
        raise ConfigError(f"{name} {value}, expected less than 2^63")
    if name == "seed" and value < 0:
        raise ConfigError(f"{name} {value}, expected 0 or more")
