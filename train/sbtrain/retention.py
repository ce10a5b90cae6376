"""Which checkpoints of a run stay: the newest, one to roll back to, and the best if that is asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from sbtrain.checkpoint import checkpoint_name, found


def prune(folder: Path, newest: int, keep: int, keep_best: bool = False) -> None:
    """Remove what is no longer wanted: older checkpoints, and what killed processes or damage left.

    Parameters
    ----------
    folder : Path
    newest : int
        Step of the one just written; those beyond it were found damaged when the run went on before them.
    keep : int
        How many to keep, 1 or more, and the newest regular one: a rollback goes there.
    keep_best : bool
        Keep the one of lowest ``loss`` as well.
    """
    paths = [path for path in found(folder) if path.name <= checkpoint_name(newest)]
    kept = {*paths[:keep], *[path for path in paths if _is_regular(path)][:1]}
    if keep_best and (champion := _best(folder)) is not None:
        kept.add(champion)
    for path in [*found(folder), *folder.glob(".step-*.tmp")]:
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)


def _best(folder: Path) -> Path | None:
    """Return the checkpoint whose ``loss``, the mean training loss since the one before, is lowest.

    Pretraining has no other number: the aim is to notice a run that fell apart, not to select a model.
    """
    losses = {path: loss for path in found(folder) if (loss := _loss(path)) is not None}
    return min(losses, key=lambda path: losses[path]) if losses else None


def _loss(path: Path) -> float | None:
    loss = _state(path).get("loss")
    return loss if isinstance(loss, float) else None


def _is_regular(path: Path) -> bool:
    state = _state(path)
    return bool(state) and bool(state.get("regular", True))


def _state(path: Path) -> dict[str, Any]:
    """Content of state.json, not verified; empty where it cannot be read."""
    try:
        state = json.loads((path / "state.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}
