"""Our numbers beside the published ones, with differences and intervals, and what keeps them from being compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sbtrain.evaluation.finetune_result import Shot
from sbtrain.report.beside import DAMAGED, clustered, home_of, share, stands_in, three, with_attributes, without
from sbtrain.report.document import Block, Cell, Fold, Section, Table, Text, missing
from sbtrain.report.finetuned import Finetuned
from sbtrain.report.published import OTHER_DATA, TITLES, PublishedRow, PublishedTable, published_table, published_tables
from sbtrain.report.runs import Run

#: Classes that are all among the five likeliest.
FIVE = 5
SPACES = {"rgb": "RGB", "lab": "Lab", "rescaled_lab": "re-scaled Lab"}


def best_shot(result: Finetuned, labels: int | None = None) -> Shot:
    """Return the classifiers on every label, or on most; on `labels` a class, or up to them, where that is published."""
    within = [shot for shot in result.shots if labels is None or shot.fits[0].images <= labels * result.classes]
    return (within or list(result.shots))[-1]


def published_section(runs: Sequence[Run]) -> Section:
    """Return every published table that has to do with `runs`, beside what they have."""
    methods = {str(run.config.get("method")) for run in runs} or {"split_brain"}
    blocks: list[Block] = list(_data_remarks(runs))
    folded: list[Block] = []
    for table in published_tables():
        if not methods & table.methods or table.kind in ("layers", "few_shot"):
            continue
        if table.kind == "reference":
            folded.append(_reference(table, methods))
            continue
        pairs = [_beside(part, runs) for part in _parts(table)]
        target = blocks if any(ours for _, ours in pairs) else folded
        target += [*(shown for shown, _ in pairs), Text(f"Published: {table.source}.")]
    if folded:
        blocks.append(Fold("Published numbers without a run here", tuple(folded)))
    return Section("Beside the published numbers", "published", tuple(blocks))


def _data_remarks(runs: Sequence[Run]) -> list[Text]:
    found = []
    theirs = published_table("split-brain-1")
    sets = {
        (r.classes, r.train_images or 0, r.eval_images): OTHER_DATA in theirs.other(r.judged(r.shots[-1]))
        for run in runs
        for r in run.finetuned
    }
    others = sorted(each for each, other in sets.items() if other)
    if others and any(str(run.config.get("method")) in theirs.methods for run in runs):
        shown = "; ".join(f"{c:,} classes, {t:,} labeled images, {e:,} reported" for c, t, e in others)
        found.append(
            Text(
                f"Other data: these results are of {shown}; the published ones of 1,000 classes, 64,000 and 64,000. "
                f"A difference to them is marked “{OTHER_DATA}”: it compares data sets, not methods.",
                warning=True,
            )
        )
    if unlike := _judged_differently(runs):
        found.append(Text(unlike, warning=True))
    for colorspace in sorted({str(run.colorspace) for run in runs if run.colorspace}):
        groups: dict[str, list[str]] = {}
        for run in runs:
            if run.colorspace == colorspace:
                groups.setdefault(str(run.data.get("digest"))[:8], []).append(run.name)
        if len(groups) > 1:
            shown = "; ".join(f"{', '.join(names)} on images {digest}" for digest, names in groups.items())
            found.append(Text(f"Pretrained on different images of {colorspace}: {shown}.", warning=True))
    return found


def _judged_differently(runs: Sequence[Run]) -> str:
    """Return what keeps the runs' numbers from being compared with one another: other data sets, or other parts of one."""
    results = [(run, result) for run in runs for result in run.finetuned]
    seen: dict[tuple[str, str], set[str]] = {}  # each color space has bytes of its own
    parts: dict[tuple[int, str], dict[str, None]] = {}
    for run, result in results:
        split = str(result.config.get("eval_split"))
        seen.setdefault((str(run.colorspace), split), set()).add(str(result.data.get(split, {}).get("digest")))
        parts.setdefault((result.eval_images, split), {})[run.name] = None
    classes, labeled = ({count(each) or 0 for _, each in results} for count in (_classes, _labeled))
    unlike = [_either(numbers, what) for numbers, what in ((classes, "classes"), (labeled, "labeled images"))]
    unlike += sorted({f"other images of {split}" for (_, split), digests in seen.items() if len(digests) > 1})
    if any(unlike):
        said = "; ".join(filter(None, unlike))
        return f"The runs were judged on different data sets ({said}): compare numbers within a row only."
    if len(parts) < 2:
        return ""
    shown = "; ".join(f"{images:,} of {split} ({', '.join(names)})" for (images, split), names in parts.items())
    option = "--eval-split" if len({split for _, split in parts}) > 1 else "--eval-limit"
    return (
        f"Results are of different images of the same data set ({option}): {shown}. Compare numbers within a row only."
    )


def _classes(result: Finetuned) -> int:
    return result.classes


def _labeled(result: Finetuned) -> int | None:
    return result.train_images


def _either(numbers: set[int], what: str) -> str:
    return f"{' or '.join(f'{number:,}' for number in sorted(numbers))} {what}" if len(numbers) > 1 else ""


