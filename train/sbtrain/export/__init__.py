"""Encoders for other programs: safetensors, ONNX, torch.export."""

from sbtrain.export.files import load_encoder

__all__ = ["load_encoder"]
