"""``sbtrain reproduce``: parse, one call, print."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from sbformat.errors import ConfigError
from sbformat.schema import SPLITS
from sbformat.words import counted
from sbtrain.evaluation.command import interruptible
from sbtrain.options import device_option
from sbtrain.progress import duration_text
from sbtrain.reproduce.cells import Setting
from sbtrain.reproduce.file import NAME
from sbtrain.reproduce.jobs import write_jobs
from sbtrain.reproduce.pages import draw_pictures, write_page
from sbtrain.reproduce.plan import TABLES, tables_of
from sbtrain.reproduce.record import Parts
from sbtrain.reproduce.run import PRETRAIN, Work, guess, reproduce
from sbtrain.reproduce.scales import SCALES, scale_of
from sbtrain.reproduce.sets import MissingShards, find_sets
from sbtrain.reproduce.view_scales import SIMSIAM
from sbtrain.runtime import RunError

EXAMPLE = """\b
Example:
  sbtrain reproduce table1 --shards data_cache --scale small
"""


@click.command("reproduce", epilog=EXAMPLE)
@click.argument("table", metavar="|".join((*TABLES, "all")))
@click.option(
    "--shards", type=click.Path(path_type=Path), multiple=True, default=[Path("data_cache")], show_default="data_cache",
    help="Folder of prepared color spaces; may be given several times, for those with other targets or data sets.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/reproduce"), show_default=True)
@click.option("--scale", default="full", show_default=True, metavar="|".join(SCALES), help="Budget of every cell.")
@click.option("--split", type=click.Choice(SPLITS), help="Images to pretrain on; unlabeled, or else train.")
@click.option("--eval-split", type=click.Choice(SPLITS), help="Images to report; val, or else test.")
@click.option(
    "--seeds",
    type=click.IntRange(1),
    help="Pretraining runs of each cell of table 1, self-classifier, simsiam; by default the scale's.",
)  # fmt: skip
@click.option(
    "--weights", multiple=True, metavar="NETWORK=FILE",
    help="Of ImageNet labels, for the lines of simsiam that begin with them; as in sbtrain pretrain --weights.",
)  # fmt: skip
@device_option
@click.option("--jobs", type=click.Path(path_type=Path), metavar="DIR", help="Write each cell as a job script instead.")
@click.option("--dry-run", "dry", is_flag=True, help="List the cells, what is missing, and about how long it takes.")
def reproduce_command(
    table: str, shards: tuple[Path, ...], out: Path, scale: str, split: str | None, eval_split: str | None,
    seeds: int | None, weights: tuple[str, ...], device: str, jobs: Path | None, dry: bool,
) -> None:  # fmt: skip
    """Run a published table from presets: pretraining, then its evaluations, with intervals.

    Each cell is a run in OUT/SCALE/. What is there is not made again: the same command goes on where it was stopped, or
    after a cell has failed. self-classifier and simsiam find CIFAR-10, STL-10 and CelebA among --shards by themselves, with
    the splits of their reports; a cell whose data set is missing is skipped, with the command that builds it. Numbers are
    written to OUT/SCALE/reproduce.json, the page to report.html and report.md.

    \b
    Scales:
      full   the report's settings and epochs, for a GPU
      small  about an hour and a quarter for table 1 of 50,000 images, as long for self-classifier and three hours for
             simsiam, on 2 cores that do nothing else
      tiny   a few minutes on 2 cores; its numbers say nothing

    \b
    Exit codes:
      0    done
      1    some cells failed, the others are done; the message lists them
      2    an option is wrong
      75   SIGTERM, SIGHUP, SIGUSR1 or SIGUSR2 came: run the same command again to go on
      130  Ctrl-C: the same
    """
    trained = _files(table, weights)
    work = _work(table, shards, out, scale, split, eval_split, seeds, trained, device)
    if jobs is not None:
        _write_jobs(work, jobs, _again(table, shards, out, scale, split, eval_split, seeds, trained, device))
    elif dry:
        _show(work)
    else:
        _run(work, table)


def _files(table: str, weights: Sequence[str]) -> dict[str, Path]:
    """Return the files of ``NETWORK=FILE``, absolute: jobs may run elsewhere."""
    networks = sorted({network for names in SIMSIAM.values() for network in names})
    files = {}
    for text in weights:
        network, _, path = text.partition("=")
        if network not in networks or not path:
            raise ConfigError(f"weights {text!r}, expected NETWORK=FILE, NETWORK one of {', '.join(networks)}")
        if not Path(path).is_file():
            raise ConfigError(f"weights {path}: no such file. Give one of a state dict, .safetensors or .pth")
        files[network] = Path(path).resolve()
    if files and table not in ("simsiam", "all"):
        raise ConfigError(f"weights, but no line of {table} begins with them. Leave them out, or reproduce simsiam")
    return files


def _work(
    table: str, shards: Sequence[Path], out: Path, scale: str, split: str | None, eval_split: str | None,
    seeds: int | None, weights: Mapping[str, Path], device: str,
) -> Work:  # fmt: skip
    chosen = scale_of(scale)
    if table not in (*TABLES, "all"):  # before any folder is read
        raise ConfigError(f"table {table!r}, expected one of {', '.join((*TABLES, 'all'))}")
    sets = find_sets(shards)
    there = sets.base.splits
    setting = Setting(
        scale=chosen, target=sets.base.target, seeds=seeds, weights=weights,
        split=split or ("unlabeled" if "unlabeled" in there else "train"),
        eval_split=eval_split or ("val" if "val" in there else "test"),
    )  # fmt: skip
    tables = tables_of(table, setting)
    return Work(scale=chosen, tables=tables, sets=sets, eval_split=setting.eval_split, out=out, device=device)


def _run(work: Work, table: str) -> None:
    with interruptible("Stopped: what is done is saved, of the cell under way too; the same command goes on") as (
        progress,
        stop,
    ):
        try:
            parts = reproduce(work, stop, progress.say, progress)
            problems = draw_pictures(work, parts, progress.say)
            pages, more = write_page(work, progress.say)
        except OSError as error:
            raise RunError(f"{work.folder}: cannot be written or read ({error}). The same command goes on") from error
    for path in (work.folder / NAME, *pages):
        click.echo(path)
    _conclude(parts, table, [*problems, *more])


def _conclude(parts: Parts, table: str, problems: Sequence[str]) -> None:
    lines: dict[tuple[str, str, str], list[str]] = {}
    for (cell, name), part in parts.items():
        if part.state in ("failed", "skipped"):
            lines.setdefault((part.state, cell, part.message), []).append(name)
    left_out: dict[str, list[str]] = {}  # of one data set there are several cells
    for (state, cell, message), names in lines.items():
        if state == "skipped":
            left_out.setdefault(message, []).append(cell if PRETRAIN in names else f"{cell} ({'; '.join(names)})")
        else:
            click.echo(f"{state}: {cell}: {'; '.join(names)}: {message}", err=True)
    for message, cells in left_out.items():
        click.echo(f"skipped: {', '.join(cells)}: {message}", err=True)
    for problem in problems:
        click.echo(f"failed: {problem}", err=True)
    count = Counter(part.state for part in parts.values())
    click.echo(", ".join(f"{number} {state}" for state, number in count.items()) + f" of {len(parts)} steps")
    # `all` is asked for by people who have built one set of targets, `simsiam` by those who have some of its data sets: the
    # others are named, and are no failure unless nothing is left.
    partial = table in ("all", "simsiam") and count["done"]
    if problems or count["failed"] or (count["skipped"] and not partial):
        sys.exit(1)


def _show(work: Work) -> None:
    total, lacking = 0.0, 0
    for cell in work.cells:
        seconds = guess(work, cell)
        total += seconds
        try:
            work.sets.judged(cell)
            state = f"about {duration_text(seconds)}" if seconds else "done"
        except MissingShards as error:
            state, lacking = str(error), lacking + 1
        click.echo(f"{cell.name}: {'; '.join((PRETRAIN, *(name for name, _ in cell.evaluations)))}: {state}")
    some = f"{len(work.cells) - lacking} of " if 0 < lacking < len(work.cells) else ""
    here = f"{some}{counted(len(work.cells), 'cell')} in {work.folder}: "
    if lacking == len(work.cells):
        click.echo(
            f"{here}none can run, as --shards hold none of their data sets. Build them, and name each by --shards"
        )
        return
    without = f"; {counted(lacking, 'cell')} without data" if lacking else ""
    click.echo(
        f"{here}about {duration_text(total)} on 2 cores of an AMD EPYC (Zen 5) that do nothing else, far less on a GPU"
        f"{without}. Scale {work.scale.name}: {work.scale.about}"
    )


def _write_jobs(work: Work, folder: Path, collect: list[str]) -> None:
    try:
        written = write_jobs(work, folder, collect)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error}). Use another --jobs") from error
    missing = len(work.cells) - len(written)
    left_out = f"; {counted(missing, 'cell')} without shards (--dry-run says which)" if missing else ""
    click.echo(f"{folder / 'submit.sh'}: {counted(len(written), 'job')}{left_out}")


def _again(
    table: str, shards: Sequence[Path], out: Path, scale: str, split: str | None, eval_split: str | None,
    seeds: int | None, weights: Mapping[str, Path], device: str,
) -> list[str]:  # fmt: skip
    words = ["sbtrain", "reproduce", table]
    for root in shards:
        words += ["--shards", str(root.resolve())]
    words += ["--out", str(out.resolve()), "--scale", scale, "--device", device]
    for name, value in (("--split", split), ("--eval-split", eval_split), ("--seeds", seeds)):
        words += [name, str(value)] if value is not None else []
    for network, path in weights.items():
        words += ["--weights", f"{network}={path}"]
    return words
