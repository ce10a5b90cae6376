"""Corruptions of the denoising baseline, keyed by sample: P. Vincent et al., JMLR 11 (2010), section 4.

The noise of a sample is a pure function of (seed, epoch, row number), so a resumed run sees the same, on any number of
processes. Counter-based: SplitMix64 of a key and the element's number, on the device.

Axes: B images, 3 channels, S x S pixels.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Noise = Literal["masking", "gaussian", "salt-and-pepper"]

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
    # The upper 24 bits, at the middle of their interval: neither 0 nor 1 comes out.
    return (((bits >> 40) & 0xFFFFFF).to(torch.float32) + 0.5) * (1 / (1 << 24))


def corrupt(x: Tensor, index: Tensor, noise: Noise, level: float, seed: int, epoch: int | Tensor) -> Tensor:
    """Corrupt x (B, 3, S, S) in [0, 1], each channel value by itself.

    masking: a share `level` becomes 0. salt-and-pepper: a share `level` becomes 0 or 1 with equal chance. gaussian: a
    normal number of standard deviation `level` is added, the sum clipped to [0, 1].
    """
    flat = x.reshape(len(x), -1)
    u = uniform(index, flat.shape[1], seed, epoch)
    if noise == "masking":
        noisy = torch.where(u < level, 0.0, flat)
    elif noise == "salt-and-pepper":
        noisy = torch.where(u < level / 2, 0.0, torch.where(u > 1 - level / 2, 1.0, flat))
    else:
        v = uniform(index, flat.shape[1], seed, epoch, stream=1)
        normal = torch.sqrt(-2 * torch.log(u)) * torch.cos(2 * math.pi * v)  # Box and Muller, 1958
        noisy = (flat + level * normal).clamp(0, 1)
    return noisy.view_as(x)


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
