"""BatchNorm over the rows of all ranks: the statistics that one process with the whole micro-batch would see.

S. Ioffe and C. Szegedy, "Batch Normalization", ICML 2015, algorithm 1, with every mean taken over ranks as well. torch has
it for GPUs alone (`torch.nn.SyncBatchNorm`), where fused kernels make it fast; here it is for the CPU.

Axes: B rows of this rank, C channels, and any axes of pixels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronize(model: nn.Module, device: torch.device) -> None:
    """Make every BatchNorm of `model` take its statistics over all ranks of `device`, in place.

    The modules change their class and nothing else: parameters, buffers and whoever refers to them stay as they are.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            activated = hasattr(module, "act")
            if device.type == "cuda":
                module.__class__ = _ActivatedSync if activated else nn.SyncBatchNorm
                module.process_group = None  # type: ignore[assignment]
            else:
                module.__class__ = _ActivatedSynced if activated else SyncedBatchNorm


class SyncedBatchNorm(_BatchNorm):
    """BatchNorm of any number of axes; every rank brings the same number of rows."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C, ...)."""
        if not self.training and self.running_mean is not None:
            return super().forward(x)
        y, mean, var = _Normalize.apply(x, self.weight, self.bias, self.eps)
        if self.training and self.running_mean is not None:
            self._remember(mean, var, x.numel() // x.shape[1] * dist.get_world_size())
        return y  # type: ignore[no-any-return]

    def _remember(self, mean: Tensor, var: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.mul_(1 - rate).add_(mean, alpha=rate)
        self.running_var.mul_(1 - rate).add_(var, alpha=rate * count / max(1, count - 1))  # unbiased, as torch's

    def _check_input_dim(self, input: Tensor) -> None:  # any number of axes
        pass


class _Activated(nn.Module):
    """What timm's `BatchNormAct2d` does behind the norm, which is one module with it."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.drop(super().forward(x)))
        return y


class _ActivatedSync(_Activated, nn.SyncBatchNorm):
    pass


class _ActivatedSynced(_Activated, SyncedBatchNorm):
    pass


class _Normalize(torch.autograd.Function):
    """Normalize over ranks; in float32 whatever the input is."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        axes = [axis for axis in range(x.dim()) if axis != 1]
        own = torch.stack(torch.var_mean(x.float(), axes, correction=0))
        ranks = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(ranks, own)
        # As all have the same number of rows: the variance is the mean of theirs plus that of their means.
        vars_, means = torch.stack(ranks).unbind(1)  # (ranks, C) each
        mean, var = means.mean(0), vars_.mean(0) + means.var(0, correction=0)
        scale = torch.rsqrt(var + eps)
        ctx.save_for_backward(x, mean, scale, weight)
        ctx.axes, ctx.has_bias = axes, bias is not None
        y = (x.float() - _along(mean, x)) * _along(scale if weight is None else scale * weight, x)
        y = y if bias is None else y + _along(bias, x)
        ctx.mark_non_differentiable(mean, var)
        return y.to(x.dtype), mean, var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, scale, weight = ctx.saved_tensors
        g = gradients[0].float()
        normal = (x.float() - _along(mean, x)) * _along(scale, x)
        of_bias, of_weight = g.sum(ctx.axes), (g * normal).sum(ctx.axes)
        means = torch.stack([of_bias, of_weight])
        dist.all_reduce(means)
        means /= g.numel() // g.shape[1] * dist.get_world_size()
        g = g - _along(means[0], x) - normal * _along(means[1], x)
        g = g * _along(scale if weight is None else scale * weight, x)
        # Those of weight and bias are of this rank's rows: averaged with all other gradients.
        return g.to(x.dtype), None if weight is None else of_weight, of_bias if ctx.has_bias else None, None


def _along(values: Tensor, x: Tensor) -> Tensor:
    """(C,) to the axes of `x`."""
    return values.view(1, -1, *[1] * (x.dim() - 2))
