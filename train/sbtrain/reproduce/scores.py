"""Numbers of result files, whatever command wrote them: one dictionary of shares a fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sbtrain.evaluation.finetune_config import fits_once
from sbtrain.evaluation.neighbors import WEIGHTED


def load(path: Path) -> dict[str, Any]:
    """Return the content of a result file; empty where it is missing or damaged."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def fits_of(path: Path, samples: int) -> list[dict[str, float]]:
    """Return the scores of each fit by draw: of fine-tuning those on `samples` labels a class.

    Keys: ``top1``, ``top5`` of classes; ``jaccard_macro`` and the like of attributes; ``knn`` and ``linear`` of a probe;
    ``nmi``, ``ami``, ``ari``, ``acc`` of clusters.
    """
    data = load(path)
    kind = str(data.get("format", "")).removeprefix("sbtrain-")
    if kind == "probe":
        return [_probed(fit) for fit in data.get("fits", [])]
    fits = [fit for fit in data.get("fits", []) if fit.get("samples", samples) == samples]
    same = kind in ("finetune", "attributes") and fits_once(data.get("config", {}), samples)
    return [_numbers(fit) for fit in (fits[:1] if same else fits)]


def _probed(fit: dict[str, Any]) -> dict[str, float]:
    votes = {(vote["k"], vote["temperature"]): vote["top1"] for vote in fit["neighbors"]}
    found = {"linear": fit["top1"]}
    key = (WEIGHTED.k, WEIGHTED.temperature)
    return found | ({"knn": votes[key]} if key in votes else {})


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, float) and name != "seconds"}
