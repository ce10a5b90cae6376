"""Our numbers beside the published ones, with differences and intervals, and what keeps them from being compared."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sbtrain.evaluation.finetune_result import Shot
from sbtrain.report.beside import DAMAGED, clustered, share, signed, three, with_attributes, without
from sbtrain.report.charts import Line, few_shot_chart
from sbtrain.report.document import Block, Cell, Columns, Fold, Gallery, Picture, Section, Table, Text, missing
from sbtrain.report.finetuned import Finetuned
from sbtrain.report.published import OTHER_DATA, TITLES, PublishedRow, PublishedTable, published_table, published_tables
from sbtrain.report.runs import Run

#: Labels a class of the published Table 1.
LABELS = 64
#: Results of one picture, and tables of a page that are not folded.
LINES, MOST = 4, 6
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
    references = []
    for table in published_tables():
        if not methods & table.methods or table.kind == "layers":
            continue
        if table.kind == "reference":
            references.append(_reference(table, methods))
        elif table.kind != "few_shot":
            blocks += [_beside(table, runs), Text(f"Published: {table.source}.")]
    if references:
        blocks.append(Fold("Other published reference points", tuple(references)))
    return Section("Beside the published numbers", "published", tuple(blocks))


def few_shot_section(runs: Sequence[Run]) -> Section:
    """Return curves over labels a class, and their tables with the gain over new weights, draw by draw."""
    table = published_table("split-brain-2")
    results = [(run, result) for run in runs for result in run.finetuned if not result.scratch]
    if not results:
        said = "No run has been fine-tuned: there is no few-shot curve. sbtrain finetune --run RUN --compare"
        if any(run.lost("finetune") for run in runs):
            said = f"Results of fine-tuning are {DAMAGED}. There is no few-shot curve."
        return Section("Few labels", "few-shot", (Text(said, warning=True),))
    tables = tuple(_shots_table(run, result, table) for run, result in results)
    shown = Columns(tables) if len(tables) <= MOST else Fold(f"{len(tables)} tables, one a result", (Columns(tables),))
    curves = [(run, result) for run, result in results if len(result.shots) > 1]
    if not curves:
        said = "Each run was fine-tuned on one number of labels: there is no curve."
        return Section("Few labels", "few-shot", (Text(said), shown))
    charts = []
    for setting in dict.fromkeys((str(run.config.get("network")), result.setting) for run, result in curves):
        mine = [pair for pair in curves if (str(pair[0].config.get("network")), pair[1].setting) == setting]
        charts += [_curves(mine[i : i + LINES], " · ".join(setting), table) for i in range(0, len(mine), LINES)]
    blocks: list[Block] = [
        Text(
            "Top-1 by labels a class; bands are 95 % intervals over draws, dashed lines the same network from new weights. "
            "Dotted: the published ResNet18 in re-scaled Lab, 1,000 classes."
        ),
        Gallery(tuple(charts)),
        shown,
    ]
    return Section("Few labels", "few-shot", tuple(blocks))


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
    if len(sets) > 1 or _judged_on_different_images(runs):
        found.append(
            Text("The runs were judged on different data sets: compare numbers within a row only.", warning=True)
        )
    for colorspace in sorted({str(run.colorspace) for run in runs if run.colorspace}):
        groups: dict[str, list[str]] = {}
        for run in runs:
            if run.colorspace == colorspace:
                groups.setdefault(str(run.data.get("digest"))[:8], []).append(run.name)
        if len(groups) > 1:
            shown = "; ".join(f"{', '.join(names)} on images {digest}" for digest, names in groups.items())
            found.append(Text(f"Pretrained on different images of {colorspace}: {shown}.", warning=True))
    return found


def _judged_on_different_images(runs: Sequence[Run]) -> bool:
    """Return whether reported images differ where their number does not; each color space has bytes of its own."""
    seen: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        for result in run.finetuned:
            split = str(result.config.get("eval_split"))
            seen.setdefault((str(run.colorspace), split), set()).add(str(result.data.get(split, {}).get("digest")))
    return any(len(digests) > 1 for digests in seen.values())


def _beside(table: PublishedTable, runs: Sequence[Run]) -> Table:
    heads = [head for m in table.metrics for head in (f"{_title(m)} ours %", "published %", "difference")]
    spaces = any("colorspace" in row.keys for row in table.rows)
    rows = []
    for row in table.rows:
        named = (Cell(row.name), *([Cell(SPACES.get(row.keys.get("colorspace", ""), ""))] if spaces else []))
        mine = [run for run in runs if row.matches(run.config, run.colorspace, run.noise)]
        lines = [(*named, *cells) for run in mine for cells in _ours(table, row, run)]
        rows += lines
        if not lines:
            theirs = [cell for m in table.metrics for cell in (missing("–"), share(row, m), missing("–"))]
            rows.append((*named, missing("no run"), missing("–"), *theirs))
    for run in runs:
        if run.config.get("method") in table.methods and not any(
            row.matches(run.config, run.colorspace, run.noise) for row in table.rows if row.keys.get("start") != "none"
        ):
            blank = PublishedRow(run.label, {}, {})
            named = (
                Cell(str(run.config.get("network"))),
                *([Cell(SPACES.get(run.colorspace or "", ""))] if spaces else []),
            )
            rows += [(*named, *cells) for cells in _ours(table, blank, run)]
    header = (
        "network" if spaces else "result",
        *(["color space"] if spaces else []),
        "our run",
        "labels a class",
        *heads,
    )
    return Table(caption=table.title, header=header, rows=tuple(rows), texts=3 if spaces else 2)


def _ours(table: PublishedTable, row: PublishedRow, run: Run) -> list[tuple[Cell, ...]]:
    if table.kind == "clustering":
        return clustered(table, row, run)
    scratch = row.keys.get("start") == "none"
    if table.kind == "attributes":
        return with_attributes(table, row, run, scratch)
    mine = [each for each in run.finetuned if each.scratch == scratch]
    here = [each for each in mine if not _of_another(table, each)]
    if mine and not here:
        return []
    lines = [_line_of(table, row, run, each) for each in here]
    lines += [
        (Cell(run.name, note=file), missing("–"), *without(table, row, DAMAGED))
        for file in run.lost("finetune", scratch)
    ]
    nothing = (Cell(run.name), missing("–"), *without(table, row, "not fine-tuned"))
    return lines or ([] if scratch else [nothing])


def _line_of(table: PublishedTable, row: PublishedRow, run: Run, result: Finetuned) -> tuple[Cell, ...]:
    shot = best_shot(result, table.labels)
    other = table.other(result.judged(shot))
    of_val = "val" in table.metrics and result.config.get("eval_split") == "val"
    numbers = {"val": shot.top1} if of_val else {m: getattr(shot, m) for m in table.metrics if hasattr(shot, m)}
    if result.classes <= FIVE:  # always right
        numbers.pop("top5", None)
    cells = [cell for m in table.metrics for cell in three(row, m, numbers.get(m), other)]
    unfinished = "" if run.finished else "; pretraining is not finished"
    return Cell(run.name, note=f"{result.setting}; {_draws(shot)}{unfinished}"), Cell(shot.label), *cells


def _of_another(table: PublishedTable, result: Finetuned) -> bool:
    """Return whether a result is of the images of another published table of the same kind and method."""
    judged = result.judged(best_shot(result, table.labels))
    alike = [each for each in published_tables() if each.kind == table.kind and each.methods == table.methods]
    return OTHER_DATA in table.other(judged) and any(OTHER_DATA not in each.other(judged) for each in alike)


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


def _curves(results: Sequence[tuple[Run, Finetuned]], title: str, table: PublishedTable) -> Picture:
    lines: list[Line] = []
    ticks: dict[float, str] = {}
    spaces = [run.colorspace for run, _ in results]
    for number, (run, result) in enumerate(results):
        for each in (result, run.control(result)):
            if each is not None:
                lines.append(_line(run, each, number, _who(run, spaces)))
                ticks |= dict(zip(lines[-1].x, (shot.label for shot in each.shots), strict=True))
    x = [row.keys["samples"] for row in table.rows]
    # A published number of labels keeps its place on the axis, also where it is all that there are.
    ticks = {**ticks, **{k: f"{k} = all" if ticks.get(k) == "all" else str(k) for k in x}}
    lines.append(Line(name="published", x=x, y=[100 * row.values["top1"] for row in table.rows], published="x"))
    alt = f"Few-shot curve of {title}: " + "; ".join(
        f"{line.name} from {line.y[0]:.1f} % at {ticks[line.x[0]]} to {line.y[-1]:.1f} % at {ticks[line.x[-1]]} labels a class"
        for line in lines
    )
    return Picture(svg=few_shot_chart(lines, ticks, alt), alt=alt, caption=title)


def _who(run: Run, spaces: Sequence[str | None]) -> str:
    if len(spaces) == 1:
        return ""
    return f"{run.name if spaces.count(run.colorspace) > 1 else SPACES.get(run.colorspace or '', run.name)}, "


def _line(run: Run, result: Finetuned, color: int, who: str) -> Line:
    name = "from scratch" if result.scratch else "pretrained"
    per_class = math.ceil((result.train_images or LABELS * result.classes) / max(result.classes, 1))
    return Line(
        name=f"{who}{name}",
        x=[shot.fits[0].samples or per_class for shot in result.shots],
        y=[100 * shot.top1.mean for shot in result.shots],
        half_width=[100 * (shot.top1.half_width or 0.0) for shot in result.shots],
        control=result.scratch,
        color=color,
    )


def _shots_table(run: Run, result: Finetuned, table: PublishedTable) -> Table:
    control = run.control(result)
    beside = {row.keys["samples"]: row for row in table.rows if row.matches(run.config, run.colorspace)}
    scratch = {shot.label: shot for shot in control.shots} if control else {}
    header = ["labels a class", "draws", "top-1 %", "from scratch %", "gain", "top-5 %"]
    header += ["published top-1 %"] if beside else []
    rows = []
    for shot in result.shots:
        cells = [Cell(shot.label), Cell("one fit" if shot.once else str(len(shot.fits))), Cell(shot.top1.text())]
        cells += _gain(shot, scratch.get(shot.label), DAMAGED if run.lost("finetune", True) else "no control")
        cells.append(Cell(shot.top5.text()) if result.classes > FIVE else missing("–"))
        row = beside.get(shot.fits[0].samples)
        cells += ([share(row, "top1")] if row else [missing("–")]) if beside else []
        rows.append(tuple(cells))
    one = (
        " A row of one draw has no interval."
        if any(len(shot.fits) == 1 and not shot.once for shot in result.shots)
        else ""
    )
    caption = (
        f"{run.name}: {result.setting}. {result.eval_images:,} images, {result.classes:,} classes, "
        f"chance {100 / max(result.classes, 1):.3g} %.{one}"
    )
    return Table(caption=caption, header=tuple(header), rows=tuple(rows))


def _gain(shot: Shot, control: Shot | None, reason: str) -> tuple[Cell, Cell]:
    if control is None:
        return missing(reason), missing("–")
    draws = {fit.draw for fit in shot.fits} & {fit.draw for fit in control.fits}
    if not draws and not shot.once:
        return Cell(control.top1.text()), missing("no draw in common")
    ours, theirs = (Shot(tuple(fit for fit in each.fits if fit.draw in draws)) for each in (shot, control))
    gain = shot.gain(control) if shot.once else ours.gain(theirs)
    sure = gain.half_width is not None and abs(gain.mean) > gain.half_width
    word = ("ahead" if gain.mean > 0 else "behind") if sure else ""
    return Cell(control.top1.text()), Cell(signed(gain), "ahead" if word == "ahead" else "", word)
