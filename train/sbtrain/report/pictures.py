"""Reconstructions and color-space figures, as ``sbtrain reconstruct`` left them, inside the page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sbtrain.report.document import Block, Cell, Gallery, Picture, Section, Table, Text
from sbtrain.report.runs import Run
from sbtrain.report.training import number

#: Bytes of one picture, and of all: a page has to open on a phone.
LARGEST, ALL_TOGETHER = 4_000_000, 24_000_000
#: Beginning of a score's key -> what it is; the rest of the key says of what.
SCORES = {
    "delta_e": "color error (ΔE 1976), {}",
    "right_": "share of bins right, {}",
    "commonest_": "share of bins right if always the commonest, {}",
}
_TYPES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


def reconstruction_section(runs: Sequence[Run]) -> Section:
    """Return the figures of every run that has some."""
    blocks: list[Block] = []
    room = ALL_TOGETHER
    for run in runs:
        for data in run.reconstructions:
            for figure in _entries(data.get("figures")):
                block, size = _figure(run, figure, room)
                room -= size
                blocks.append(block)
            blocks += _scores(run, data)
    if not blocks:
        blocks.append(Text("No run has reconstructions. sbtrain reconstruct --run RUN", warning=True))
    return Section("Reconstructions and colors", "reconstructions", tuple(blocks))


def _entries(figures: Any) -> list[dict[str, Any]]:
    return [figure for figure in figures if isinstance(figure, dict)] if isinstance(figures, list) else []


def _figure(run: Run, figure: dict[str, Any], room: int) -> tuple[Block, int]:
    name, caption = str(figure.get("file")), str(figure.get("caption", ""))
    try:
        content = _bytes_of(run.path, name)
    except (OSError, ValueError) as error:
        return Text(f"{run.name}: picture {name}: {_reason(error)}: not shown.", warning=True), 0
    kind = next((kind for magic, kind in _TYPES.items() if content.startswith(magic)), None)
    if kind is None:
        return Text(f"{run.name}: {name} is no PNG or JPEG: not shown.", warning=True), 0
    if len(content) > min(LARGEST, room):
        return Text(f"{run.name}: {name} is {len(content) / 1e6:.1f} MB, too large for the page: see the file."), 0
    columns = ", ".join(map(str, figure["columns"])) if isinstance(figure.get("columns"), list) else ""
    alt = f"{caption or name}{f'; columns: {columns}' if columns else ''}"
    uri = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    shown = f"{run.name}: {caption}" + (f". Columns: {columns}" if columns else "")
    return Gallery((Picture(uri=uri, alt=alt, caption=shown, wide=True),)), len(content)


def _bytes_of(folder: Path, name: str) -> bytes:
    """Return a picture of the run's own folder, wherever in its results the name counts from."""
    for base in (folder / "results" / "reconstruct", folder / "results", folder):
        path = (base / name).resolve()
        if path.is_file() and path.is_relative_to(folder.resolve()):
            return path.read_bytes()
    raise FileNotFoundError(2, "missing")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _scores(run: Run, data: dict[str, Any]) -> list[Block]:
    scores = data.get("scores")
    if not isinstance(scores, dict) or not scores:
        return []
    rows = tuple((Cell(_score_name(str(key))), _score(value)) for key, value in scores.items())
    return [Table(caption=f"{run.name}: how close the reconstructions are", header=("score", "value"), rows=rows)]


def _score_name(key: str) -> str:
    """Return what a score of ``sbtrain reconstruct`` is, for a person."""
    for start, name in SCORES.items():
        if key.startswith(start):
            return name.format(key.removeprefix(start).strip("_").replace("argmax", "arg-max")).rstrip(", ")
    return key.replace("_", " ")


def _score(value: Any) -> Cell:
    if isinstance(value, dict):
        mean, half = number(value.get("mean"), "{:.4g}", "not a number"), number(value.get("ci95"), " ± {:.2g}", "")
        return Cell(mean.text + half.text, mean.mark)
    return number(value, "{:.4g}", str(value)[:60] if isinstance(value, str) else "not a number")
