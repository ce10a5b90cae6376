"""What the reports publish, as data: tables of rows, and the runs that each row is read from.

A cell is one pretraining run; rows of several tables may share it. To reproduce another paper, write a function that returns
a `Table` and name it in `TABLES`: nothing else knows one table from another.

A row without published numbers was tried in the report, or left open by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import product
from typing import Any

from sbformat.errors import ConfigError
from sbformat.schema import COLORSPACES, TargetSpec
from sbtrain.evaluation.finetune_config import FinetuneConfig
from sbtrain.presets import resolve
from sbtrain.report.published import published_table
from sbtrain.reproduce.cells import Cell, Row, Setting, Table
from sbtrain.reproduce.judges import Evaluation
from sbtrain.reproduce.scales import NETWORKS
from sbtrain.reproduce.views import self_classifier, simsiam

#: Networks of the report's Table 1, as they stand in it.
TABLE1 = ("fc-alexnet", "resnet18", "simplenet")
NOISES, LEVELS = ("masking", "gaussian", "salt-and-pepper"), (0.05, 0.1, 0.2, 0.5)
SIZES, SINGLE_BINS, DUAL_BINS = (12, 16, 25), (100, 200), (10, 16, 25)
#: Networks and color spaces that table 1 shows from scratch too.
CONTROLS = {*product(("simplenet",), COLORSPACES), *product(TABLE1, ("rescaled_lab",))}
#: What the report and we call these.
SHOWN = {
    "fc-alexnet": "FC-AlexNet", "resnet18": "ResNet18", "simplenet": "SimpleNet", "autoencoder": "DAE",
    "rgb": "RGB", "lab": "Lab", "rescaled_lab": "re-scaled Lab",
}  # fmt: skip


def table1(setting: Setting) -> Table:
    """Networks x color spaces, the denoising autoencoder, and every network from scratch.

    SimpleNet in every color space, being cheap: what pretraining gives is not what a color space alone gives.
    """
    rows = [
        _row(setting, f"{SHOWN[n]}, {SHOWN[c]}", _halves(setting, n, c), "split-brain-1", network=n, colorspace=c)
        for n, c in product(TABLE1, COLORSPACES)
    ]
    noise = _denoising(setting, "salt-and-pepper", 0.05)
    about: dict[str, Any] = {"network": "autoencoder", "colorspace": "rgb"}
    rows.append(_row(setting, "DAE, salt-and-pepper 5 %, RGB", noise, "split-brain-1", **about))
    rows += [
        _row(setting, f"{SHOWN[n]} from scratch, {SHOWN[c]}", cells, None, network=n, colorspace=c, control=True)
        for n, c, cells in [
            *((n, c, _halves(setting, n, c)) for n, c in product(TABLE1, COLORSPACES) if (n, c) in CONTROLS),
            ("autoencoder", "rgb", noise),
        ]
    ]
    return Table(name="table1", about="networks x color spaces, Table 1", rows=tuple(rows))


def table2(setting: Setting) -> Table:
    """ResNet18 on re-scaled Lab: labels a class, beside the same network from scratch."""
    cells = _halves(setting, "resnet18", "rescaled_lab", seeds=1)
    rows = []
    for k, control in product(setting.scale.samples, (False, True)):
        about = {"network": "resnet18", "colorspace": "rescaled_lab", "samples_per_class": k}
        name = f"{k} per class" + (", from scratch" if control else "")
        rows.append(_row(setting, name, cells, None if control else "split-brain-2", k, control=control, **about))
    return Table(name="table2", about="samples per class, Table 2", rows=tuple(rows))


def figures(setting: Setting) -> Table:
    """Return the runs behind the pictures: the fine-tuning curve, and SimpleNet in three color spaces."""
    shown = [
        _row(
            setting,
            f"reconstructions, {SHOWN[c]}",
            _halves(setting, "simplenet", c, 1),
            None,
            colorspace=c,
            pictures=True,
        )
        for c in COLORSPACES
    ]
    return Table(name="figures", about="fine-tuning curve, reconstructions", rows=(*table2(setting).rows, *shown))


def noise(setting: Setting) -> Table:
    """Kinds and levels of noise of the denoising autoencoder."""
    rows = [
        _row(
            setting, f"{kind} {level:.0%}", _denoising(setting, kind, level, seeds=1),
            "split-brain-1", network="autoencoder", noise=kind, noise_level=level,
        )
        for kind, level in product(NOISES, LEVELS)
    ]  # fmt: skip
    return Table(name="noise", about="noise of the denoising autoencoder", rows=tuple(rows))


def targets(setting: Setting) -> Table:
    """Sizes and bins of the target maps: SimpleNet on re-scaled Lab, the quickest in the report's best color space."""
    rows = []
    for size, single, dual in product(SIZES, SINGLE_BINS, DUAL_BINS):
        target = replace(setting.target, size=size, bins="uniform", single=single, dual=dual)
        cells = _halves(setting, "simplenet", "rescaled_lab", seeds=1, target=target)
        about: dict[str, Any] = {"size": size, "single": single, "dual": dual}
        rows.append(_row(setting, f"{size} x {size}, {single} and {dual} x {dual} bins", cells, None, **about))
    return Table(name="targets", about="sizes and bins of the target maps", rows=tuple(rows))


