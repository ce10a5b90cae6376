"""``sbtrain bins``: parse, one call, print."""

from __future__ import annotations

from pathlib import Path

import click

from sbformat.schema import SPLITS
from sbtrain.pictures.color_bins import count_bins
from sbtrain.pictures.color_figures import draw_bins
from sbtrain.run_folder import read_run

EXAMPLE = """\b
Example:
  sbtrain bins --shards data_cache --out figures
"""


@click.command("bins", epilog=EXAMPLE)
@click.option("--shards", type=click.Path(path_type=Path), default=Path("data_cache"), show_default=True)
@click.option("--split", type=click.Choice(SPLITS), help="Images to count; by default all that are prepared.")
@click.option("--run", "run_dir", type=click.Path(path_type=Path), help="Put the figures into this run's results/.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder to write to: this, or --run, is needed."
)
def bins_command(shards: Path, split: str | None, run_dir: Path | None, out: Path | None) -> None:
    """Draw which bins of each prepared color space hold colors, and how many of them the images use.

    Needs no run and no training: it reads the counts of the shards' manifests. The figures are the gamut of sRGB in the
    plane of a and b with its bins, and how often each bin occurs in RGB, Lab and re-scaled Lab; PNG and SVG in colors/,
    the numbers in reconstruct-colors.json. `sbtrain report` shows those of a run (--run).

    \b
    Exit codes:
      0    done
      1    failed; the message says what to do
      2    an option is wrong
      130  Ctrl-C: run it again
    """  # noqa: D301
    if (run_dir is None) == (out is None):
        raise click.UsageError("give either --out DIR or --run RUN: where the figures are to go")
    if run_dir is not None:
        read_run(run_dir)  # or a mistyped name would become a folder
        out = run_dir / "results"
    assert out is not None
    spaces = count_bins(shards, split)
    draw_bins(spaces, out, click.echo)
    for space in spaces:
        click.echo(f"{space.colorspace}: {space.images:,} images of {', '.join(space.splits)}")
        for name, usage in (("dual", space.dual), ("single", space.single)):
            click.echo(
                f"  {name}: {usage.used} of {usage.counts.size} bins used, entropy {usage.entropy:.2f} nats, "
                f"as {usage.effective:.1f} equally frequent"
            )
