"""What a report says, before anything decides how it looks: the page and the Markdown are made of the same blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Mark = Literal["", "missing", "ours", "ahead", "other"]


@dataclass(frozen=True)
class Cell:
    """One cell of a table. Its text says everything; `mark` lets a page set it in another tone."""

    text: str
    mark: Mark = ""
    note: str = ""
    """In small letters below it."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under a header; the first cell of each row names it."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    texts: int = 1
    """Columns from the left that hold words, not numbers."""


@dataclass(frozen=True)
class Text:
    """A paragraph; a `warning` is one about numbers that are missing or not what they seem."""

    text: str
    warning: bool = False


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An ``<svg>`` element made by `sbtrain.pictures.figures`, or an image as a data URI."""

    alt: str
    caption: str
    svg: str = ""
    uri: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, as many as fit."""

    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Columns:
    """Blocks side by side, where there is room."""

    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Code:
    """Text as it is."""

    text: str


@dataclass(frozen=True)
class Fold:
    """Blocks that are shown when asked for."""

    summary: str
    blocks: tuple[Block, ...]


Block: TypeAlias = Table | Text | Gallery | Columns | Code | Fold


@dataclass(frozen=True)
class Section:
    """A heading, and what is below it."""

    title: str
    anchor: str
    blocks: tuple[Block, ...]

    @property
    def bare(self) -> bool:
        """Whether it only says what is missing."""
        return all(isinstance(block, Text) and block.warning for block in self.blocks)


@dataclass(frozen=True)
class Highlight:
    """One number at the head of the page."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Document:
    """The whole report."""

    title: str
    lead: str
    highlights: tuple[Highlight, ...]
    remarks: tuple[str, ...]
    sections: tuple[Section, ...]


def words(*texts: str) -> tuple[Cell, ...]:
    """Return plain cells."""
    return tuple(Cell(text) for text in texts)


def missing(reason: str) -> Cell:
    """Return a cell that says why there is no number."""
    return Cell(reason, "missing")
