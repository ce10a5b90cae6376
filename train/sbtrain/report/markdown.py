"""The report as Markdown: the same tables and sentences; pictures are named, and lie in the page beside."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from sbtrain.evaluation.results import markdown as aligned
from sbtrain.report.document import Block, Cell, Code, Columns, Document, Fold, Gallery, Table, Text


def to_markdown(document: Document, page: str) -> str:
    """Return the document as Markdown, its pictures by reference to the file `page`."""
    parts = [f"# {_plain(document.title)}", _plain(document.lead)]
    parts += ["\n".join(f"* **{_plain(h.value)}** {_plain(h.label)} ({_plain(h.note)})" for h in document.highlights)]
    parts += ["\n".join(f"* **Note:** {_plain(remark)}" for remark in document.remarks)]
    for section in document.sections:
        parts.append(f"## {_plain(section.title)}")
        parts += _blocks(section.blocks, page)
    return "\n\n".join(part for part in parts if part) + "\n"


def _blocks(blocks: Iterable[Block], page: str) -> list[str]:
    return [part for block in blocks for part in _block(block, page)]


def _block(block: Block, page: str) -> list[str]:
    if isinstance(block, Text):
        return [f"**Note:** {_plain(block.text)}" if block.warning else _plain(block.text)]
    if isinstance(block, Table):
        return [f"{_plain(block.caption).rstrip('.:')}:", _table(block)]
    if isinstance(block, Gallery):
        return [f"*Picture in [{page}]({page}): {_plain(picture.alt).rstrip('.')}.*" for picture in block.pictures]
    if isinstance(block, Columns):
        return _blocks(block.blocks, page)
    if isinstance(block, Code):
        return ["    " + line for line in ["\n    ".join(block.text.splitlines())]]
    assert isinstance(block, Fold)
    return [f"### {_plain(block.summary)}", *_blocks(block.blocks, page)]


def _table(table: Table) -> str:
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    return aligned([_plain(head) for head in table.header], rows, table.texts)


def _cell(cell: Cell) -> str:
    text = _plain(cell.text)
    strong = f"**{text}**" if cell.mark in ("ours", "ahead") and text else text
    return f"{strong} ({_plain(cell.note)})" if cell.note else strong


def _plain(text: str) -> str:
    """Return a text that Markdown takes for nothing but letters, on one line."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(line, quote=False))
