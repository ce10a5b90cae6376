"""Optimizers, and learning rates as functions of the step: no state to save, the same after any resume."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import nn

from sbformat.errors import ConfigError

Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["constant", "cosine", "one-cycle", "epoch-decay"]


def learning_rate(
    step: int, steps: int, steps_per_epoch: int, peak: float, schedule: Schedule, warmup: int, decay: float
) -> float:
    """Return the learning rate of global step `step` of `steps`.

    ``constant``; ``cosine``: to 0; ``one-cycle``: up over the first 30 %, down to 0 (L. Smith, arXiv 1803.09820);
    ``epoch-decay``: times `decay` after every epoch, as the reports do. `warmup` steps of linear rise come first.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    if schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * share))
    if schedule == "one-cycle":
        rise = 0.3
        half = share / rise - 1 if share < rise else (share - rise) / (1 - rise)
        return peak * 0.5 * (1 + math.cos(math.pi * half))
    if schedule == "epoch-decay":
        return peak * decay ** (step // steps_per_epoch)
    return peak


def build_optimizer(
    parameters: Iterable[nn.Parameter], kind: Optimizer, lr: float, weight_decay: float, momentum: float, fused: bool
) -> torch.optim.Optimizer:
    """Build an optimizer; `fused` runs each update as one kernel where torch has it for the device."""
    made: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "adam": lambda: torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=fused),
        "adamw": lambda: torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=fused),
        "sgd": lambda: torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=momentum, fused=fused),
    }
    if kind not in made:
        raise ConfigError(f"optimizer {kind!r}, expected one of {', '.join(made)}")
    optimizer = made[kind]()
    if kind == "sgd" and momentum:
        # The fused update would begin with memory as it finds it where the very first step is not applied; zeros give
        # the same first step.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


#: Numbers that each optimizer keeps for a weight.
MOMENTS: dict[Optimizer, int] = {"adam": 2, "adamw": 2, "sgd": 1}
