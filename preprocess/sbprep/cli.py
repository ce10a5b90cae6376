"""Command line of the preparation stage: parse, one call, print. Library errors become messages here, nowhere else."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

import sbformat
from sbformat.errors import ConfigError, SplitbrainError, suggestion
from sbformat.manifest import MANIFEST_NAME, open_manifest, prepared_colorspaces
from sbformat.schema import COLORSPACES, SPLITS, Bins, Compression, Rescale, TargetSpec
from sbprep.__main__ import EXIT_INTERRUPTED
from sbprep.config import Backend, BuildConfig, Resize, partition_from_text, worker_count
from sbprep.signals import interruptible
from sbprep.sources import DATASETS

F = TypeVar("F", bound=Callable[..., Any])

EXIT_DAMAGED = 3


class _Commands(click.Group):
    """Turns the errors of the library into one message and an exit code."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"no command {args[0]!r}{suggestion(args[0], self.commands)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with interruptible():
                return super().invoke(ctx)
        except ConfigError as error:
            command = self.commands[str(ctx.invoked_subcommand)]
            raise click.UsageError(str(error), click.Context(command, ctx, command.name)) from error
        except SplitbrainError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read the output has enough of it, which click handles
                raise
            raise click.ClickException(_system_error_text(error)) from error
        except KeyboardInterrupt:
            kept = " Shards already built are kept: run the same command again to go on."
            click.echo(f"Interrupted.{kept if ctx.invoked_subcommand == 'build' else ''}", err=True)
            sys.exit(EXIT_INTERRUPTED)


def _system_error_text(error: OSError) -> str:
    where = "" if error.filename is None else f"{error.filename}: "
    return (
        f"{where}the system refuses it ({error.strerror or error}). Nothing already built is lost: check the path, its "
        f"permissions and the disk, and run the same command again"
    )


def _choice(values: Any) -> click.Choice[str]:
    return click.Choice(list(values))


def _path_options(function: F) -> F:
    for split in reversed(SPLITS):
        function = click.option(f"--{split}", type=click.Path(path_type=Path), help=f"Images of split {split}.")(
            function
        )
    source = "A whole data set: folder, archive or binary files; its splits are found by name. None: the built-in set."
    return click.option("--source", type=click.Path(path_type=Path), help=source)(function)


_ROOT = click.argument("root", type=click.Path(path_type=Path), default="data_cache")
_COLORSPACE = click.option("--colorspace", type=_choice(COLORSPACES), help="Which one, where the folder holds several.")
_WORKERS = click.option("--workers", default=-1, show_default=True, help="Processes; -1: one a core.")


def _example(command: str) -> str:
    return f"\b\nExample:\n    {command}"


@click.group(
    cls=_Commands,
    epilog=_example("sbprep build --colorspace rescaled_lab"),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(sbformat.__version__, prog_name="sbprep")
def main() -> None:
    """Convert an image set once to Lab shards that sbtrain streams to the GPU.

    \b
    Exit codes:
      0    done (rejected images, if any, are listed in rejects.jsonl)
      1    failed; the message says what to do, and nothing already built is lost
      2    an option is wrong
      3    verify found damage (and, with --repair, could not mend it)
      130  interrupted; the same command goes on
    """


@main.command(
    epilog=_example("sbprep build --train photos/train --val photos/val --colorspace lab --colorspace rescaled_lab")
)
@click.option("--dataset", type=_choice(DATASETS), default="auto", show_default=True, help="How to read the paths.")
@_path_options
@click.option(
    "--colorspace",
    "colorspaces",
    type=_choice(COLORSPACES),
    multiple=True,
    required=True,
    help="May be given several times.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("data_cache"), show_default=True)
@click.option("--image-size", default=96, show_default=True, help="Side of the stored images, in pixels.")
@click.option(
    "--resize",
    type=_choice(get_args(Resize)),
    default="crop",
    show_default=True,
    help="crop: shorter side to the size, then the center; squash: both sides.",
)
@click.option("--target-size", default=12, show_default=True, help="Cells along each side of a target map.")
@click.option("--bins-single", default=100, show_default=True, help="Bins of L or R.")
@click.option("--bins-dual", default=10, show_default=True, help="Bins of each of a and b, or G and B.")
@click.option(
    "--bins", type=_choice(get_args(Bins)), default="uniform", show_default=True, help="zhang: 50 L and 313 ab bins."
)
@click.option(
    "--rescale",
    type=_choice(get_args(Rescale)),
    default="ab",
    show_default=True,
    help="rescaled_lab: channels whose bins follow each image's own range.",
)
@click.option(
    "--workers",
    default=-1,
    show_default=True,
    help="Processes or threads, -1: one a core; on a cluster shards at once, -1: as many as it has threads for.",
)
@click.option(
    "--backend",
    type=_choice(get_args(Backend)),
    default="loky",
    show_default=True,
    help="loky: processes; threading: threads; dask, ray: a cluster that sees the same folders.",
)
@click.option("--scheduler", metavar="ADDRESS", help="Of the cluster: tcp://HOST:PORT (dask); HOST:PORT or auto (ray).")
@click.option("--partition", metavar="I/N", help="Make part I of N (from 1); join them with sbprep merge.")
@click.option("--images-per-shard", default=4096, show_default=True)
@click.option("--compression", type=_choice(get_args(Compression)), default="none", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Key of the order in which images are stored.")
@click.option("--limit", type=int, help="Keep this many images of each split.")
@click.option("--on-error", default="skip", show_default=True, help="Rejected images: skip, fail or limit=N.")
@click.option("--dry-run", is_flag=True, help="List, estimate bytes and time, write nothing.")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Discard what the folder of each color space holds; once begun, the same command goes on.",
)
def build(dry_run: bool, **options: Any) -> None:
    """Convert images to verified shards, once; the same command goes on where an earlier one stopped."""
    from sbprep import pipeline, report  # heavy: Numba and OpenCV load only for commands that convert
    from sbprep.inflight import earlier_death
    from sbprep.plan import make_plan

    plan = make_plan(_build_config(options))
    if dry_run:
        click.echo(report.dry_run_text(plan))
        return
    for text in (report.plan_text(plan), report.found_text(plan), earlier_death(plan)):
        if text:
            click.echo(text, err=True)
    with report.ProgressPrinter() as progress:
        outcome = pipeline.run_plan(plan, progress)
    click.echo(report.outcome_text(outcome, plan))


def _build_config(options: dict[str, Any]) -> BuildConfig:
    target = TargetSpec(
        size=options.pop("target_size"),
        bins=options.pop("bins"),
        single=options.pop("bins_single"),
        dual=options.pop("bins_dual"),
        rescale=options.pop("rescale"),
    )
    paths = {name: path for name in ("source", *SPLITS) if (path := options.pop(name)) is not None}
    partition = options.pop("partition")
    return BuildConfig(
        **options, target=target, paths=paths, partition=None if partition is None else partition_from_text(partition)
    )


@main.command(epilog=_example("sbprep merge data_cache"))
@click.argument("out", type=click.Path(path_type=Path), default="data_cache")
def merge(out: Path) -> None:
    """Join the partitions of a build into one manifest."""
    from sbprep import report, seal

    for manifest in (merged := seal.merge(out)):
        click.echo(report.manifest_text(manifest))
    if not merged:
        click.echo(f"{out}: nothing to do, already merged: {', '.join(prepared_colorspaces(out))}")


@main.command(epilog=_example("sbprep verify data_cache"))
@_ROOT
@_COLORSPACE
@_WORKERS
@click.option("--repair", is_flag=True, help="Make damaged shards again from the images, a manifest from its copy.")
def verify(root: Path, colorspace: str | None, workers: int, repair: bool) -> None:
    """Read every byte and name whatever differs from the manifest: shard, chunk and images."""
    from sbprep import verify as verification

    left = verification.restore_lost_manifests(root, colorspace, repair)
    # Nothing else may be there to look at.
    for place in _places(root, colorspace) if not left or prepared_colorspaces(root) else []:
        left += verification.check(*place, worker_count(workers), repair)
    if left:
        sys.exit(EXIT_DAMAGED)


def _places(root: Path, colorspace: str | None) -> list[tuple[Path, str | None]]:
    """Return what to open: one color space, or all that are complete in `root`."""
    if colorspace is None and not (root / MANIFEST_NAME).is_file() and (found := prepared_colorspaces(root)):
        return [(root, name) for name in found]
    return [(root, colorspace)]


@main.command(epilog=_example("sbprep inspect data_cache --colorspace rescaled_lab --sheet sheet.png"))
@_ROOT
@_COLORSPACE
@click.option("--split", type=_choice(SPLITS), help="Only this split.")
@click.option("--all", "whole", is_flag=True, help="Channel statistics and histograms of the bins as well.")
@click.option(
    "--sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw a contact sheet into this PNG file; of several color spaces into NAME-<colorspace>.png each.",
)
@click.option("--images", type=click.IntRange(min=1), default=8, show_default=True, help="Images on the sheet.")
def inspect(
    root: Path, colorspace: str | None, split: str | None, whole: bool, sheet: Path | None, images: int
) -> None:
    """Print counts and bins in use, with --all more; draw a contact sheet."""
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise ConfigError(f"sheet {sheet}, expected a name that ends in .png: contact sheets are PNG files")
    from sbprep import inspect as inspection

    places = _places(root, colorspace)
    for manifest in (open_manifest(*place) for place in places):
        click.echo(inspection.summary(manifest, split, whole))
        if sheet is not None:
            several = len(places) > 1
            path = sheet.with_stem(f"{sheet.stem}-{manifest.colorspace}") if several else sheet
            inspection.write_sheet(manifest, split, images, path)
            click.echo(f"  contact sheet: {path}")
    if not whole:
        click.echo("with --all: means and deviations of the channels, histograms of the bins")


@main.command(epilog=_example("sbprep bench --images 2000"))
@click.option("--source", type=click.Path(path_type=Path), help="Images to measure with; none: generated ones as JPEG.")
@click.option("--images", default=2000, show_default=True, help="Number of images.")
@_WORKERS
@click.option("--scaling", is_flag=True, help="Only this: builds by all workers beside builds by one.")
@click.option("--scheduler", metavar="ADDRESS", help="With --scaling: and by a Dask cluster of as many.")
def bench(source: Path | None, images: int, workers: int, scaling: bool, scheduler: str | None) -> None:
    """Measure this machine: conversion and whole builds beside scikit-image, OpenCV and the published pipeline."""
    if scheduler is not None and not scaling:
        raise ConfigError("a scheduler is measured with --scaling only")
    from sbprep import bench as benchmark

    lines = (
        benchmark.run_scaling(source, images, workers, scheduler) if scaling else benchmark.run(source, images, workers)
    )
    for line in lines:
        click.echo(line)
