"""``sbtrain report``: parse, one call, print."""

from __future__ import annotations

import time
from pathlib import Path

import click

from sbtrain.progress import bytes_text
from sbtrain.report.build import build_report

EXAMPLE = """\b
Example:
  sbtrain report runs/NAME --out report.html
"""


def _page(_context: click.Context, _parameter: click.Parameter, out: Path) -> Path:
    # The page replaces what is there: a wrong --out must not cost a run its config or its metrics.
    if out.suffix.lower() not in (".html", ".htm"):
        raise click.BadParameter(f"{out} is no name of a page. Use one that ends in .html: --out {out.stem}.html")
    return out


@click.command("report", epilog=EXAMPLE)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    callback=_page,
    help="The page; Markdown of the same name goes beside it.",
)
def report_command(runs: tuple[Path, ...], out: Path) -> None:
    """Write one page from RUNS, finished or not, or folders of them, beside what is published.

    The page is one file: tables, pictures and styles are in it, and it loads nothing from anywhere. What is missing or
    damaged is said where its number would stand.

    \b
    Exit codes:
      0    written
      1    nothing can be shown, or the page cannot be written; the message says what to do
      2    an option is wrong
      130  Ctrl-C
    """
    begun = time.perf_counter()
    built = build_report(runs, out, lambda sentence: click.echo(sentence, err=True))
    size = bytes_text(built.page.stat().st_size)
    click.echo(f"{built.page}: {built.runs} run{'s' if built.runs != 1 else ''}, {size}, "
               f"{time.perf_counter() - begun:.1f} s; as Markdown: {built.text}")  # fmt: skip
