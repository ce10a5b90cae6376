"""What sbprep tells a person: the plan, a live bar (or a line every few seconds), the outcome, damage."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from itertools import islice
from typing import TextIO

import click
import numpy as np

from sbformat.manifest import Manifest
from sbprep.convert import convert
from sbprep.pipeline import Outcome, Progress, check_room
from sbprep.plan import Plan
from sbprep.sources.base import Rejected
from sbprep.verify import Damage
from sbprep.worker import pixels_of

LINE_SECONDS = 5.0
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
    share = progress.images / max(progress.total, 1)
    rate = progress.images / seconds if seconds > 0 else 0.0
    left = duration_text((progress.total - progress.images) / rate) if rate > 0 else "?"
    filled = round(share * BAR_WIDTH)
    parts = [
        f"{progress.images:,}/{progress.total:,} images {share:4.0%}",
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


def dry_run_text(plan: Plan) -> str:
    """Return the plan with bytes and time, both for this partition.

    Raises
    ------
    BuildError
        The disk is too small.
    """
    own = plan.own_keys()
    needed = check_room(plan, {name: set(own) for name in plan.config.colorspaces})
    images = sum(len(plan.unit(*key).rows) for key in own)
    rate, rejected, sampled = sample_rate(plan)
    lines = [
        plan_text(plan),
        f"  {needed / 1e6:,.1f} MB in {len(own) * len(plan.config.colorspaces)} files"
        + (" before compression" if plan.config.compression != "none" else ""),
        f"  about {duration_text(images / (rate * plan.config.worker_count))} with {plan.config.worker_count} workers "
        f"({rate:,.0f} images/s each, measured on {sampled} images, {rejected} of them rejected)",
        "nothing was written",
    ]
    return "\n".join(lines)


def sample_rate(plan: Plan, images: int = 256) -> tuple[float, int, int]:
    """Read and convert the first shard's first images in memory: (images/s, rejected, tried)."""
    config = plan.config
    key = plan.own_keys()[0] if plan.own_keys() else plan.keys()[0]
    unit, source = plan.unit(*key), plan.splits[key[0]].source
    part = unit.part.take(np.arange(min(images, len(unit.part))))
    blank = np.zeros((1, config.image_size, config.image_size, 3), np.uint8)
    for colorspace in config.colorspaces:
        convert(blank, colorspace, config.target)  # compile, or load what was compiled, outside the measurement
    start, rejected = time.perf_counter(), 0
    for item in islice(source.read(part), len(part)):
        pixels = pixels_of(item, config.image_size, config.resize)
        if isinstance(pixels, Rejected):
            rejected += 1
            continue
        for colorspace in config.colorspaces:
            convert(pixels[None], colorspace, config.target)
    return len(part) / (time.perf_counter() - start), rejected, len(part)


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
    if not outcome.made:
        lines.append("nothing to do: every shard was there already")
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


def show_damage(manifest: Manifest, damage: Iterable[Damage]) -> list[Damage]:
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
    return found
