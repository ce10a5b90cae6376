"""What a pretraining run is asked to do: one frozen value, checked where it is made, stored whole with the run.

A preset is a TOML file of these fields (`presets/`); the command line overrides any of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sbformat.errors import ConfigError
from sbtrain.corrupt import Noise
from sbtrain.inputs import Input, Normalize
from sbtrain.methods.denoising import WIDTHS
from sbtrain.methods.split_brain import Loss
from sbtrain.networks import HALVES
from sbtrain.optim import Optimizer, Schedule

MethodName = Literal["split_brain", "denoising"]
Precision = Literal["auto", "float32", "bfloat16"]
Mode = Literal["exact", "fast"]


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
    """split_brain: name of the halves; denoising: ``autoencoder``, ``autoencoder-5`` or either with ``-bn``."""
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
    epochs: int = 11
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
    warmup: int = 0
    """Steps of linear rise before the schedule."""
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
        if self.method == "split_brain" and self.network not in HALVES:
            raise ConfigError(f"network {self.network!r}{_suggestion(self.network, HALVES)}")
        if self.method == "denoising" and self.network.removesuffix("-bn") not in WIDTHS:
            raise ConfigError(f"network {self.network!r} of the denoising method{_suggestion(self.network, WIDTHS)}")
        for name in ("epochs", "batch_size", "accumulate", "lr", "decay", "bad_steps"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} {getattr(self, name)}, expected more than 0")
        for name in ("weight_decay", "momentum", "warmup", "clip", "limit", "rollbacks"):
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
                raise ConfigError(f"field {name!r}{_suggestion(name, known)}")
        return cls(**data)


def _check_type(name: str, value: Any, hint: Any) -> None:
    if get_origin(hint) is Literal:
        if (name, value) == ("method", "supervised"):
            raise ConfigError(
                "method 'supervised' is no pretraining. The supervised control learns on the labels of a run's fine-tuning: "
                "sbtrain finetune --from-scratch"
            )
        if value not in get_args(hint):
            raise ConfigError(f"{name} {value!r}{_suggestion(str(value), get_args(hint))}")
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


def _suggestion(given: str, names: Iterable[str]) -> str:
    names = list(names)
    close = get_close_matches(given, names, 1)
    return (f", did you mean {close[0]}? There are" if close else ", expected one of") + f" {', '.join(names)}"
