"""Which classes were taken for which: the confusion matrix as a picture and as numbers.

Q classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbtrain.report.beside import DAMAGED
from sbtrain.report.charts import confusion_chart
from sbtrain.report.compare import best_shot
from sbtrain.report.document import Block, Cell, Columns, Fold, Gallery, Picture, Section, Table, Text
from sbtrain.report.finetuned import Finetuned
from sbtrain.report.runs import Run

#: Images of a class below which its accuracy says little.
FEW = 5
#: Classes whose counts are worth a table of their own, and pairs that are listed.
TABLE, PAIRS = 30, 8
#: What to do about a damaged result.
_AGAIN = "Move it away: the same sbtrain finetune command makes it again"
#: Runs that are shown at once, those of the highest accuracy.
MOST = 3


def confusion_section(runs: Sequence[Run]) -> Section:
    """Return, of each run, the confusion of its best setting."""
    shown: list[tuple[float, list[Block]]] = []
    for run in runs:
        results = [result for result in run.finetuned if result.confusion and not result.scratch]
        if not results:
            continue
        best = max(results, key=lambda result: best_shot(result).top1.mean)
        try:
            blocks = _blocks(run, best, best.confusion or {})
        except (KeyError, TypeError, ValueError, IndexError) as error:
            said = f"{run.name}: the confusion of {best.file} is damaged ({error}): not shown. {_AGAIN}."
            blocks = [Text(said, warning=True)]
        shown.append((best_shot(best).top1.mean, blocks))
    lost = tuple(
        Text(f"{run.name}: {name} is {DAMAGED}. {_AGAIN}.", warning=True)
        for run in runs
        for name in run.lost("finetune")
    )
    if not shown and lost:
        return Section("Confusion", "confusion", lost)
    if not shown:
        said = "No result holds a confusion matrix: none has been fine-tuned, or by a version that kept none."
        return Section("Confusion", "confusion", (Text(said, warning=True),))
    shown.sort(key=lambda pair: -pair[0])
    first, rest = ([block for _, blocks in part for block in blocks] for part in (shown[:MOST], shown[MOST:]))
    folded = (Fold(f"{len(shown) - MOST} more runs", tuple(rest)),) if rest else ()
    return Section("Confusion", "confusion", (*first, *folded, *lost))


def _blocks(run: Run, result: Finetuned, confusion: dict[str, Any]) -> list[Block]:
    what = f"{run.name}: {result.setting}, {confusion['samples_per_class']} labels a class, draw {int(confusion['draw']) + 1}"
    if "pairs" in confusion:
        return [_pair_table(f"{what}: classes most often confused, of {result.classes:,}", confusion["pairs"])]
    names = [str(name) for name in confusion["classes"]]
    counts = np.array(confusion["counts"], dtype=np.int64)
    if counts.shape != (len(names), len(names)) or counts.min(initial=0) < 0:
        raise ValueError(f"{counts.shape} counts of {len(names)} classes")
    images = counts.sum(axis=1)
    shares = counts / np.maximum(images, 1)[:, None]
    right = counts.trace() / max(int(counts.sum()), 1)
    alt = f"Confusion matrix of {len(names)} classes, {right:.1%} on the diagonal"
    blocks: list[Block] = [
        Columns(
            (
                Gallery(
                    (Picture(svg=confusion_chart(shares, names, alt), alt=alt, caption=f"{what}. Fuller: more often"),)
                ),
                _pair_table(f"{run.name}: most often confused", _pairs(counts, names)),
            )
        )
    ]
    few = [f"{name} ({n})" for name, n in zip(names, images.tolist(), strict=True) if n < FEW]
    if few:
        said = f"Fewer than {FEW} reported images, so a class's share says little: {', '.join(few[:20])}."
        blocks.append(Text(said, warning=True))
    if len(names) <= TABLE:
        blocks.append(Fold("Every count", (_count_table(what, counts, names),)))
    return blocks


def _pairs(counts: NDArray[np.int64], names: list[str]) -> list[dict[str, Any]]:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    places = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    found = [divmod(int(place), len(names)) for place in places]
    return [
        {"true": names[t], "predicted": names[p], "count": wrong[t, p], "of": counts[t].sum()}
        for t, p in found
        if wrong[t, p]
    ]


def _pair_table(caption: str, pairs: list[dict[str, Any]]) -> Table:
    rows = tuple(
        (Cell(str(p["true"])), Cell(str(p["predicted"])), Cell(f"{int(p['count']):,} of {int(p['of']):,}"),
         Cell(f"{100 * int(p['count']) / max(int(p['of']), 1):.1f}"))
        for p in pairs
    )  # fmt: skip
    return Table(caption=caption, header=("true", "taken for", "images", "%"), rows=rows, texts=2)


def _count_table(what: str, counts: NDArray[np.int64], names: list[str]) -> Table:
    rows = tuple((Cell(name), *(Cell(str(n)) for n in row)) for name, row in zip(names, counts.tolist(), strict=True))
    return Table(caption=f"{what}. Rows: true class; columns: predicted class", header=("true", *names), rows=rows)
