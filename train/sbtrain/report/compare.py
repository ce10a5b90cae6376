"""Our numbers beside the published ones, with differences and intervals, and what keeps them from being compared."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sbtrain.evaluation.few_shot import ALL
from sbtrain.evaluation.finetune_result import Shot
from sbtrain.report.beside import OTHER, clustered, share, signed, three, with_attributes
from sbtrain.report.charts import Line, few_shot_chart
from sbtrain.report.document import Block, Cell, Columns, Fold, Gallery, Picture, Section, Table, Text, missing
from sbtrain.report.published import TITLES, PublishedRow, PublishedTable, published_table, published_tables
from sbtrain.report.runs import Finetuned, Run

#: Labels a class of the published Table 1.
LABELS = 64
#: Results of one picture, and tables of a page that are not folded.
LINES, MOST = 4, 6
SPACES = {"rgb": "RGB", "lab": "Lab", "rescaled_lab": "re-scaled Lab"}


def best_shot(result: Finetuned) -> Shot:
    """Return the classifiers on most labels, up to the published number of them a class."""
    within = [shot for shot in result.shots if shot.fits[0].samples != ALL and shot.fits[0].samples <= LABELS]
    whole = [shot for shot in result.shots if shot.fits[0].samples == ALL]
    return (whole or within or list(result.shots))[-1]


def published_section(runs: Sequence[Run]) -> Section:
    """Return every published table that has to do with `runs`, beside what they have."""
    methods = {str(run.config.get("method")) for run in runs} or {"split_brain"}
    blocks: list[Block] = list(_data_remarks(runs))
    references = []
    for table in published_tables():
        if not methods & table.methods or table.kind == "layers":
            continue
        if table.kind == "reference":
            references.append(_reference(table))
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
    sets = {(r.classes, r.train_images, r.eval_images) for run in runs for r in run.finetuned}
    theirs = published_table("split-brain-1")
    others = sorted(each for each in sets if not theirs.same_data(*each))
    if others and any(str(run.config.get("method")) in theirs.methods for run in runs):
        shown = "; ".join(f"{c:,} classes, {t or 0:,} labeled images, {e:,} reported" for c, t, e in others)
        found.append(
            Text(
                f"Other data: these results are of {shown}; the published ones of 1,000 classes, 64,000 and 64,000. "
                f"A difference to them is marked “{OTHER}”: it compares data sets, not methods.",
                warning=True,
            )
        )
    if len(sets) > 1:
        found.append(
            Text("The runs were judged on different data sets: compare numbers within a row only.", warning=True)
        )
    for colorspace in sorted({str(run.colorspace) for run in runs if run.colorspace}):
        mine = [run for run in runs if run.colorspace == colorspace]
        if len({run.data.get("digest") for run in mine}) > 1:
            names = ", ".join(run.name for run in mine)
            found.append(Text(f"Pretrained on different images of {colorspace}: {names}.", warning=True))
    return found


def _beside(table: PublishedTable, runs: Sequence[Run]) -> Table:
    heads = [head for m in table.metrics for head in (f"{_title(m)} ours %", "published %", "difference")]
    spaces = any("colorspace" in row.keys for row in table.rows)
    rows = []
    for row in table.rows:
        named = (Cell(row.name), *([Cell(SPACES.get(row.keys.get("colorspace", ""), ""))] if spaces else []))
        mine = [run for run in runs if row.matches(run.config, run.colorspace)]
        rows += [(*named, *cells) for run in mine for cells in _ours(table, row, run)]
        if not mine:
            theirs = [cell for m in table.metrics for cell in (missing("–"), share(row, m), missing("–"))]
            rows.append((*named, missing("no run"), missing("–"), *theirs))
    for run in runs:
        if run.config.get("method") in table.methods and not any(
            row.matches(run.config, run.colorspace) for row in table.rows
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
    if table.kind == "attributes":
        return [with_attributes(table, row, run)]
    results = [result for result in run.finetuned if not result.scratch]
    if not results:
        theirs = [cell for m in table.metrics for cell in (missing("not fine-tuned"), share(row, m), missing("–"))]
        return [(Cell(run.name), missing("–"), *theirs)]
    lines = []
    for result in results:
        shot = best_shot(result)
        same = table.same_data(result.classes, result.train_images, result.eval_images)
        cells = [cell for m in table.metrics for cell in three(row, m, getattr(shot, m, None), same)]
        lines.append((Cell(run.name, note=result.setting), Cell(shot.label), *cells))
    return lines


def _title(metric: str) -> str:
    return TITLES.get(metric, metric)


def _reference(table: PublishedTable) -> Table:
    rows = tuple((Cell(row.name), *(share(row, m) for m in table.metrics)) for row in table.rows)
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
    ticks = {**{k: str(k) for k in x}, **ticks}
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
        cells = [Cell(shot.label), Cell(str(len(shot.fits))), Cell(shot.top1.text())]
        cells += _gain(shot, scratch.get(shot.label))
        cells.append(Cell(shot.top5.text()))
        row = beside.get(shot.fits[0].samples)
        cells += ([share(row, "top1")] if row else [missing("–")]) if beside else []
        rows.append(tuple(cells))
    one = " A row of one draw has no interval." if any(len(shot.fits) == 1 for shot in result.shots) else ""
    caption = (
        f"{run.name}: {result.setting}. {result.eval_images:,} images, {result.classes:,} classes, "
        f"chance {100 / max(result.classes, 1):.3g} %.{one}"
    )
    return Table(caption=caption, header=tuple(header), rows=tuple(rows))


def _gain(shot: Shot, control: Shot | None) -> tuple[Cell, Cell]:
    if control is None:
        return missing("no control"), missing("–")
    draws = {fit.draw for fit in shot.fits} & {fit.draw for fit in control.fits}
    if not draws:
        return Cell(control.top1.text()), missing("no draw in common")
    pair = [Shot(tuple(fit for fit in each.fits if fit.draw in draws)) for each in (shot, control)]
    gain = pair[0].gain(pair[1])
    sure = gain.half_width is not None and abs(gain.mean) > gain.half_width
    word = ("ahead" if gain.mean > 0 else "behind") if sure else ""
    return Cell(control.top1.text()), Cell(signed(gain), "ahead" if word == "ahead" else "", word)
