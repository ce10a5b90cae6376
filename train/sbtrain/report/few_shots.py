"""Curves over labels a class, and their tables with the gain over new weights, draw by draw."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sbtrain.evaluation.finetune_result import Shot
from sbtrain.report.beside import DAMAGED, share, signed
from sbtrain.report.charts import Line, few_shot_chart
from sbtrain.report.compare import FIVE, SPACES
from sbtrain.report.document import Cell, Columns, Fold, Gallery, Picture, Section, Table, Text, missing
from sbtrain.report.finetuned import Finetuned
from sbtrain.report.published import PublishedTable, published_table
from sbtrain.report.runs import Run

#: Labels a class of the published Table 1.
LABELS = 64
#: Results of one picture, and tables of a page that are not folded.
LINES, MOST = 4, 6


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
    for kind in dict.fromkeys(_kind(run, result) for run, result in curves):
        mine = [pair for pair in curves if _kind(*pair) == kind]
        charts += [_curves(mine[i : i + LINES], " · ".join(kind[1:]), table) for i in range(0, len(mine), LINES)]
    dotted = " Dotted: the published ResNet18 in re-scaled Lab, 1,000 classes."
    theirs = any(run.config.get("method") in table.methods for run, _ in curves)
    said = (
        "Top-1 by labels a class; bands are 95 % intervals over draws, dashed lines the same network from new weights."
    )
    return Section("Few labels", "few-shot", (Text(said + dotted * theirs), Gallery(tuple(charts)), shown))


def _kind(run: Run, result: Finetuned) -> tuple[str, str, str]:
    """Return what the curves of one picture have in common."""
    return str(run.config.get("method")), str(run.config.get("network")), result.setting


def _curves(results: Sequence[tuple[Run, Finetuned]], title: str, table: PublishedTable) -> Picture:
    lines: list[Line] = []
    ticks: dict[float, str] = {}
    spaces = [run.colorspace for run, _ in results]
    for number, (run, result) in enumerate(results):
        for each in (result, run.control(result)):
            if each is not None:
                lines.append(_line(run, each, number, _who(run, spaces)))
                ticks |= dict(zip(lines[-1].x, (shot.label for shot in each.shots), strict=True))
    x = [row.keys["samples"] for row in table.rows if results[0][0].config.get("method") in table.methods]
    # A published number of labels keeps its place on the axis, also where it is all that there are.
    ticks = {**ticks, **{k: f"{k} = all" if ticks.get(k) == "all" else str(k) for k in x}}
    if x:
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
