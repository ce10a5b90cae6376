"""Work of a training step, counted once on shapes alone, and what devices can do at most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from sbformat.manifest import Manifest
from sbtrain.data import Batch
from sbtrain.methods import Method

#: Dense bfloat16 FLOP/s with float32 accumulation, from NVIDIA's data sheets; TF32 has half of it on all of these. Part of
#: the device's name -> peak, the longer name before the one that it begins with.
PEAK_FLOPS = {
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "GH200": 989e12,
    "H100": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


def peak_flops(device_name: str, dtype: torch.dtype) -> float | None:
    """Return the peak of a device by its name, None where it is not listed.

    For float32 the one of TF32, in which torch computes float32 convolutions unless told otherwise: nearly all the work.
    """
    peak = next((peak for name, peak in PEAK_FLOPS.items() if name in device_name), None)
    return peak / 2 if peak and dtype == torch.float32 else peak


def flops_per_image(method: Method, manifest: Manifest, split: str, images: int = 2) -> float:
    """Return the floating-point operations of forward and backward for one image, 2 a multiply-add.

    Parameters
    ----------
    method : Method
        On the meta device: shapes are enough, so counting costs milliseconds for any network.
    manifest : Manifest
    split : str
    images : int
        BatchNorm asks for two.
    """
    specs = manifest.datasets(split)
    fields = {
        name: torch.zeros((images, *specs[name].row_shape), dtype=torch.uint8, device="meta")
        for name in method.datasets
    }
    batch = Batch(torch.zeros(images, dtype=torch.int64, device="meta"), fields)
    with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        loss, _ = method.loss(batch)
        torch.autograd.backward(loss)
    return float(counter.get_total_flops()) / images


_BACKWARD = torch.ops.aten.convolution_backward


def _convolution_backward(*args: Any, out_shape: Any, **_: Any) -> int:
    # torch's formula takes the gradient of the weights of a grouped convolution for that of a whole one: 64 GFLOP an
    # image for SimSiam on EfficientNet-B0, which has 4.6.
    *call, groups, mask = args

    def of(wanted: Sequence[bool]) -> int:
        return int(flop_registry[_BACKWARD](*call, groups, wanted, out_val=out_shape))

    return of((mask[0], False)) + of((False, mask[1])) // int(groups)


_FORMULAS = {_BACKWARD: _convolution_backward}