def _parts(table: PublishedTable) -> list[PublishedTable]:
    """Return a table of attributes as one of val and one of test: both have more columns than a screen."""
    if table.kind != "attributes":
        return [table]
    of_val = tuple(m for m in table.metrics if m.startswith("val_"))
    of_test = tuple(m for m in table.metrics if m not in of_val)
    return [
        replace(table, title=f"{table.title}, {split}", metrics=m) for split, m in (("val", of_val), ("test", of_test))
    ]


def _beside(table: PublishedTable, runs: Sequence[Run]) -> tuple[Table, bool]:
    """Return a published table, lines of ours first, and whether there are any."""
    heads = [head for m in table.metrics for head in (f"{_title(m)} ours %", "published %", "difference")]
    spaces = any("colorspace" in row.keys for row in table.rows)
    labels = ("labels a class",) if table.kind == "accuracy" else ()
    ours: list[tuple[Cell, ...]] = []
    theirs: list[tuple[Cell, ...]] = []
    runs = [run for run in runs if stands_in(table, run)]
    for row in table.rows:
        named = _named(row.name, row.keys.get("colorspace", ""), spaces)
        mine = [run for run in runs if row.matches(run.config, run.colorspace, run.noise)]
        lines = [(*named, *cells) for run in mine for cells in _ours(table, row, run)]
        ours += lines
        if not lines:
            cells = [cell for m in table.metrics for cell in (missing("–"), share(row, m), missing("–"))]
            theirs.append((*named, missing("no run"), *([missing("–")] if labels else []), *cells))
    for run in runs:
        if run.config.get("method") in table.methods and not any(
            row.matches(run.config, run.colorspace, run.noise) for row in table.rows if row.keys.get("start") != "none"
        ):
            named = _named(str(run.config.get("network")), run.colorspace or "", spaces)
            ours += [(*named, *cells) for cells in _ours(table, PublishedRow(run.label, {}, {}), run)]
    first = ("network", "color space") if spaces else ("result",)
    header = (*first, "our run", *labels, *heads)
    return Table(caption=table.title, header=header, rows=(*ours, *theirs), texts=len(first) + 1), bool(ours)


def _named(name: str, colorspace: str, spaces: bool) -> tuple[Cell, ...]:
    return (Cell(name), *([Cell(SPACES.get(colorspace, ""))] if spaces else []))


def _ours(table: PublishedTable, row: PublishedRow, run: Run) -> list[tuple[Cell, ...]]:
    if table.kind == "clustering":
        return clustered(table, row, run)
    scratch = row.keys.get("start") == "none"
    if table.kind == "attributes":
        return with_attributes(table, row, run, scratch)
    mine = [each for each in run.finetuned if each.scratch == scratch]
    here = [each for each in mine if not _of_another(table, each)]
    if mine and not here and home_of(run) is None:  # they stand in that table
        return []
    lines = [_line_of(table, row, run, each) for each in here]
    lines += [
        (Cell(run.name, note=file), missing("–"), *without(table, row, DAMAGED))
        for file in run.lost("finetune", scratch)
    ]
    why = "fine-tuned on other images" if mine else "not fine-tuned"
    nothing = (Cell(run.name), missing("–"), *without(table, row, why))
    return lines or ([] if scratch else [nothing])


def _line_of(table: PublishedTable, row: PublishedRow, run: Run, result: Finetuned) -> tuple[Cell, ...]:
    shot = best_shot(result, table.labels)
    other = table.other(result.judged(shot))
    of_val = "val" in table.metrics and result.config.get("eval_split") == "val"
    numbers = {"val": shot.top1} if of_val else {m: getattr(shot, m) for m in table.metrics if hasattr(shot, m)}
    if result.classes <= FIVE:  # always right
        numbers.pop("top5", None)
    cells = [cell for m in table.metrics for cell in three(row, m, numbers.get(m), other)]
    state = ("" if run.finished else "; pretraining is not finished") + ("; collapsed" if run.series.collapsed else "")
    return Cell(run.name, note=f"{result.setting}; {_draws(shot)}{state}"), Cell(shot.label), *cells


def _of_another(table: PublishedTable, result: Finetuned) -> bool:
    """Return whether a result is of as many images as another published table of the same kind and method, not as this."""
    judged = result.judged(best_shot(result, table.labels))
    images = judged.get("classes"), judged.get("eval_images")
    alike = [each for each in published_tables() if each.kind == table.kind and each.methods == table.methods]
    known = [(each.classes, each.eval_images) for each in alike]
    return not judged.get("part") and images in known and images != (table.classes, table.eval_images)


def _draws(shot: Shot) -> str:
    """Return what a number is the mean of: its interval is over them, in one pretraining run."""
    if shot.once:
        return "one fit"
    return f"{len(shot.fits)} draws" if len(shot.fits) > 1 else "one draw"


def _title(metric: str) -> str:
    return TITLES.get(metric, metric)


def _reference(table: PublishedTable, methods: set[str]) -> Table:
    shown = [row for row in table.rows if row.keys["method"] in methods]
    rows = tuple((Cell(row.name), *(share(row, m) for m in table.metrics)) for row in shown)
    header = ("result", *(f"{_title(m)} %" for m in table.metrics))
    return Table(caption=f"{table.title}. {table.source}.", header=header, rows=rows)
