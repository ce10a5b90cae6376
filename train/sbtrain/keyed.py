"""Random numbers that belong to samples, not to time.

A number is a pure function of (seed, epoch, row number, stream, its place), so a resumed run sees the same, on any
number of processes, in any batch. Counter-based: SplitMix64 (G. Steele et al., OOPSLA 2014) of a key and the place, on
the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

# SplitMix64's constants, as the signed 64-bit integers that torch computes with (modulo 2**64).
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_M1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_M2 = 0x94D049BB133111EB - (1 << 64)


def uniform(index: Tensor, elements: int, seed: int, epoch: int | Tensor, stream: int = 0) -> Tensor:
    """Return numbers in (0, 1) that belong to samples, not to time.

    Parameters
    ----------
    index : int64 (B,)
        Row numbers of the samples.
    elements : int
        Numbers wanted for each.
    seed, stream : int
    epoch : int, or int64 ()
        Of a batch that a CUDA graph reads: a tensor on its device.

    Returns
    -------
    float32 (B, elements)
    """
    key = _mix(_mix(_mix(index + _signed(seed * 0x9E3779B9 + 1)) + epoch) + stream)
    counter = torch.arange(elements, device=index.device, dtype=torch.int64)
    bits = _mix(key[:, None] + counter * _GOLDEN)
    # The upper 24 bits, at the middle of their interval: not 0. The last interval's middle rounds to 1, so it is held
    # back.
    return ((((bits >> 40) & 0xFFFFFF).to(torch.float32) + 0.5) * (1 / (1 << 24))).clamp(max=1 - 2**-24)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * _M1
    z = (z ^ _shifted(z, 27)) * _M2
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, by: int) -> Tensor:
    # Logical shift right: torch's >> copies the sign.
    return (z >> by) & ((1 << (64 - by)) - 1)


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value
