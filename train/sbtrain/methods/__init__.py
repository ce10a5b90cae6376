"""What is learned, one module a method: ``loss(batch) -> scalar, logs`` and ``features(batch) -> tensor``."""

from sbtrain.methods.denoising import Denoising
from sbtrain.methods.split_brain import SplitBrain

Method = SplitBrain | Denoising

__all__ = ["Denoising", "Method", "SplitBrain"]
