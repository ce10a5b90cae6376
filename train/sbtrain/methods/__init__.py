"""What is learned, one module a method: ``loss(batch) -> scalar, logs`` and ``features(batch) -> tensor``."""

from sbtrain.methods.denoising import Denoising
from sbtrain.methods.self_classifier import SelfClassifier
from sbtrain.methods.simsiam import SimSiam
from sbtrain.methods.split_brain import SplitBrain

Method = SplitBrain | Denoising | SimSiam | SelfClassifier

__all__ = ["Denoising", "Method", "SelfClassifier", "SimSiam", "SplitBrain"]
