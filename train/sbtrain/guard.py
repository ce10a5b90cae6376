"""Steps that are applied only where every gradient is finite, decided on the device: no step waits for a number."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Guard:
    """Keeps weights, moments and BatchNorm statistics as they were where a step is not finite.

    The forward pass has already moved the running statistics when the loss is known, so a copy of them from before the
    step comes back: they become views of one flat tensor for each dtype, which makes that two copies a step.

    Parameters
    ----------
    model : nn.Module
        On its device: moving it afterwards would tear the views apart.
    optimizer : torch.optim.Optimizer
    gated : bool
        The optimizer is fused: it looks at the flag itself (its ``found_inf``, made for loss scaling). Else the host does.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, gated: bool) -> None:
        self._optimizer, self._gated = optimizer, gated
        self._flat = _flatten_statistics(model)
        self._weights = list(model.parameters())
        self._kept = [flat.clone() for flat in self._flat]
        device = next(model.parameters()).device
        self._in_row = torch.zeros((), dtype=torch.int64, device=device)

    @property
    def in_row(self) -> int:
        """Steps not applied in a row; asks the device."""
        return int(self._in_row.item())

    @in_row.setter
    def in_row(self, count: int) -> None:
        self._in_row.fill_(count)

    def weights_finite(self) -> bool:
        """Return whether every weight and statistic is a finite number; asks the device.

        Finite gradients do not tell: the update itself may overflow, by its learning rate or weight decay.
        """
        return bool(torch.stack([torch.isfinite(tensor).all() for tensor in (*self._weights, *self._flat)]).all())

    def keep(self) -> None:
        """Remember the statistics: to be called before the forward pass."""
        for flat, kept in zip(self._flat, self._kept, strict=True):
            kept.copy_(flat)

    def step(self, finite: Tensor) -> None:
        """Take the optimizer's step where `finite`, a boolean scalar on the device, is true."""
        if self._gated:
            self._optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
            self._optimizer.step()
        elif bool(finite):
            self._optimizer.step()
        for flat, kept in zip(self._flat, self._kept, strict=True):
            flat.copy_(torch.where(finite, flat, kept))
        self._in_row.add_(1).mul_(~finite)


def _flatten_statistics(model: nn.Module) -> list[Tensor]:
    places: dict[torch.dtype, list[tuple[nn.Module, str, Tensor]]] = {}
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            for name in _STATISTICS:
                tensor = getattr(module, name)
                if tensor is not None:
                    places.setdefault(tensor.dtype, []).append((module, name, tensor))
    result = []
    for found in places.values():
        flat = torch.cat([tensor.reshape(-1) for *_, tensor in found])
        parts = torch.split(flat, [tensor.numel() for *_, tensor in found])
        for (module, name, tensor), part in zip(found, parts, strict=True):
            setattr(module, name, part.view(tensor.shape))
        result.append(flat)
    return result
