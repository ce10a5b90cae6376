"""What sbprep tells a person: the plan, a live bar (or a line every few seconds), the outcome, damage."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

import click

from sbformat.manifest import Manifest
from sbformat.schema import CHUNK_IMAGES
from sbformat.words import counted
from sbprep.config import REMOTE
from sbprep.disk import check_room, check_writable, temporary_bytes
from sbprep.estimate import estimate
from sbprep.journal import Key
from sbprep.pipeline import Outcome
from sbprep.plan import Plan
from sbprep.progress import Progress
from sbprep.store import survey

if TYPE_CHECKING:
    from sbprep.verify import Damage

LINE_SECONDS = 5.0
LEAST_SHARE = 0.01  # of a build, for telling what is left
BAR_WIDTH = 24
#: Bytes of a manifest for each shard and for each chunk of images (docs/cluster.md).
SHARD_ENTRY, CHUNK_ENTRY = 460, 16
#: Images/s of a GPU that nobody has measured: of the table in docs/cluster.md.
GPU_RATE = 10_000


class ProgressPrinter:
    """Call it with each `Progress`; a context manager that ends the live line.

    Parameters
    ----------
    stream : text file, by default stderr
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._start = self._last = time.monotonic()
        self._open_line = False

    def __enter__(self) -> ProgressPrinter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open_line:
            self._stream.write("\n")
            self._stream.flush()

    def __call__(self, progress: Progress) -> None:
        """Show `progress`, at most every `LINE_SECONDS` where nobody watches live."""
        now = time.monotonic()
        ended = progress.shards == progress.total_shards
        if not self._live and not ended and now - self._last < LINE_SECONDS:
            return
        self._last = now
        text = progress_text(progress, now - self._start, bar=self._live)
        if self._live:
            self._stream.write(f"\r\x1b[K{text}")
            self._open_line = True
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()


def progress_text(progress: Progress, seconds: float, bar: bool = False) -> str:
    """Return one line: images, share, shards, images/s, time left, rejects."""
    images = progress.images + progress.under_way
    share = images / max(progress.total, 1)
    rate = images / seconds if seconds > 0 else 0.0
    # The first images of a shard come after its worker has started, or has read an archive once: no measure of the rest.
    left = duration_text((progress.total - images) / rate) if rate > 0 and share >= LEAST_SHARE else "?"
    filled = round(share * BAR_WIDTH)
    parts = [
        f"{images:,}/{progress.total:,} images {share:4.0%}",
        f"{progress.shards}/{progress.total_shards} shards",
        f"{rate:,.0f} images/s",
        f"{left} left",
    ]
    if progress.rejected:
        parts.append(f"{progress.rejected:,} rejected")
    line = " · ".join(parts)
    return f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {line}" if bar else line