def ablations(setting: Setting) -> Table:
    """Return what the reports leave open, SimpleNet on re-scaled Lab: schedules at two rates, and what the network sees."""
    budget = setting.scale.budgets["simplenet"].ablations

    def row(name: str, variant: str, **fields: Any) -> Row:
        cells = _halves(setting, "simplenet", "rescaled_lab", 1, variant=variant, **budget, **fields)
        return _row(setting, name, cells, None, **fields)

    schedules = (("epoch-decay", "a tenth after every epoch"), ("one-cycle", "one cycle"))
    rows = [
        row(f"{shown}, rate {lr:g}", f"{schedule}-{lr:g}", schedule=schedule, lr=lr)
        for (schedule, shown), lr in product(schedules, (1e-4, 2e-3))
    ]
    rows += [row(f"input {kind}", f"input-{kind}", input=kind) for kind in ("stored", "lab")]
    return Table(name="ablations", about="schedule at equal compute, stored against Lab input", rows=tuple(rows))


TABLES: dict[str, Callable[[Setting], Table]] = {
    "table1": table1, "table2": table2, "figures": figures, "noise": noise, "targets": targets, "ablations": ablations,
    "self-classifier": self_classifier, "simsiam": simsiam,
}  # fmt: skip


def tables_of(name: str, setting: Setting) -> list[Table]:
    """Return the tables that a name on the command line stands for, runs that are the same under the same name.

    Raises
    ------
    ConfigError
        There is no such table.
    """
    if name not in (*TABLES, "all"):
        raise ConfigError(f"table {name!r}, expected one of {', '.join((*TABLES, 'all'))}")
    # All of them, whichever is asked for: a run that two tables share has the same folder in every call.
    known: dict[Any, str] = {}
    found = [_named_alike(make(setting), known) for make in TABLES.values()]
    return [table for table in found if name in ("all", table.name)]


def cells_of(tables: list[Table]) -> list[Cell]:
    """Return every run of `tables` once, with all its evaluations, in the order in which they are made."""
    merged: dict[str, Cell] = {}
    for cell in (cell for table in tables for row in table.rows for cell in row.cells):
        before = merged.setdefault(cell.name, cell)
        evaluations = dict(before.evaluations)
        for name, config in cell.evaluations:
            evaluations[name] = _both(evaluations.get(name, config), config)
        merged[cell.name] = replace(before, evaluations=tuple(evaluations.items()))
    order = [*NETWORKS, None]
    return sorted(merged.values(), key=lambda cell: order.index(None if cell.images else cell.config.network))


def _both(there: Evaluation, config: Evaluation) -> Evaluation:
    if not (isinstance(there, FinetuneConfig) and isinstance(config, FinetuneConfig)):
        return config
    return replace(config, samples_per_class=tuple(sorted({*there.samples_per_class, *config.samples_per_class})))


def _named_alike(table: Table, known: dict[Any, str]) -> Table:
    def named(cell: Cell) -> Cell:
        key = cell.colorspace, cell.target, cell.images, cell.config
        return replace(cell, name=known.setdefault(key, cell.name))

    rows = (replace(row, cells=tuple(named(cell) for cell in row.cells)) for row in table.rows)
    return replace(table, rows=tuple(rows))


def _row(
    setting: Setting, name: str, cells: Iterable[Cell], published: str | None,
    samples: int | None = None, control: bool = False, **about: Any,
) -> Row:  # fmt: skip
    samples = samples or setting.scale.headline
    made = tuple(replace(cell, evaluations=_evaluations(setting, cell, samples, control)) for cell in cells)
    numbers = _published(published, {**about, "samples": samples}) if published else {}
    return Row(name=name, about={**about, "control": control}, cells=made, samples=samples, published=numbers)


def _published(table: str, about: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of the line of a published table that is of the same network, color space, noise, samples."""
    keys = {"network", "colorspace", "noise", "noise_level", "samples"}
    for row in published_table(table).rows:
        if all(row.keys[name] == about.get(name, row.keys[name]) for name in keys & set(row.keys)):
            return row.values
    return {}


def _evaluations(setting: Setting, cell: Cell, samples: int, control: bool) -> tuple[tuple[str, FinetuneConfig], ...]:
    # A seed draws labels of its own, so that an interval over seeds is one over both.
    shared: dict[str, Any] = {"eval_split": setting.eval_split, "seed": cell.config.seed, "from_scratch": control}
    return tuple(
        (name + (", from scratch" if control else ""), FinetuneConfig(samples_per_class=(samples,), **shared, **fields))
        for name, fields in cell.budget.evaluations.items()
    )


def _halves(
    setting: Setting, network: str, colorspace: str, seeds: int | None = None, variant: str = "",
    target: TargetSpec | None = None, **fields: Any,
) -> list[Cell]:  # fmt: skip
    if target is not None and target != setting.target:
        variant = f"t{target.size}-{target.single}-{target.dual}x{target.dual}"
    base = "-".join(filter(None, (network, colorspace, variant)))
    return _cells(setting, base, f"report/{network}-{colorspace}", network, colorspace, seeds, target, fields)


def _denoising(setting: Setting, kind: str, level: float, seeds: int | None = None) -> list[Cell]:
    fields = {"noise": kind, "noise_level": level}
    base = f"autoencoder-{kind}-{round(level * 100)}"
    return _cells(setting, base, "report/denoising", "autoencoder", "rgb", seeds, None, fields)


def _cells(
    setting: Setting, base: str, preset: str, network: str, colorspace: str, seeds: int | None,
    target: TargetSpec | None, fields: dict[str, Any],
) -> list[Cell]:  # fmt: skip
    budget = setting.scale.budgets[network]
    made = []
    for seed in range(seeds or setting.seeds or budget.seeds):
        config, _ = resolve(preset, {**budget.pretrain, "split": setting.split, "seed": seed, **fields})
        made.append(
            Cell(
                name=f"{base}-seed{seed}", preset=preset, colorspace=colorspace, target=target or setting.target,
                config=config, evaluations=(), budget=budget,
            )
        )  # fmt: skip
    return made
