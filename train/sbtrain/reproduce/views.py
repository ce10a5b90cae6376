"""The tables of the Self-Classifier and SimSiam reports as data: every line of them, and the runs that it is read from.

Beside the published numbers stand nearest neighbors, and those of the same network with new weights: what pretraining gave
and a shorter budget leaves of it can be told from what any network gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sbformat.schema import TargetSpec
from sbtrain.evaluation.cluster_config import ClusterConfig
from sbtrain.evaluation.finetune_config import FinetuneConfig
from sbtrain.evaluation.probe_config import ProbeConfig
from sbtrain.presets import resolve
from sbtrain.report.published import PublishedRow, published_table
from sbtrain.reproduce.cells import Cell, Images, Measure, Row, Setting, Table
from sbtrain.reproduce.data import NOISE
from sbtrain.reproduce.judges import Evaluation
from sbtrain.reproduce.scales import Budget
from sbtrain.reproduce.view_scales import CORES, FLOPS, SELF_CLASSIFIER, VIEW_SCALES, ViewScale

#: Of lines of the STL-10 and CelebA tables that begin with a network trained on ImageNet's labels.
NOT_HERE = "weights of ImageNet labels are not trained here: give them, --weights {}=FILE"
SCRATCH = ", from scratch"
#: Beginning of the names of cells that begin with them.
IMAGENET = "imagenet-labels-"
_CLUSTERS = {"nmi": "NMI", "ami": "AMI", "ari": "ARI", "acc": "ACC"}
_ATTRIBUTES = {
    "jaccard_macro": "Jaccard macro", "auc_macro": "AUC macro", "jaccard_micro": "Jaccard micro", "auc_micro": "AUC micro",
}  # fmt: skip
#: Images of train in the reports.
_TRAIN = {"cifar10": 40_000, "stl10": 5_000, "celeba": 162_770}


def self_classifier(setting: Setting) -> Table:
    """Clusters of Self-Classifier's own classes, and linear evaluation."""
    rows = zip(SELF_CLASSIFIER, published_table("self-classifier").rows, strict=True)
    return Table(
        name="self-classifier",
        about="clusters and linear evaluation of Self-Classifier",
        rows=tuple(_clusters(setting, name, line) for name, line in rows),
    )


def simsiam(setting: Setting) -> Table:
    """Networks fine-tuned end to end after SimSiam, on three data sets, and from scratch."""
    cifar = published_table("simsiam-cifar10").rows
    data = ("cifar10", NOISE, "cifar10")
    rows = [_classes(setting, d, "resnet18", line, "simsiam-cifar10") for d, line in zip(data, cifar, strict=True)]
    rows += [_classes(setting, "stl10", _network(line), line, "simsiam-stl10") for line in _lines("simsiam-stl10")]
    rows += [_attributes(setting, _network(line), line) for line in _lines("simsiam-celeba")]
    return Table(name="simsiam", about="fine-tuning after SimSiam", rows=tuple(rows))


def _lines(table: str) -> tuple[PublishedRow, ...]:
    return published_table(table).rows


def _network(line: PublishedRow) -> str:
    return str(line.keys["network"]).removesuffix("_2021")


def _clusters(setting: Setting, name: str, line: PublishedRow) -> Row:
    scale, split = VIEW_SCALES[setting.scale.name], _reported(setting)
    shared: dict[str, Any] = {"seed": 0, "eval_split": split, "eval_limit": scale.limit}
    clusters = ClusterConfig(method="classifier", draws=1, split=split, limit=scale.limit, center=scale.center)
    linear = FinetuneConfig(**{**scale.linear, **shared})
    evaluations: dict[str, Evaluation] = {"clusters": clusters, "linear": linear, **_neighbors(scale, shared)}
    of = _of(split)
    alike = [row.values for row in _lines("self-classifier-linear") if _same(row, line)]
    published = {**line.values, **(alike[0] if alike else {})}
    measures = [*_measures("clusters", {key: f"{title}{of}" for key, title in _CLUSTERS.items()}, published)]
    measures += _measures("linear", {"top1": f"linear top-1{of}", "top5": f"linear top-5{of}"}, published)
    images = Images(pretrained_on="cifar10", judged_on="cifar10", train=50_000, stand_in=scale.stand_in)
    cells = _cells(setting, f"self-classifier-{name}", images, evaluations)
    return _row(line, cells, [*measures, *_of_neighbors(of)], "self-classifier")


def _same(row: PublishedRow, line: PublishedRow) -> bool:
    return all(row.keys[key] == line.keys[key] for key in ("network", "hidden", "epochs"))


def _classes(setting: Setting, data: str, network: str, line: PublishedRow, source: str) -> Row:
    scale, split, control = VIEW_SCALES[setting.scale.name], _reported(setting), line.keys.get("start") == "none"
    if _lacks_weights(setting, network, line):
        return _published_only(network, line, {"top1": "top-1"}, source)
    shared: dict[str, Any] = {"seed": 0, "eval_split": split, "eval_limit": scale.limit}
    fine = {**scale.finetune, "draws": scale.fine_draws.get(data, 1), **shared, "from_scratch": control}
    name = f"fine-tuned{SCRATCH if control else ''}"
    evaluations: dict[str, Evaluation] = {name: FinetuneConfig(**fine)}
    # Where a stand-in is reported by val, that is no number of test: STL-10's lines have none of val.
    published = line.values.get("val" if split == "val" else "top1")
    measures = [Measure(f"top-1{_of(split)}", name, "top1", published)]
    if "val" in line.values and split != "val":
        evaluations[f"{name}, val"] = FinetuneConfig(**{**fine, "eval_split": "val"})
        measures.append(Measure(f"top-1, val{SCRATCH if control else ''}", f"{name}, val", "top1", line.values["val"]))
    if not control:
        evaluations |= _neighbors(scale, shared)
        measures += _of_neighbors(_of(split))
    judged = "cifar10" if data == NOISE else data
    images = Images(pretrained_on=data, judged_on=judged, train=_TRAIN[judged], stand_in=scale.stand_in)
    weights = _weights(setting, network, line)
    return _row(line, _cells(setting, f"simsiam-{data}-{network}", images, evaluations, weights), measures, source)


