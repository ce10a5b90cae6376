"""One step of learning: forward, backward, update. Nothing in it waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sbtrain.config import PretrainConfig
from sbtrain.data import Batch
from sbtrain.guard import Guard
from sbtrain.methods import Method
from sbtrain.metrics import Totals
from sbtrain.optim import build_optimizer, parameter_groups
from sbtrain.ranks.synced_norm import synchronize
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
        runtime.place(method)
        self.method, self.runtime = method, runtime
        if runtime.world.size > 1:
            synchronize(method, runtime.device)
            runtime.world.share(method.state_dict().values())  # other processors draw other last bits
        self.accumulate, self.clip = config.accumulate, config.clip
        self.parameters = [parameter for parameter in method.parameters() if parameter.requires_grad]
        self.optimizer = build_optimizer(
            parameter_groups(method), config.optimizer, config.lr, config.weight_decay, config.momentum, runtime.fused
        )
        self.guard = Guard(method, self.optimizer, gated=runtime.fused)
        self.totals = Totals(runtime.device)
        # On CUDA a float32 tensor, with and without graphs: a graph reads it at an address, and an update with a Python
        # float, in double precision, would give other bits. Filling it waits for nothing.
        on_cuda = runtime.device.type == "cuda"
        self._lr = torch.zeros((), device=runtime.device) if on_cuda else None
        self._peak = torch.full((), config.lr, device=runtime.device) if on_cuda else config.lr
        if config.compile:
            compile_networks(method)

    def __call__(self, batch: Batch, lr: float) -> None:
        """Learn from `batch` at learning rate `lr`."""
        self.set_lr(lr)
        self.learn(batch)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of every group: each time, as loading an optimizer's state copies its groups.

        A group of ``constant_lr`` stays at the peak.
        """
        value = lr if self._lr is None else self._lr.fill_(lr)
        for group in self.optimizer.param_groups:
            group["lr"] = self._peak if group.get("constant_lr") else value

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
        mean = self.runtime.world.average(self.parameters, torch.stack(losses).mean(0))
        finite = torch.isfinite(gradient_norm(self.parameters, self.clip)) & torch.isfinite(mean[0])
        self.guard.step(finite)
        self.totals.add(["loss", *logs], mean, finite)


def gradient_norm(parameters: list[nn.Parameter], clip: float) -> Tensor:
    """Return the norm of all gradients together, and scale them down to `clip` if that is not 0."""
    if clip:
        return torch.nn.utils.clip_grad_norm_(parameters, clip)
    # The same bits, without writing every gradient anew: clipping to infinity multiplies them by 1.
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def compile_networks(method: Method) -> None:
    """Compile every network of `method` in place: the names in its state stay as they are."""
    for name, child in method.named_children():
        if name != "inputs":
            child.compile()
