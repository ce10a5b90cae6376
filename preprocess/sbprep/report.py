"""What sbprep tells a person: the plan, a live bar (or a line every few seconds), the outcome, damage."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TextIO

import click

from sbformat.manifest import Manifest
from sbprep.disk import check_room
from sbprep.estimate import estimate
from sbprep.journal import Key
from sbprep.pipeline import Outcome
from sbprep.plan import Plan
from sbprep.progress import Progress
from sbprep.store import survey
from sbprep.verify import Damage

LINE_SECONDS = 5.0
LEAST_SHARE = 0.01  # of a build, for telling what is left
BAR_WIDTH = 24


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
            "class": f"{len(names or ())} classes",
            "attribute": f"{len(names or ())} attributes",
        }
        origin = config.paths.get(name, config.paths.get("source", "generated"))
        lines.append(
            f"  {name}: {len(split.listing):,} images ({split.kind}: {origin}), {kind[plan.label_kind(name)]}, "
            f"{plan.shard_count(name)} shards"
        )
    if config.partition is not None:
        lines.append(f"  partition {config.partition[0]} of {config.partition[1]}: {len(plan.own_keys())} shards")
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
                f"  --overwrite discards {len(found.discards)} files of {root}, {found.freed / 1e6:,.1f} MB, "
                f"once an image of each split has been read"
            )
        elif len(found.missing) < own:
            lines.append(f"  {root}: {own - len(found.missing)} of {own} shards are there already and are kept")
    return "\n".join(lines)


def dry_run_text(plan: Plan) -> str:
    """Return the plan with bytes and time of what this partition still has to make.

    Raises
    ------
    SplitbrainError
        The folder holds a build of something else, or the disk is too small.
    """
    found = {name: survey(plan, name) for name in plan.config.colorspaces}
    missing = {name: one.missing for name, one in found.items()}
    needed = check_room(plan, missing, sum(one.freed for one in found.values()))
    lines = [plan_text(plan), found_text(plan)]
    files = sum(len(keys) for keys in missing.values())
    if files:
        packed = " before compression" if plan.config.compression != "none" else ""
        lines += [
            f"  {needed / 1e6:,.1f} MB in {files} files{packed}",
            _time_text(plan, set().union(*missing.values())),
        ]
    else:
        lines.append("  nothing to do: no shard is missing")
    return "\n".join([*filter(None, lines), "nothing was written"])


def _time_text(plan: Plan, missing: set[Key]) -> str:
    cost, workers = estimate(plan, [key for key in plan.own_keys() if key in missing]), plan.config.worker_count
    text = f"  about {duration_text(cost.seconds)} with {workers} worker{'s' if workers > 1 else ''} ({cost.rate:,.0f} images/s each"
    if cost.passes:
        text += f", {cost.passes} pass{'es' if cost.passes > 1 else ''} of {duration_text(cost.pass_seconds)} over the archive"
    return f"{text}; measured on {cost.sampled} images, {cost.rejected} of them rejected)"


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
        lines.append(f"nothing to do: there are {len(plan.keys())} shards, so this partition has none")
    elif not outcome.made:
        lines.append("nothing to do: every shard was there already")
    elif outcome.kept:
        lines.append(f"{outcome.made} shards made, {outcome.kept} kept from before")
    return "\n".join(lines)


def manifest_text(manifest: Manifest) -> str:
    """Return one line a split: images, shards, bytes, rejects and where they are listed."""
    lines = [f"{manifest.root}: complete"]
    for name, split in manifest.splits.items():
        size = sum(shard.bytes for shard in split.shards)
        line = f"  {name}: {split.images:,} images, {len(split.shards)} shards, {size / 1e6:,.1f} MB"
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
    verdict = f"{len(found)} damaged place{'s' if len(found) > 1 else ''}" if found else "sound"
    click.echo(
        f"{manifest.root}: {verdict}; {len(shards)} shards, {size / 1e6:,.1f} MB read in {seconds:.1f} s "
        f"({size / 1e9 / max(seconds, 1e-9):.1f} GB/s)"
    )
    if found and not repairing:
        click.echo(f"Mend it: sbprep verify {manifest.root} --repair")
    return found