def _attributes(setting: Setting, network: str, line: PublishedRow) -> Row:
    scale, control = VIEW_SCALES[setting.scale.name], line.keys.get("start") == "none"
    titles = {
        f"{part}{key}": f"{title}{', val' if part else ''}"
        for part in ("val_", "")
        for key, title in _ATTRIBUTES.items()
    }
    if _lacks_weights(setting, network, line):
        return _published_only(network, line, titles, "simsiam-celeba")
    evaluations: dict[str, Evaluation] = {}
    measures: list[Measure] = []
    for split in ("val", "test"):
        name = f"fine-tuned{SCRATCH if control else ''}{', val' if split == 'val' else ''}"
        fields = {**scale.finetune, "draws": 1, "seed": 0, "eval_split": split, "eval_limit": scale.limit}
        evaluations[name] = FinetuneConfig(**{**fields, "from_scratch": control})
        part = "val_" if split == "val" else ""
        measures += [Measure(titles[f"{part}{key}"], name, key, line.values.get(f"{part}{key}")) for key in _ATTRIBUTES]
    images = Images(pretrained_on="celeba", judged_on="celeba", train=_TRAIN["celeba"], stand_in=scale.stand_in)
    weights = _weights(setting, network, line)
    cells = _cells(setting, f"simsiam-celeba-{network}", images, evaluations, weights)
    return _row(line, cells, measures, "simsiam-celeba")


def _lacks_weights(setting: Setting, network: str, line: PublishedRow) -> bool:
    return line.keys.get("start") == "imagenet" and network not in setting.weights


def _weights(setting: Setting, network: str, line: PublishedRow) -> Path | None:
    return setting.weights[network] if line.keys.get("start") == "imagenet" else None


def _reported(setting: Setting) -> str:
    # A stand-in has the splits that the setting was made for; the data sets of the reports all have test.
    return setting.eval_split if VIEW_SCALES[setting.scale.name].stand_in else "test"


def _neighbors(scale: ViewScale, shared: dict[str, Any]) -> dict[str, Evaluation]:
    config = ProbeConfig(**{"layers": ("backbone",), **scale.probe, **shared})
    return {"neighbors": config, f"neighbors{SCRATCH}": replace(config, from_scratch=True)}


def _of(split: str) -> str:
    """Return what the name of a number says of its images: nothing of test, which the reports have."""
    return "" if split == "test" else f", {split}"


def _of_neighbors(of: str) -> list[Measure]:
    return [
        Measure(f"kNN (200, t = 0.1){of}", "neighbors", "knn"),
        Measure(f"kNN of new weights{of}", f"neighbors{SCRATCH}", "knn"),
    ]


def _measures(evaluation: str, titles: Mapping[str, str], published: Mapping[str, float]) -> list[Measure]:
    return [Measure(title, evaluation, key, published.get(key)) for key, title in titles.items()]


def _row(line: PublishedRow, cells: tuple[Cell, ...], measures: list[Measure], source: str) -> Row:
    control = line.keys.get("start") == "none"
    data = published_table(source).title.rpartition("report, ")[2] if source.startswith("simsiam") else ""
    return Row(
        name=f"{data}: {line.name}" if data else line.name, about={**line.keys, "control": control}, cells=cells, samples=0,
        published=line.values, measures=tuple(measures), source=source,
    )  # fmt: skip


def _published_only(network: str, line: PublishedRow, titles: Mapping[str, str], source: str) -> Row:
    return replace(_row(line, (), _measures("", titles, line.values), source), note=NOT_HERE.format(network))


def _cells(
    setting: Setting, name: str, images: Images, evaluations: dict[str, Evaluation], weights: Path | None = None
) -> tuple[Cell, ...]:
    scale = VIEW_SCALES[setting.scale.name]
    preset, fields = scale.pretrain.get(name, (f"report/{name}", {}))
    if scale.stand_in and images.pretrained_on == "stl10":  # a stand-in may have no unlabeled images
        fields = {**fields, "split": "unlabeled" if setting.split == "unlabeled" else "train"}
    flops = FLOPS[name] * scale.shrink.get(name, 1.0)
    if weights is not None:  # the same network and images, and no pretraining on them
        name, fields = f"{IMAGENET}{name}", {**fields, "epochs": 0, "weights": str(weights)}
    # A forward pass of one plain view is a sixth of a step on two.
    budget = Budget(evaluations={}, images_per_s=CORES / flops, features_per_s=6 * CORES / flops, checkpoint_every=200)
    made = []
    for seed in range(setting.seeds or 1):
        config, _ = resolve(preset, {**fields, "seed": seed})
        mine = tuple((each, replace(evaluation, seed=seed)) for each, evaluation in evaluations.items())
        made.append(
            Cell(
                name=f"{name}-seed{seed}", preset=preset, colorspace="rgb", target=TargetSpec(), config=config,
                evaluations=mine, budget=budget, images=images,
            )
        )  # fmt: skip
    return tuple(made)
