"""One result of fine-tuning as a report reads it: fits that cannot be are left out, and it says so."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from sbtrain.evaluation.few_shot import ALL
from sbtrain.evaluation.finetune_config import fits_once
from sbtrain.evaluation.finetune_result import Fit, Shot, counted
from sbtrain.report.published import judged_of

_FIT = {entry.name for entry in fields(Fit)}


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """One result of ``sbtrain finetune``: classifiers of one setting, by labels a class."""

    file: str
    config: dict[str, Any]
    data: dict[str, Any]
    classes: int
    eval_images: int
    shots: tuple[Shot, ...]
    confusion: dict[str, Any] | None = None
    device: str = ""
    problem: str = ""
    """What of its fits cannot be shown."""

    @property
    def scratch(self) -> bool:
        """New weights: the control."""
        return bool(self.config.get("from_scratch"))

    @property
    def setting(self) -> str:
        """Layer, and what of the network learns."""
        pool = self.config.get("pool")
        parts = [str(self.config.get("layer") or "last layer") + (f" {pool}×{pool}" if pool else "")]
        parts += ["frozen" if self.config.get("freeze") else "end to end"]
        parts += ["ridge"] if self.config.get("head") == "ridge" else []
        parts += ["the report's draw"] if self.config.get("protocol") == "report" else []
        return ", ".join(parts)

    @property
    def train_images(self) -> int | None:
        """Labeled images there are."""
        images = self.data.get(str(self.config.get("split")), {}).get("images")
        return images if isinstance(images, int) else None

    def judged(self, shot: Shot) -> dict[str, Any]:
        """Return what the numbers of `shot` are of, for `PublishedTable.other`."""
        data = {"config": self.config, "data": self.data, "classes": self.classes, "eval_images": self.eval_images}
        return judged_of({**data, "fits": [{"images": shot.fits[0].images}]})

    @property
    def control_key(self) -> str:
        """What a result and its control have in common."""
        data = {split: record.get("digest") for split, record in self.data.items()}
        return json.dumps([{**self.config, "from_scratch": None}, data], sort_keys=True)


def read_finetuned(file: str, data: dict[str, Any]) -> Finetuned:
    """Return the content of a result file.

    Raises
    ------
    KeyError, TypeError, ValueError, AttributeError
        It is damaged, or none of its fits can be.
    """
    fits, bad = _fits(data["fits"])
    if not fits:
        raise bad[0] if bad else ValueError("no fit")
    numbers = sorted({fit.samples for fit in fits}, key=lambda k: (k == ALL, k))
    config, confusion = dict(data["config"]), data.get("confusion")
    of_number = {k: tuple(fit for fit in fits if fit.samples == k) for k in numbers}
    left = f"{len(bad)} of {len(fits) + len(bad)} fits cannot be ({reason_of(bad[0])}): left out" if bad else ""
    return Finetuned(
        file=file,
        config=config,
        data={split: dict(record) for split, record in data["data"].items()},
        classes=int(data["classes"]),
        eval_images=int(data["eval_images"]),
        shots=tuple(Shot(counted(config, mine), fits_once(config, k)) for k, mine in of_number.items()),
        confusion=confusion if isinstance(confusion, dict) else None,
        device=str(data.get("device", "")),
        problem=left,
    )


def _fits(records: Any) -> tuple[list[Fit], list[Exception]]:
    """Return the fits that can be, and what is wrong with the others."""
    fits: list[Fit] = []
    bad: list[Exception] = []
    for record in records:
        try:
            fit = Fit(**{name: value for name, value in record.items() if name in _FIT})
            if not (0 <= fit.top1 <= 1 and 0 <= fit.top5 <= 1):
                raise ValueError(f"an accuracy of {fit.top1}, {fit.top5}")
            fits.append(fit)
        except (TypeError, ValueError, AttributeError) as error:
            bad.append(error)
    return fits, bad


def reason_of(error: Exception) -> str:
    """Return what is wrong with a damaged file, in words."""
    return f"no {error}" if isinstance(error, KeyError) else str(error)
