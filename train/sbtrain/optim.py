"""Optimizers, and learning rates as functions of the step: no state to save, the same after any resume."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sbformat.errors import ConfigError

Optimizer = Literal["adam", "adamw", "sgd", "larc"]
Schedule = Literal["constant", "cosine", "cosine-by-epoch", "one-cycle", "epoch-decay", "step-decay"]


def learning_rate(
    step: int,
    steps: int,
    steps_per_epoch: int,
    peak: float,
    schedule: Schedule,
    warmup: int,
    decay: float,
    warmup_lr: float = 0.0,
    final_lr: float = 0.0,
) -> float:
    """Return the learning rate of global step `step` of `steps`.

    ``constant``; ``cosine``: to `final_lr`; ``cosine-by-epoch``: the same, changed at the start of each epoch alone, as
    SimSiam's code has it; ``one-cycle``: up over the first 30 %, down to 0 (L. Smith, arXiv 1803.09820); ``epoch-decay``:
    times `decay` after every epoch, as the reports do; ``step-decay``: times `decay` after 2, 4 and 6 sevenths of the steps,
    as the linear tests of R. Zhang et al., CVPR 2017, have it. `warmup` steps of linear rise from `warmup_lr` come first.
    """
    if step < warmup:
        return warmup_lr + (peak - warmup_lr) * (step + 1) / warmup
    if schedule == "cosine-by-epoch":
        step = max(warmup, step - step % steps_per_epoch)
    share = (step - warmup) / max(1, steps - warmup)
    if schedule in ("cosine", "cosine-by-epoch"):
        return final_lr + (peak - final_lr) * 0.5 * (1 + math.cos(math.pi * share))
    if schedule == "one-cycle":
        rise = 0.3
        half = share / rise - 1 if share < rise else (share - rise) / (1 - rise)
        return peak * 0.5 * (1 + math.cos(math.pi * half))
    if schedule == "epoch-decay":
        return peak * decay ** (step // steps_per_epoch)
    if schedule == "step-decay":
        return peak * decay ** (7 * (step - warmup) // (2 * max(1, steps - warmup)))
    return peak


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return the trainable parameters as an optimizer's groups.

    Those below a module that says ``constant_lr = True`` are a group of their own, which keeps the peak learning rate.
    """
    constant = {
        id(parameter)
        for module in model.modules()
        if getattr(module, "constant_lr", False)
        for parameter in module.parameters()
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": [p for p in trained if id(p) not in constant]}]
    if constant:
        groups.append({"params": [p for p in trained if id(p) in constant], "constant_lr": True})
    return groups


def build_optimizer(
    parameters: Iterable[nn.Parameter] | list[dict[str, Any]],
    kind: Optimizer,
    lr: float,
    weight_decay: float,
    momentum: float,
    fused: bool,
) -> torch.optim.Optimizer:
    """Build an optimizer; `fused` runs each update as one kernel where torch has it for the device."""
    made: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "adam": lambda: torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=fused),
        "adamw": lambda: torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=fused),
        "sgd": lambda: torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=momentum, fused=fused),
        "larc": lambda: Larc(parameters, lr, weight_decay, momentum, fused),
    }
    if kind not in made:
        raise ConfigError(f"optimizer {kind!r}, expected one of {', '.join(made)}")
    optimizer = made[kind]()
    if isinstance(optimizer, torch.optim.SGD) and momentum:
        # The fused update would begin with memory as it finds it where the very first step is not applied; zeros give
        # the same first step.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


class Larc(torch.optim.SGD):
    """SGD whose gradients are first scaled, tensor by tensor, to a share of their weights' norm.

    Y. You, I. Gitman and B. Ginsburg, "Large Batch Training of Convolutional Networks", arXiv 1708.03888, as NVIDIA's
    apex has it without clipping, the variant that Self-Classifier and SimSiam's linear evaluation use::

        g <- (g + wd w) * trust |w| / (|g| + wd |w| + eps)

    then SGD with momentum and no weight decay of its own. Every tensor is scaled, biases and BatchNorm's too; one whose
    weights or gradient are all zero, as fresh biases are, keeps its raw gradient and has no weight decay in that step.

    Parameters
    ----------
    parameters
        As of any optimizer.
    lr, weight_decay, momentum : float
    fused : bool
        As of SGD: a step whose ``found_inf`` is set then changes nothing but the gradients.
    trust, eps : float
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | list[dict[str, Any]],
        lr: float,
        weight_decay: float,
        momentum: float,
        fused: bool,
        trust: float = 1e-3,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, lr=lr, momentum=momentum, fused=fused)
        self._decay, self._trust, self._eps = weight_decay, trust, eps

    def step(self, closure: Any = None) -> Any:
        """Scale every gradient in place, then take SGD's step."""
        for group in self.param_groups:
            self._scale([parameter for parameter in group["params"] if parameter.grad is not None])
        return super().step(closure)

    @torch.no_grad()
    def _scale(self, parameters: list[nn.Parameter]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return
        of_weights = torch.stack(torch._foreach_norm(list[Tensor](parameters)))
        of_gradients = torch.stack(torch._foreach_norm(gradients))
        scaled = (of_weights != 0) & (of_gradients != 0)
        rate = self._trust * of_weights / (of_gradients + self._decay * of_weights + self._eps)
        rate = torch.where(scaled, rate, 1.0)
        torch._foreach_mul_(gradients, list(rate.unbind()))
        if self._decay:
            decays = torch.where(scaled, self._decay * rate, 0.0)
            torch._foreach_add_(gradients, torch._foreach_mul(list[Tensor](parameters), list(decays.unbind())))


#: Numbers that each optimizer keeps for a weight.
MOMENTS: dict[Optimizer, int] = {"adam": 2, "adamw": 2, "sgd": 1, "larc": 1}
