"""Published numbers as data: ``published.toml``, one table a source, rows keyed by method, network and color space."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal

OTHER_DATA, OTHER_PROTOCOL = "other data", "other protocol"
Kind = Literal["accuracy", "few_shot", "clustering", "layers", "attributes", "reference"]

#: Of the lines of Self-Classifier's report.
REPORT_EPOCHS = (100, 200)
#: Column heads of `PublishedTable.metrics`; what is not here stands as it is.
TITLES = {
    "top1": "top-1", "top5": "top-5", "nmi": "NMI", "ami": "AMI", "ari": "ARI", "acc": "ACC", "val": "val top-1",
    "val_jaccard_macro": "val Jaccard, macro", "val_auc_macro": "val AUC, macro", "val_jaccard_micro": "val Jaccard, micro",
    "val_auc_micro": "val AUC, micro", "jaccard_macro": "Jaccard, macro", "auc_macro": "AUC, macro",
    "jaccard_micro": "Jaccard, micro", "auc_micro": "AUC, micro",
}  # fmt: skip


@dataclass(frozen=True)
class PublishedRow:
    """One line of a published table; `keys` say of what, `values` are shares of 1."""

    name: str
    keys: dict[str, Any]
    values: dict[str, float]

    def matches(self, config: dict[str, Any], colorspace: str | None, noise: bool = False) -> bool:
        """Return whether a run of ours is of this line's kind: a network's variants, such as ``-head``, count as it.

        To a line without pretraining belong the run's results from scratch, to that of random images a run on `noise`, to
        that of ImageNet's labels one of given weights and no steps.
        """
        given = bool(config.get("weights")) and config.get("epochs") == 0
        if self.keys.get("start") not in ("none", "imagenet" if given else "random" if noise else None):
            return False
        network, method = str(config.get("network", "")), config.get("method")
        mine = self.keys.get("network", "")
        if method != self.keys.get("method") or not (network == mine or network.startswith(f"{mine}-")):
            return False
        if any(
            name in config and config[name] != self.keys.get(name, config[name]) for name in ("noise", "noise_level")
        ):
            return False
        if "hidden" in self.keys and not self._same_head(config):
            return False
        return self.keys.get("colorspace", colorspace) == colorspace

    def _same_head(self, config: dict[str, Any]) -> bool:
        # Runs of some other number of epochs, reduced ones, stand at every line of their network and head.
        own, epochs = f"{self.keys['hidden']}hl", config.get("epochs")
        return config.get("head", own) == own and (epochs not in REPORT_EPOCHS or epochs == self.keys["epochs"])


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """One published table with its source, and the size of the data set that it is of."""

    id: str
    title: str
    source: str
    kind: Kind
    metrics: tuple[str, ...]
    rows: tuple[PublishedRow, ...] = field(repr=False)
    classes: int | None = None
    train_images: int | None = None
    eval_images: int | None = None
    labels: int | None = None
    """For each class, of the lines that do not say their own; None: all of the images of training."""
    presets: tuple[str, ...] = ()
    """How the names of the presets begin whose runs stand in it alone."""
    frozen: bool | None = None
    """Whether a classifier alone was trained; None: it does not apply."""

    @property
    def methods(self) -> set[str]:
        """Methods that it has lines of."""
        return {row.keys["method"] for row in self.rows}

    def same_data(self, classes: Any, train_images: Any, eval_images: Any) -> bool:
        """Return whether a data set of ours has its number of classes and images: its bytes are not published."""
        ours, theirs = (classes, train_images, eval_images), (self.classes, self.train_images, self.eval_images)
        return all(a == b for a, b in zip(ours, theirs, strict=True) if b is not None)

    def other(self, judged: dict[str, Any]) -> str:
        """Return why a number of ours, as `judged_of` tells of it, is no comparison of methods; empty where it is one."""
        images = judged.get("train_images")
        used = images if self.labels else judged.get("used_images") or images
        same = self.same_data(judged.get("classes"), used, judged.get("eval_images")) and not judged.get("part")
        frozen = judged.get("frozen")
        protocol = self.frozen is not None and frozen is not None and frozen != self.frozen
        return ", ".join(([] if same else [OTHER_DATA]) + ([OTHER_PROTOCOL] if protocol else []))


def judged_of(data: dict[str, Any], samples: int | None = None) -> dict[str, Any]:
    """Return what a result file was judged on: classes, images, whether a part of them, and whether networks were frozen.

    Of fine-tuning, `used_images` are those of the fits on `samples` labels a class.
    """
    config, record = (value if isinstance(value, dict) else {} for value in (data.get("config"), data.get("data")))
    train, fits = record.get(str(config.get("split"))), data.get("fits")
    mine = [fit for fit in fits if isinstance(fit, dict)] if isinstance(fits, list) else []
    used = [fit.get("images") for fit in mine if samples is None or fit.get("samples", samples) == samples]
    freeze = config.get("freeze")
    return {
        "classes": data.get("classes"),
        "train_images": train.get("images") if isinstance(train, dict) else None,
        "used_images": used[0] if used else None,
        "eval_images": data.get("eval_images"),
        "part": bool(config.get("eval_limit")),
        "frozen": freeze if isinstance(freeze, bool) else None,
    }


@cache
def published_tables() -> tuple[PublishedTable, ...]:
    """Return every table of ``published.toml``, in its order."""
    text = (resources.files("sbtrain.report") / "published.toml").read_text(encoding="utf-8")
    return tuple(_table(data) for data in tomllib.loads(text)["table"])


def published_table(name: str) -> PublishedTable:
    """Return one of them by its id."""
    return next(table for table in published_tables() if table.id == name)


def _table(data: dict[str, Any]) -> PublishedTable:
    metrics = tuple(data["metrics"])
    rows = tuple(
        PublishedRow(
            row["name"],
            {key: value for key, value in row.items() if key not in (*metrics, "name")},
            {key: float(row[key]) for key in metrics if key in row},
        )
        for row in data["rows"]
    )
    return PublishedTable(**{**data, "metrics": metrics, "rows": rows, "presets": tuple(data.get("presets", ()))})
