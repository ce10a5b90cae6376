"""What a reproduction shows at its end: reconstructions by its runs, and the report page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sbformat.errors import SplitbrainError
from sbtrain.evaluation.pretrained import open_pretrained
from sbtrain.pictures.color_bins import count_bins
from sbtrain.pictures.color_figures import draw_bins
from sbtrain.pictures.reconstruct import ReconstructConfig, reconstruct
from sbtrain.report import build_report
from sbtrain.report.runs import NOT_RUN
from sbtrain.reproduce.cells import Cell
from sbtrain.reproduce.record import Parts
from sbtrain.reproduce.run import Work, pretrained_cells
from sbtrain.runtime import set_up

Say = Callable[[str], None]


def draw_pictures(work: Work, parts: Parts, say: Say) -> list[str]:
    """Draw gamut and bins in use, and reconstruct reported images with every finished run that ``figures`` shows.

    Returns
    -------
    list of str
        What could not be drawn, and why.
    """
    shown = [row for table in work.tables if table.name == "figures" for row in table.rows if row.about.get("pictures")]
    cells = {cell.name: cell for row in shown for cell in row.cells}
    problems = []
    for i, cell in enumerate(pretrained_cells(cells.values(), parts)):
        try:
            if not i:  # they are of the images: any run can carry them to the page
                _draw_colors(work, cell, say)
            _draw(work, cell, say)
        except (SplitbrainError, OSError) as error:
            problems.append(f"pictures of {cell.name}: {error}")
    return problems


def write_page(work: Work, say: Say) -> tuple[list[Path], list[str]]:
    """Build ``report.html`` and ``report.md`` of every run of the folder; return the files, and what went wrong."""

    def shown(sentence: str) -> None:
        if not sentence.startswith(NOT_RUN):  # they are listed at the end, with what to do
            say(sentence)

    if not any(work.folder.glob("*/config.json")):
        return [], []
    try:
        built = build_report([work.folder], work.folder / "report.html", shown)
    except (SplitbrainError, OSError) as error:
        return [], [f"report: {error}"]
    return [built.page, built.text], []


def _draw_colors(work: Work, cell: Cell, say: Say) -> None:
    folder = work.folder / cell.name / "results"
    if not (folder / "reconstruct-colors.json").is_file():
        draw_bins(count_bins(work.sets.base.root.parent, None), folder, say)


def _draw(work: Work, cell: Cell, say: Say) -> None:
    manifest, run_dir = work.sets.of(cell), work.folder / cell.name
    config = ReconstructConfig(split=work.eval_split)
    done = run_dir / "results" / f"reconstruct-{config.split}.json"
    if done.is_file() and done.stat().st_mtime >= (run_dir / "results" / "pretrain.json").stat().st_mtime:
        return
    start = open_pretrained(run_dir, manifest.root, config.split, say)
    reconstruct(start, config, set_up(work.device, "float32", "exact", 0), run_dir / "results", say)
