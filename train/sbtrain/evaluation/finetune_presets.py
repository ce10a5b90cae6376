"""How the reports and papers judge a network, as options of ``sbtrain finetune``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sbformat.errors import ConfigError, suggestion
from sbtrain.evaluation.few_shot import ALL


@dataclass(frozen=True)
class FinetunePreset:
    """Fields of a `FinetuneConfig` beside its defaults."""

    about: str
    """What it is, and whose."""
    fields: dict[str, Any]


# Frozen network in eval mode, crops and flips, one linear layer from N(0, 0.01), SGD with momentum 0.9 scaled by LARC.
_LINEAR = {
    "samples_per_class": (ALL,), "freeze": True, "standardize": False, "head": "normal", "augmentation": "crop_flip",
    "center": 0.875, "optimizer": "larc", "weight_decay": 0.0, "schedule": "cosine-by-epoch", "min_steps": 1,
}  # fmt: skip

PRESETS = {
    "self-classifier-linear": FinetunePreset(
        "Self-Classifier, src/lincls_eval.py: 0.05 x 4096 / 256",
        {**_LINEAR, "lr": 0.8, "epochs": 100, "batch_size": 4096},
    ),
    "self-classifier-linear-report": FinetunePreset(
        "the Self-Classifier report's code: the same rate at batches of 64",
        {**_LINEAR, "lr": 0.8, "epochs": 100, "batch_size": 64},
    ),
    "simsiam-linear": FinetunePreset(
        "SimSiam, main_lincls.py: 0.1 x 4096 / 256",
        {**_LINEAR, "lr": 1.6, "epochs": 90, "batch_size": 4096},
    ),
    "simsiam-linear-cifar10": FinetunePreset(
        "the same on images of 32 x 32, seen whole",
        {**_LINEAR, "lr": 1.6, "epochs": 90, "batch_size": 4096, "center": 1.0},
    ),
    "simsiam-finetune-report": FinetunePreset(
        "the SimSiam report: the whole network, Adam, crops of (0.8, 1.2); its code's schedule leaves 1e-3 as it is",
        {
            "samples_per_class": (ALL,), "standardize": False, "augmentation": "crop_flip_report", "optimizer": "adam",
            "lr": 1e-3, "weight_decay": 1e-5, "schedule": "constant", "epochs": 100, "batch_size": 64, "min_steps": 1,
        },
    ),
}  # fmt: skip


def preset_fields(name: str) -> dict[str, Any]:
    """Return the fields of a preset.

    Raises
    ------
    ConfigError
        There is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r}{suggestion(name, PRESETS)}")
    return PRESETS[name].fields
