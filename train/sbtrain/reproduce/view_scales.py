"""Budgets of SimSiam's and Self-Classifier's tables at each scale, by the preset of the report that a cell stands for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sbtrain.evaluation.few_shot import ALL
from sbtrain.evaluation.finetune_presets import preset_fields

SELF_CLASSIFIER = ("resnet18-1hl", "resnet18-2hl", "alexnet-2hl", "alexnet-2hl-200")
#: Data set -> its backbones.
SIMSIAM = {
    "cifar10": ("resnet18",),
    "noise": ("resnet18",),
    "stl10": ("resnet18", "efficientnet_b0", "vit_small", "pit_ti"),
    "celeba": ("resnet18", "pit_ti"),
}
#: Floating-point operations of a training step an image, forward and backward, as `sbtrain.build.count_flops` says.
FLOPS = {
    "self-classifier-resnet18-1hl": 33.0e9, "self-classifier-resnet18-2hl": 34.0e9, "self-classifier-alexnet-2hl": 15.0e9,
    "self-classifier-alexnet-2hl-200": 15.0e9, "simsiam-cifar10-resnet18": 1.7e9, "simsiam-noise-resnet18": 1.7e9,
    "simsiam-stl10-resnet18": 21.3e9, "simsiam-stl10-efficientnet_b0": 4.6e9, "simsiam-stl10-vit_small": 118.2e9,
    "simsiam-stl10-pit_ti": 8.3e9, "simsiam-celeba-resnet18": 21.3e9, "simsiam-celeba-pit_ti": 8.3e9,
}  # fmt: skip
#: FLOP/s of 2 cores of an AMD EPYC (Zen 5) in bfloat16, for a first guess at the time.
CORES = 0.2e12


@dataclass(frozen=True, kw_only=True)
class ViewScale:
    """What every cell of the two tables gets at a scale."""

    finetune: dict[str, Any]
    """Fields of SimSiam's end-to-end `FinetuneConfig`."""
    linear: dict[str, Any]
    """Fields of Self-Classifier's linear evaluation."""
    probe: dict[str, Any]
    """Fields of the `ProbeConfig` whose nearest neighbors stand beside both."""
    center: float
    """Part of the images that Self-Classifier's evaluations see."""
    pretrain: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    """Cell -> preset and fields over it, instead of the report's preset as it is."""
    shrink: dict[str, float] = field(default_factory=dict)
    """Cell -> share of the FLOPs of the report's views that its own need; 1 otherwise."""
    stand_in: bool = False
    """Where a data set is missing, any labeled color set may show that everything runs."""
    limit: int = 0
    """Reported images of each evaluation; 0: all."""
    fine_draws: dict[str, int] = field(default_factory=dict)
    """Data set -> draws of fine-tuning; 1 otherwise."""


_FINE, _LINEAR = preset_fields("simsiam-finetune-report"), preset_fields("self-classifier-linear-report")
_RIDGE = {"samples_per_class": (ALL,), "draws": 1, "freeze": True, "head": "ridge"}
_CENTERED = {"center": 0.875}

FULL = ViewScale(
    finetune=_FINE, linear={**_LINEAR, "draws": 1}, probe={"draws": 1}, center=0.875,
    fine_draws={"cifar10": 3, "noise": 3, "stl10": 3},
)  # fmt: skip


def _native(head: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "modern/self-classifier-cifar10", {
        "head": head, "epochs": 1, "limit": 20_000, "batch_size": 128, "warmup_epochs": 0, **fields,
    }  # fmt: skip


def _siamese(**fields: Any) -> dict[str, Any]:
    return {"epochs": 4, "limit": 5000, "batch_size": 128, "accumulate": 1, "lr": 1e-3, "warmup_epochs": 0, **fields}


# AlexNet sees no less than 63 pixels: local crops of 63, 18 / 32 of the global ones.
_ALEXNET = {"network": "alexnet", "view_size": 112}
SMALL = ViewScale(
    finetune={**_FINE, "epochs": 3, "draws": 1, "samples_per_class": (500,), "schedule": "one-cycle"},
    linear=_RIDGE, probe={"draws": 1, "epochs": 4}, center=1.0, limit=2000,
    pretrain={
        "self-classifier-resnet18-1hl": _native("1hl"),
        "self-classifier-resnet18-2hl": _native("2hl"),
        "self-classifier-alexnet-2hl": _native("2hl", **_ALEXNET),
        "self-classifier-alexnet-2hl-200": _native("2hl", **_ALEXNET | {"epochs": 2}),
        "simsiam-cifar10-resnet18": (
            "modern/simsiam-cifar10", {"epochs": 2, "limit": 25_000, "batch_size": 256, "lr": 0.03}
        ),
        "simsiam-noise-resnet18": (
            "modern/simsiam-cifar10",
            {"split": "unlabeled", "epochs": 2, "limit": 25_000, "batch_size": 256, "lr": 0.03},
        ),
        **{
            f"simsiam-{data}-{network}": (f"report/simsiam-{data}-{network}", _siamese(view_size=96))
            for data in ("stl10", "celeba") for network in SIMSIAM[data]
        },
    },
    shrink={
        "self-classifier-resnet18-1hl": 0.44, "self-classifier-resnet18-2hl": 0.43,
        "self-classifier-alexnet-2hl": 0.25, "self-classifier-alexnet-2hl-200": 0.25,
        "simsiam-cifar10-resnet18": 4.0, "simsiam-noise-resnet18": 4.0,
        **{f"simsiam-{data}-{network}": 0.18 for data in ("stl10", "celeba") for network in SIMSIAM[data]},
    },
)  # fmt: skip

_SHORT = {"epochs": 1, "warmup_epochs": 0, "accumulate": 1}
_SGD = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0}
_FEW = {"samples_per_class": (2,), "draws": 1, "eval_limit": 32}


def _token(name: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    return f"report/{name}", {**_SHORT, **fields}


# Without moments, and heads of a few units where the report's are larger than the networks: small checkpoints.
TINY = ViewScale(
    finetune={**_FEW, "epochs": 1, "min_steps": 2, "batch_size": 8, "standardize": False},
    linear={**_RIDGE, **_FEW},
    probe={"labels_per_class": 4, "draws": 1, "epochs": 1, "min_steps": 2, "eval_limit": 32},
    center=1.0, limit=32, stand_in=True,
    pretrain={
        "self-classifier-resnet18-1hl": _token("self-classifier-resnet18-1hl", view_size=64, limit=64, batch_size=32),
        "self-classifier-resnet18-2hl": _token(
            "self-classifier-resnet18-2hl", view_size=64, limit=64, batch_size=32, head="64-64-32"
        ),
        "self-classifier-alexnet-2hl": _token(
            "self-classifier-alexnet-2hl", view_size=160, limit=12, batch_size=12, head="64-64-32", **_SGD, lr=0.01
        ),
        "self-classifier-alexnet-2hl-200": _token(
            "self-classifier-alexnet-2hl-200", view_size=160, limit=12, batch_size=12, head="64-64-32", **_SGD, lr=0.01,
            epochs=2,
        ),
        **{
            f"simsiam-{data}-{network}": _token(
                f"simsiam-{data}-{network}", view_size=32, limit=32, batch_size=16, **_SGD, lr=0.05
            )
            for data, networks in SIMSIAM.items() for network in networks
        },
    },
    shrink=dict.fromkeys(FLOPS, 0.1),
)  # fmt: skip

VIEW_SCALES = {"full": FULL, "small": SMALL, "tiny": TINY}
