"""The card beside exported weights: what they are, what they eat, where they come from, how to load them."""

from __future__ import annotations

import platform
from typing import Any

import torch

import sbformat
from sbformat.schema import CHANNELS, STORED_OFFSET, STORED_SCALE
from sbtrain.evaluation.pretrained import Pretrained
from sbtrain.export.encoder import ExportedEncoder
from sbtrain.networks import parameter_count

FORMAT = "sbtrain-encoder"
VERSION = 1
NAME = "encoder.json"
WEIGHTS = "encoder.safetensors"

LOADING = {
    "safetensors": "from sbtrain.export.files import load_encoder; encoder = load_encoder('DIR'); features = encoder(image)",
    "onnx": "import onnxruntime; session = onnxruntime.InferenceSession('DIR/encoder.onnx'); "
    "(features,) = session.run(None, {'image': image})",
    "torch": "import torch; encoder = torch.export.load('DIR/encoder.pt2').module(); features = encoder(image)",
}


def card(pretrained: Pretrained, encoder: ExportedEncoder, pool: int) -> dict[str, Any]:
    """Return everything that a card says but files and checks, as JSON values."""
    config, manifest = pretrained.config, pretrained.manifest
    with torch.no_grad():
        output = list(encoder(*encoder.example(1)).shape[1:])
    return {
        "format": FORMAT,
        "version": VERSION,
        "method": config.method,
        "network": config.network,
        "layer": encoder.layer,
        "pool": pool,
        "parameters": parameter_count(encoder),
        "input": _inputs(encoder, pretrained),
        "normalization": _normalization(encoder),
        "output": {"name": "features", "dtype": "float32", "shape": ["N", *output]},
        "config": config.to_json(),
        "data": {
            "colorspace": manifest.colorspace,
            "image_size": manifest.image_size,
            "target": manifest.target.to_json(),
            "statistics": {name: manifest.splits[config.split].statistics[name] for name in ("mean", "std")},
        },
        "run": pretrained.record,
        "license": "code: Apache-2.0; weights: as the images that they were learned from allow",
        "versions": {
            "sbtrain": sbformat.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _inputs(encoder: ExportedEncoder, pretrained: Pretrained) -> dict[str, Any]:
    space = pretrained.manifest.colorspace
    about: dict[str, Any] = {
        "image": {
            "dtype": "uint8",
            "shape": ["N", *encoder.inputs["image"]],
            "colorspace": space,
            "channels": list(CHANNELS[space]),
            "meaning": "channel planes as the shards store them",
        }
    }
    if space in STORED_SCALE:
        about["image"] |= {
            "stored": "round(value * scale + offset), value: 8-bit R, G, B, or L in [0, 100], a, b of CIE-Lab (D65)",
            "scale": STORED_SCALE[space],
            "offset": STORED_OFFSET[space],
        }
    else:
        about["image"]["stored"] = (
            "round(255 * (value - lo) / (hi - lo)), lo and hi: of each channel of each image, in Lab"
        )
    if "image_range" in encoder.inputs:
        about["image_range"] = {
            "dtype": "float32",
            "shape": ["N", *encoder.inputs["image_range"]],
            "meaning": "lo and hi of each channel of each image, in Lab units",
        }
    return about


def _normalization(encoder: ExportedEncoder) -> dict[str, Any]:
    inputs = encoder.method.inputs
    x = "the bytes decoded to Lab by image_range" if getattr(inputs, "by_range", False) else "the stored bytes"
    return {
        "meaning": f"inside the encoder: x * scale + shift of each channel, x: {x}",
        "scale": inputs.get_buffer("scale").flatten().tolist(),
        "shift": inputs.get_buffer("shift").flatten().tolist(),
    }
