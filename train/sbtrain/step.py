"""One step of learning: forward, backward, update. Nothing in it waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sbtrain.config import PretrainConfig
from sbtrain.data import Batch
from sbtrain.guard import Guard
from sbtrain.methods import Method
from sbtrain.metrics import Totals
from sbtrain.optim import build_optimizer
from sbtrain.runtime import Runtime


class Step:
    """Takes steps of `method`, with the optimizer, the guard and the sums that belong to them.

    Parameters
    ----------
    config : PretrainConfig
    method : Method
        Moved to the device, channels last; its networks are compiled if the config says so.
    runtime : Runtime
    """

    def __init__(self, config: PretrainConfig, method: Method, runtime: Runtime) -> None:
        nn.Module.to(method, runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.method, self.runtime = method, runtime
        self.accumulate, self.clip = config.accumulate, config.clip
        self.parameters = [parameter for parameter in method.parameters() if parameter.requires_grad]
        self.optimizer = build_optimizer(
            self.parameters, config.optimizer, config.lr, config.weight_decay, config.momentum, runtime.fused
        )
        self.guard = Guard(method, self.optimizer, gated=runtime.fused)
        self.totals = Totals(runtime.device)
        if config.compile:
            compile_networks(method)

    def __call__(self, batch: Batch, lr: float) -> None:
        """Learn from `batch` at learning rate `lr`."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.learn(batch)

    def reset(self) -> None:
        """Forget whatever belongs to tensors that a checkpoint replaced: here nothing."""

    def learn(self, batch: Batch) -> None:
        """Learn from `batch` at the optimizer's learning rate."""
        self.optimizer.zero_grad(set_to_none=True)
        self.guard.keep()
        losses = []
        for part in batch.parts(self.accumulate):
            with self.runtime.autocast():
                loss, logs = self.method.loss(part)
            torch.autograd.backward(loss / self.accumulate)
            losses.append(torch.stack([loss.detach(), *logs.values()]))
        mean = torch.stack(losses).mean(0)
        finite = torch.isfinite(gradient_norm(self.parameters, self.clip)) & torch.isfinite(mean[0])
        self.guard.step(finite)
        self.totals.add(["loss", *logs], mean, finite)


def gradient_norm(parameters: list[nn.Parameter], clip: float) -> Tensor:
    """Return the norm of all gradients together, and scale them down to `clip` if that is not 0."""
    return torch.nn.utils.clip_grad_norm_(parameters, clip or float("inf"))


def compile_networks(method: Method) -> None:
    """Compile every network of `method` in place: the names in its state stay as they are."""
    for name, child in method.named_children():
        if name != "inputs":
            child.compile()