def duration_text(seconds: float) -> str:
    """Return 45 s, 12 min or 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def plan_text(plan: Plan) -> str:
    """Return what will be built, one line a split."""
    config = plan.config
    lines = [f"{', '.join(config.colorspaces)} at {config.image_size} x {config.image_size} into {config.out}"]
    for name, split in plan.splits.items():
        names = split.label_names
        kind = {
            None: "no labels",
            "class": counted(len(names or ()), "class", "classes"),
            "attribute": counted(len(names or ()), "attribute"),
        }
        origin = config.paths.get(name, config.paths.get("source", "generated"))
        lines.append(
            f"  {name}: {counted(len(split.listing), 'image')} ({split.kind}: {origin}), {kind[plan.label_kind(name)]}, "
            f"{counted(plan.shard_count(name), 'shard')}"
        )
    if config.partition is not None:
        lines.append(
            f"  partition {config.partition[0]} of {config.partition[1]}: {counted(len(plan.own_keys()), 'shard')}"
        )
    return "\n".join(lines)


def found_text(plan: Plan) -> str:
    """Return a line a color space whose folder holds something: what is kept, what ``--overwrite`` discards.

    Raises
    ------
    SplitbrainError
        A folder holds a build of something else.
    """
    lines = []
    for colorspace in plan.config.colorspaces:
        found, root = survey(plan, colorspace), plan.root(colorspace)
        own = len(plan.own_keys())
        if found.discards:
            lines.append(
                f"  --overwrite discards {counted(len(found.discards), 'file')} of {root}, {found.freed / 1e6:,.1f} MB, "
                f"once an image of each split has been read"
            )
        elif len(found.missing) < own:
            lines.append(
                f"  {root}: {own - len(found.missing)} of {counted(own, 'shard')} are there already and are kept"
            )
    return "\n".join(lines)


def dry_run_text(plan: Plan) -> str:
    """Return the plan with bytes and time of what this partition still has to make.

    Raises
    ------
    SplitbrainError
        The folder holds a build of something else or may not be written, or the disk is too small.
    """
    found = {name: survey(plan, name) for name in plan.config.colorspaces}
    missing = {name: one.missing for name, one in found.items()}
    needed = check_room(plan, missing, sum(one.freed for one in found.values()))
    lines = [plan_text(plan), found_text(plan)]
    for colorspace, split in {(name, key[0]) for name, keys in missing.items() for key in keys}:
        check_writable(plan.root(colorspace) / split)
    files = sum(len(keys) for keys in missing.values())
    if files:
        packed = " before compression" if plan.config.compression != "none" else ""
        aside = temporary_bytes(plan, set().union(*missing.values()))
        meanwhile = f"; while archives are read at least {aside / 1e6:,.1f} MB more" if aside else ""
        lines += [
            f"  {needed / 1e6:,.1f} MB in {counted(files, 'file')}{packed}{meanwhile}",
            _time_text(plan, set().union(*missing.values())),
            _training_text(plan),
        ]
    else:
        lines.append("  nothing to do: no shard is missing")
    return "\n".join([*filter(None, lines), "nothing was written"])


def _time_text(plan: Plan, missing: set[Key]) -> str:
    cost, workers = estimate(plan, [key for key in plan.own_keys() if key in missing]), plan.config.worker_count
    # Processes start and load libraries first, which the estimate leaves out.
    seconds = f"about {duration_text(cost.seconds)}" if cost.seconds >= 2 else "under 5 s, start-up included,"
    hours = f", {cost.core_seconds / 3600:,.2g} core-hours" if cost.seconds >= 2 else ""
    text = f"  {seconds} with {counted(workers, 'worker')}{hours} ({cost.rate:,.0f} images/s each"
    if plan.config.backend in REMOTE:  # which need not be there yet: nobody is asked how many cores it has
        hours = f"{cost.core_seconds / 3600:,.2g} core-hours, to be divided by the cluster's cores"
        text = f"  {hours} ({cost.rate:,.0f} images/s each"
    if cost.passes:
        text += f", {counted(cost.passes, 'pass', 'passes')} of {duration_text(cost.pass_seconds)} over the archive"
    return f"{text}; measured on {counted(cost.sampled, 'image')}, {cost.rejected} of them rejected)"


def _training_text(plan: Plan) -> str:
    images = max(len(split.listing) for split in plan.splits.values())
    shards = sum(plan.shard_count(split) for split in plan.splits)
    chunks = sum(-(-len(split.listing) // CHUNK_IMAGES) for split in plan.splits.values())
    manifest = shards * SHARD_ENTRY + chunks * CHUNK_ENTRY
    size = f"{manifest / 1e3:,.0f} kB" if manifest < 1e6 else f"{manifest / 1e6:,.1f} MB"
    return (
        f"  then: a manifest of about {size} a color space; an epoch of the largest split at "
        f"{GPU_RATE:,} images/s (an example: sbtrain bench says yours) {duration_text(images / GPU_RATE)}"
    )


def outcome_text(outcome: Outcome, plan: Plan) -> str:
    """Return what a build left, one paragraph a color space."""
    lines = []
    for colorspace, manifest in outcome.manifests.items():
        if manifest is None:
            i, n = plan.config.partition or (1, 1)
            lines.append(
                f"{plan.root(colorspace)}: partition {i} of {n} is done. After all of them: sbprep merge {plan.config.out}"
            )
        else:
            lines.append(manifest_text(manifest))
    lines += [f"{path}: lost or damaged, made again" for path in outcome.restored]
    if not plan.own_keys():
        lines.append(f"nothing to do: the build has {counted(len(plan.keys()), 'shard')}, this partition none")
    elif not outcome.made:
        lines.append("nothing to do: every shard was there already")
    elif outcome.kept:
        lines.append(f"{counted(outcome.made, 'shard')} made, {outcome.kept} kept from before")
    return "\n".join(lines)


def manifest_text(manifest: Manifest) -> str:
    """Return one line a split: images, shards, bytes, rejects and where they are listed."""
    lines = [f"{manifest.root}: complete"]
    for name, split in manifest.splits.items():
        size = sum(shard.bytes for shard in split.shards)
        line = (
            f"  {name}: {counted(split.images, 'image')}, {counted(len(split.shards), 'shard')}, {size / 1e6:,.1f} MB"
        )
        if split.rejected:
            reasons = ", ".join(f"{count:,} {code}" for code, count in split.rejected.items())
            line += (
                f"; {sum(split.rejected.values()):,} of {split.listed:,} rejected ({reasons}), "
                f"listed in {manifest.root / name / 'rejects.jsonl'}"
            )
        lines.append(line)
    return "\n".join(lines)


def show_damage(manifest: Manifest, damage: Iterable[Damage], repairing: bool = False) -> list[Damage]:
    """Print each damaged place as it is found, then the verdict; return them all."""
    start, found = time.perf_counter(), []
    for place in damage:
        click.echo(f"DAMAGED {place}")
        found.append(place)
    seconds = time.perf_counter() - start
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    size = sum(shard.bytes for shard in shards)
    verdict = f"{counted(len(found), 'damaged place')}" if found else "sound"
    click.echo(
        f"{manifest.root}: {verdict}; {counted(len(shards), 'shard')}, {size / 1e6:,.1f} MB read in {seconds:.1f} s "
        f"({size / 1e9 / max(seconds, 1e-9):.1f} GB/s)"
    )
    if found and not repairing:
        click.echo(f"Mend it: sbprep verify {manifest.root} --repair")
    return found
