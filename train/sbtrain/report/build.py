"""From run folders to a page and its Markdown: everything is read first, so that a report is whole or not there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sbformat.durable import write_atomically
from sbformat.words import counted
from sbtrain.report.compare import published_section
from sbtrain.report.document import Document, Section
from sbtrain.report.feature_map import map_section
from sbtrain.report.few_shots import few_shot_section
from sbtrain.report.headlines import collapsed_remarks, highlights_of, title_of
from sbtrain.report.layers import probe_section
from sbtrain.report.markdown import to_markdown
from sbtrain.report.mistakes import confusion_section
from sbtrain.report.page import to_html
from sbtrain.report.pictures import reconstruction_section
from sbtrain.report.provenance import provenance_section
from sbtrain.report.reproduced import reproduced_scales, reproduced_sections
from sbtrain.report.runs import Run, find_runs, read_runs
from sbtrain.report.training import speed_section, training_section
from sbtrain.runtime import RunError

#: In the order of the page: what was reached, how, and what it rests on.
SECTIONS: tuple[Callable[[Sequence[Run]], Section], ...] = (
    published_section,
    few_shot_section,
    probe_section,
    reconstruction_section,
    confusion_section,
    map_section,
    training_section,
    speed_section,
    provenance_section,
)


@dataclass(frozen=True)
class Built:
    """A report on disk."""

    page: Path
    text: Path
    runs: int
    remarks: tuple[str, ...]


def build_report(runs: Sequence[Path], out: Path, say: Callable[[str], None]) -> Built:
    """Write the page `out`, and Markdown of the same name beside it.

    Parameters
    ----------
    runs : sequence of Path
        Run folders, finished or not, or folders of them.
    out : Path
        ``.html``; its folder is made.
    say : callable
        Takes one sentence about what is missing.

    Raises
    ------
    RunError
        Nothing can be shown, or `out` cannot be written.
    ConfigError
        A library is missing.
    """
    folders, problems = find_runs(runs)
    every = read_runs(folders)
    if not any(run.shown for run in every):
        found = [*problems, *(f"{run.path}: {'; '.join(run.problems)}" for run in every)]
        shown = "\n".join(f"  {line}" for line in found)
        raise RunError(f"nothing to report:\n{shown}\nGive folders of runs: sbtrain pretrain --run-dir RUN makes one")
    others = (f"{run.name}: {problem}" for run in every for problem in run.problems)
    remarks = (*collapsed_remarks(every), *problems, *others)
    for remark in remarks:
        say(remark)
    document = describe(every, remarks)
    document = replace(document, sections=(*reproduced_sections(runs), *document.sections))
    if "tiny" in reproduced_scales(runs):  # its numbers say nothing: none stands at the head of a page
        document = replace(document, highlights=tuple(each for each in document.highlights if "%" not in each.value))
    text = out.with_suffix(".md")
    page = to_html(document)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(text, to_markdown(document, out.name).encode())
        write_atomically(out, page.encode())
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({error}). Make room or choose another --out") from error
    return Built(out, text, len(every), remarks)


def describe(runs: Sequence[Run], remarks: Sequence[str]) -> Document:
    """Return what the report says of `runs`."""
    sections = [section(runs) for section in SECTIONS]
    if not any(run.finetuned or run.clusterings or run.attributes or run.damaged for run in runs):
        sections.sort(key=lambda section: section.anchor == "published")  # nothing of ours stands beside them
    sections.sort(key=lambda section: section.bare)  # what there is comes first
    names = sorted({run.label for run in runs})
    what = f"{counted(len(runs), 'run')}: " + "; ".join(names[:6]) + (" …" if len(names) > 6 else "")
    return Document(
        title=title_of(runs),
        lead=f"{what}{'' if what.endswith('…') else '.'} Every number is mean ± 95 % interval over draws where several were made.",
        highlights=tuple(highlights_of(runs)),
        remarks=tuple(remarks),
        sections=tuple(sections),
    )
