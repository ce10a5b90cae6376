"""``sbprep bench``: this machine's rates beside scikit-image, OpenCV and the published per-image preparation.

How it is measured (see `stopwatch`): contestants take turns, a ratio is taken within a round, the median of all rounds
counts. Every side has one thread a core, is warmed first and reads files that lie in the page cache.

*Convert*: one core, pixels in memory; blocks of 64 images on our side, one by one on the others'.

*Build*: a short build is mostly start-up (processes, imports, loading compiled kernels), of which half a million images
notice nothing. So all sides run in the same warm processes, and each process does the whole job on all images: list,
read, decode, convert, write, hash, fsync, manifest. Nothing is subtracted. That is harsh in one point: every process
waits for its own fsync, which ``sbprep build`` overlaps with its other workers; the lines "without commit" end with the
hashed file. The command as typed, start-up included, is timed on its own.

Whatever the source, the files measured are 96 x 96 JPEGs: its own where they are, else its images at quality 90.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray
from sbformat.colorimetry import lab_from_rgb
from sbformat.errors import BuildError, ConfigError, SourceError
from sbformat.manifest import Manifest, open_manifest
from sbformat.schema import CHUNK_IMAGES, IMAGES_PER_SHARD, STORED_OFFSET, STORED_SCALE, TargetSpec
from sbformat.shard import open_shard

from sbprep import pipeline, published
from sbprep.config import BuildConfig
from sbprep.convert import convert
from sbprep.decode import decode, use_one_thread
from sbprep.plan import make_plan
from sbprep.sources import builtin, open_splits
from sbprep.sources.base import Item, Rejected, Split
from sbprep.stopwatch import Contestant, Crew, Rounds, rounds, sampled
from sbprep.verify import find_damage
from sbprep.worker import Output, Task, pixels_of, run_task

SIZE = 96
QUALITY = 90
REPEATS = 7
#: Images that the published preparation does a round in each process: it is slow and steady.
PUBLISHED_IMAGES = 150
#: Random rows that are read at a time, as a training batch.
BATCH = 64
PEAK_MEGABYTES = 600


@dataclass(frozen=True)
class Bar:
    """What a ratio has to reach, and what it would be good to reach."""

    least: float
    stretch: float

    def verdict(self, ratio: float) -> str:
        """Return ``bar 8: ok, stretch 20: short``."""
        return f"bar {self.least:g}: {_ok(ratio >= self.least)}, stretch {self.stretch:g}: {_ok(ratio >= self.stretch)}"


CONVERT_BARS = {"scikit-image": Bar(8, 20), "OpenCV, 8 bit": Bar(1, 2)}
BUILD_BARS = {"published preparation": Bar(8, 12), "decode alone": Bar(0.6, 0.75)}


@dataclass(frozen=True)
class Files:
    """The JPEG files to measure with, and a folder for what is made of them."""

    folder: Path
    paths: list[str]
    scratch: Path

    def __len__(self) -> int:
        return len(self.paths)


def run(source: Path | None, images: int, workers: int, repeats: int = REPEATS, reds: int = 256) -> Iterator[str]:
    """Measure and yield the lines to print, as soon as each is known.

    Parameters
    ----------
    source : Path or None
        Any data set that ``sbprep build --source`` takes; None: generated images.
    images : int
        Number of files to measure with, at most what the source has.
    workers : int
        Processes of the second series of builds, -1 for one a core; the first series has one.
    repeats : int
        Rounds that count.
    reds : int
        How many of the 256 levels of red are checked against float64, each with all greens and blues.

    Raises
    ------
    SplitbrainError
        The source is unusable, or an option is.
    """
    if images < 1:
        raise ConfigError(f"{images} images, expected 1 or more")
    config = BuildConfig(
        colorspaces=("rescaled_lab",), paths={} if source is None else {"source": source}, limit=images, workers=workers
    )
    use_one_thread()
    with TemporaryDirectory(prefix="sbprep-bench-") as folder, Crew(config.worker_count) as crew:
        files = _write_files(config, crew, Path(folder))
        yield from _conditions(files, source, crew, repeats)
        yield from _conversion(files, repeats)
        yield from _accuracy(crew, reds)
        yield from _building(files, crew, repeats)
        yield from _command(files, len(crew))
        yield from _reading(open_manifest(files.scratch / "command"), len(crew), repeats)


# ------------------------------------------------------------------------------------------------ images and header


def _write_files(config: BuildConfig, crew: Crew, scratch: Path) -> Files:
    split = _largest_split(config)
    folder = scratch / "images"
    folder.mkdir()
    parts = np.array_split(np.arange(len(split.listing)), len(crew))
    crew.map(write_jpegs, [(split, rows, folder) for rows in parts])
    paths = sorted(str(path) for path in folder.iterdir())
    if not paths:
        raise SourceError(f"{config.paths.get('source')}: none of its {len(split.listing)} images can be decoded")
    return Files(folder, paths, scratch)


def _largest_split(config: BuildConfig) -> Split:
    if not config.paths:
        return builtin.splits(SIZE, counts={"unlabeled": config.limit or 1})["unlabeled"]
    return max(open_splits(config).values(), key=lambda split: len(split.listing))


def write_jpegs(split: Split, rows: NDArray[np.int64], folder: Path) -> None:
    """Write these rows of a split as 96 x 96 JPEG files into `folder`; images that cannot be decoded are left out."""
    for row, item in zip(rows, split.source.read(split.listing.take(rows)), strict=True):
        content = _jpeg_of(item)
        if content is not None:
            (folder / f"{row:07d}.jpg").write_bytes(content)


def _jpeg_of(item: Item) -> bytes | None:
    if isinstance(item, bytes) and item.startswith(b"\xff\xd8"):
        pixels = decode(item)
        if not isinstance(pixels, Rejected) and pixels.shape == (SIZE, SIZE, 3):
            return item
    pixels = pixels_of(item, SIZE, "crop")
    if isinstance(pixels, Rejected):
        return None
    cv2 = importlib.import_module("cv2")
    encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return bytes(encoded.tobytes())


def _conditions(files: Files, source: Path | None, crew: Crew, repeats: int) -> Iterator[str]:
    size = sum(os.path.getsize(path) for path in files.paths) / len(files)
    yield f"sbprep bench, {time.strftime('%Y-%m-%d', time.gmtime())}"
    yield f"  processor   {_processor()}, {len(crew)} of {os.cpu_count()} cores used"
    yield f"  software    Python {platform.python_version()}, {', '.join(_versions())}"
    yield (
        f"  images      {len(files):,} JPEGs of {SIZE} x {SIZE}, {size:,.0f} bytes on average, "
        f"{'generated' if source is None else f'from {source}'}, in {files.scratch.parent}"
    )
    yield f"  rounds      {repeats}; a ratio is the median of the rounds (lowest to highest); a higher one is better for sbprep"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _versions() -> Iterator[str]:
    for name in ("numpy", "numba", "h5py", "joblib", "scikit-image", "pillow"):
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"{name} not installed"
    yield f"OpenCV {importlib.import_module('cv2').__version__}"


# ------------------------------------------------------------------------------------------------------- conversion


def _conversion(files: Files, repeats: int) -> Iterator[str]:
    yield f"convert, one core, blocks of {CHUNK_IMAGES} images of {SIZE} x {SIZE}, with targets, pixels to pixels"
    contestants = _converters(_blocks(files))
    result = rounds(contestants, repeats)
    for name in ("rescaled_lab", "lab", "rgb"):
        yield f"  {name:<14}{result.rate(name):>10,.0f} images/s"
    for ours in ("rescaled_lab", "lab"):
        for theirs in ("scikit-image", "OpenCV, 8 bit", "OpenCV, float32"):
            bar = CONVERT_BARS.get(theirs) if ours == "rescaled_lab" else None
            yield _comparison(result, ours, theirs, f"{ours} / {theirs}: Lab alone", bar)


def _blocks(files: Files) -> list[NDArray[np.uint8]]:
    """Decode up to 256 of the files into blocks of 64 images; fewer than 64 are repeated to fill one."""
    pixels = [pixels_of(Path(path).read_bytes(), SIZE, "crop") for path in files.paths[: 4 * CHUNK_IMAGES]]
    good = np.stack([image for image in pixels if not isinstance(image, Rejected)])
    count = max(len(good) // CHUNK_IMAGES, 1) * CHUNK_IMAGES
    return np.split(good[np.arange(count) % len(good)], count // CHUNK_IMAGES)


def _converters(blocks: list[NDArray[np.uint8]]) -> dict[str, Contestant]:
    target, count = TargetSpec(), len(blocks) * CHUNK_IMAGES
    cv2 = importlib.import_module("cv2")
    floats = np.concatenate(blocks).astype(np.float32) / 255
    lab, lab_float = np.empty((SIZE, SIZE, 3), np.uint8), np.empty((SIZE, SIZE, 3), np.float32)
    contestants = {
        "rescaled_lab": sampled(lambda: [convert(block, "rescaled_lab", target) for block in blocks], count),
        "lab": sampled(lambda: [convert(block, "lab", target) for block in blocks], count),
        "rgb": sampled(lambda: [convert(block, "rgb", target) for block in blocks], count),
        # Both write into one image that stays in the cache, and the float one starts from floats: the best case.
        "OpenCV, 8 bit": sampled(
            lambda: [cv2.cvtColor(image, cv2.COLOR_RGB2Lab, lab) for block in blocks for image in block], count
        ),
        "OpenCV, float32": sampled(
            lambda: [cv2.cvtColor(image, cv2.COLOR_RGB2Lab, lab_float) for image in floats], count
        ),
    }
    if "scikit-image" not in published.missing_peers():
        color = importlib.import_module("skimage.color")
        contestants["scikit-image"] = sampled(lambda: [color.rgb2lab(image) for image in blocks[0]], CHUNK_IMAGES)
    return contestants


# --------------------------------------------------------------------------------------------------------- accuracy


def _accuracy(crew: Crew, reds: int) -> Iterator[str]:
    levels = np.linspace(0, 255, reds).round().astype(np.uint8)
    errors = crew.map(color_errors, [(part,) for part in np.array_split(levels, len(crew))])
    worst, wrong, colors = max(worst for worst, _ in errors), sum(wrong for _, wrong in errors), len(levels) << 16
    share = 1 - wrong / (3 * colors)
    yield f"color, {colors:,} sRGB values stored as lab, against float64"
    yield (
        f"  worst error    half a step {worst:+.1e}                                 "
        f"bar half a step +1e-03: {_ok(worst <= 1e-3)}"
    )
    yield f"  rounded right  {100 * share:.5f} % of {3 * colors:,} values               stretch 99.99 %: {_ok(share >= 0.9999)}"


def color_errors(reds: NDArray[np.uint8]) -> tuple[float, int]:
    """Convert all colors with these levels of red; return the worst error beyond half a step and the number misrounded."""
    rgb = np.empty((1, 256, 256, 3), np.uint8)
    rgb[..., 1], rgb[..., 2] = np.arange(256)[:, None], np.arange(256)
    worst, wrong = -0.5, 0
    for red in reds:
        rgb[..., 0] = red
        stored = convert(rgb, "lab", TargetSpec()).image[0].transpose(1, 2, 0)
        exact = lab_from_rgb(rgb[0]) * STORED_SCALE["lab"] + STORED_OFFSET["lab"]
        worst = max(worst, float(np.abs(stored - exact).max()) - 0.5)
        wrong += int((stored != np.floor(exact + 0.5)).sum())
    return worst, wrong


# ------------------------------------------------------------------------------------------------------------ build


def _building(files: Files, crew: Crew, repeats: int) -> Iterator[str]:
    peaks = crew.map(first_build, [(_full_shard(files), files.scratch / "first")] * len(crew))
    shutil.rmtree(files.scratch / "first")
    missing = published.missing_peers()
    for members in sorted({1, len(crew)}):
        result = rounds(_builders(files, crew, members, missing), repeats)
        yield f"build, JPEG files to shards of rescaled_lab, {_count(members, 'warm process')} for each side"
        for ours in ("build", "build without commit"):
            for theirs, bar in BUILD_BARS.items():
                yield _comparison(result, ours, theirs, f"{ours} / {theirs}", bar if ours == "build" else None)
    yield "memory"
    yield (
        f"  {max(peaks):,.0f} MB at most in a process that built one shard of {IMAGES_PER_SHARD:,} images"
        f"            bar {PEAK_MEGABYTES} MB: {_ok(max(peaks) <= PEAK_MEGABYTES)}"
    )


def _full_shard(files: Files) -> Path:
    """Return a folder of as many links to the files as a full shard has images."""
    folder = files.scratch / "shard"
    folder.mkdir()
    for number in range(IMAGES_PER_SHARD):
        (folder / f"{number:04d}.jpg").symlink_to(files.paths[number % len(files)])
    return folder


def first_build(images: Path, out: Path) -> float:
    """Build `images` and return the peak memory of this process so far in MB."""
    build_shards(images, out)
    # Not getrusage: its maximum starts with what the parent had in memory when it started this process.
    status = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 / 1e6 for line in status if line.startswith("VmHWM"))


def _builders(files: Files, crew: Crew, members: int, missing: list[str]) -> dict[str, Contestant]:
    def contestant(function: Callable[..., None], count: int, *arguments: Any) -> Contestant:
        def once() -> float:
            seconds = crew.seconds(members, function, *arguments)
            shutil.rmtree(files.scratch / "out", ignore_errors=True)
            return members * count / seconds

        return once

    out, few = files.scratch / "out", files.paths[:PUBLISHED_IMAGES]
    contestants = {
        "build": contestant(build_shards, len(files), files.folder, out),
        "build without commit": contestant(make_shards, len(files), files.folder, out),
        "decode alone": contestant(decode_files, len(files), files.paths),
    }
    if not missing:
        contestants["published preparation"] = contestant(prepare_files, len(few), few)
    return contestants


def build_shards(images: Path, out: Path) -> None:
    """Do all that ``sbprep build --workers 1`` does, in this process, into a folder of its own under `out`."""
    pipeline.build(_own_config(images, out))


def make_shards(images: Path, out: Path) -> None:
    """List the images and do what a worker of ``sbprep build`` does, up to hashed files under temporary names."""
    plan = make_plan(_own_config(images, out))
    config, (split,) = plan.config, plan.splits
    folder = plan.root("rescaled_lab") / split
    folder.mkdir(parents=True)
    output = Output(colorspace="rescaled_lab", folder=folder, datasets=plan.datasets(split, "rescaled_lab"))
    for key in plan.keys():
        run_task(
            Task(
                units=[plan.unit(*key)],
                outputs=[[output]],
                source=plan.splits[split].source,
                image_size=config.image_size,
                resize=config.resize,
                target=config.target,
                compression=config.compression,
            )
        )


def _own_config(images: Path, out: Path) -> BuildConfig:
    return BuildConfig(
        colorspaces=("rescaled_lab",), paths={"unlabeled": images}, out=out / str(os.getpid()), workers=1
    )


def decode_files(paths: list[str]) -> None:
    """Read and decode JPEG files, nothing else."""
    cv2 = importlib.import_module("cv2")
    use_one_thread()
    for path in paths:
        with open(path, "rb") as file:  # noqa: PTH123 - a Path costs 2 us
            cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)


def prepare_files(paths: list[str]) -> None:
    """Do the published preparation, image by image."""
    for path in paths:
        published.prepare(path)


def _command(files: Files, workers: int) -> Iterator[str]:
    whole = _command_seconds(files, "command", workers, ["--images-per-shard", str(-(-len(files) // workers))])
    start = _command_seconds(files, "start", workers, ["--images-per-shard", "1", "--limit", str(workers)])
    yield (
        f"sbprep build as typed: {len(files):,} images by {_count(workers, 'worker')} in {whole:.2f} s; "
        f"start-up, seen with {_count(workers, 'image')}: {start:.2f} s"
    )


def _command_seconds(files: Files, out: str, workers: int, options: list[str]) -> float:
    command = [sys.executable, "-m", "sbprep", "build", "--colorspace", "rescaled_lab", "--workers", str(workers)]
    command += ["--unlabeled", str(files.folder), "--out", str(files.scratch / out), *options]
    start = time.perf_counter()
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    if result.returncode:
        raise BuildError(f"{' '.join(command)} ended with {result.returncode}: {result.stderr[-500:]}")
    return time.perf_counter() - start


# ------------------------------------------------------------------------------------------------ checks and reading


def _reading(manifest: Manifest, workers: int, repeats: int) -> Iterator[str]:
    (split,) = manifest.splits
    records = manifest.splits[split].shards
    size = sum(record.bytes for record in records) / 1e9
    chunk = np.random.default_rng(0).integers(0, 256, CHUNK_IMAGES * 3 * SIZE * SIZE, np.uint8)
    yield f"checksums of a chunk ({len(chunk):,} bytes) and of whole shards, GB/s"
    hashes: dict[str, Callable[[Any], object]] = {
        "xxh3_64": xxhash.xxh3_64_digest,
        "xxh3_128": xxhash.xxh3_128_digest,
        "crc32": zlib.crc32,
        "sha256": lambda data: hashlib.sha256(data).digest(),
    }
    contestants = {name: sampled(lambda f=f: f(chunk), len(chunk) / 1e9) for name, f in hashes.items()}  # type: ignore[misc]
    for count in sorted({1, workers}):
        name = f"find_damage, {_count(count, 'thread')}"
        contestants[name] = sampled(lambda count=count: list(find_damage(manifest, count)), size)  # type: ignore[misc]
    result = rounds(contestants, repeats)
    yield "  " + ", ".join(f"{name} {result.rate(name):.1f}" for name in contestants)
    with open_shard(manifest, split, records[0]) as shard, h5py.File(shard.path, "r", locking=False) as file:
        result = rounds(_readers(shard, file["image"]), repeats)
    yield f"read images of one shard ({len(shard):,} images), one core; random rows {min(BATCH, len(shard))} at a time"
    yield f"  {'Shard.read, blocks in order':<30}{result.rate('read'):>10,.0f} images/s"
    yield _comparison(result, "gather", "h5py, row by row", "Shard.array[rows] / h5py, row by row", None)
    yield _comparison(result, "gather", "h5py, sorted rows", "Shard.array[rows] / h5py, sorted rows", None)


def _readers(shard: Any, dataset: h5py.Dataset) -> dict[str, Contestant]:
    count, image = len(shard), shard.array("image")
    rows = np.random.default_rng(0).permutation(count)[:BATCH]
    block = np.empty((min(CHUNK_IMAGES, count), *image.shape[1:]), np.uint8)
    starts = range(0, count - len(block) + 1, len(block))
    return {
        "read": sampled(
            lambda: [shard.read("image", start, start + len(block), block) for start in starts], len(starts) * len(block)
        ),
        "gather": sampled(lambda: image[rows], len(rows)),
        "h5py, row by row": sampled(lambda: [dataset[row] for row in rows], len(rows)),
        "h5py, sorted rows": sampled(lambda: dataset[np.sort(rows)], len(rows)),
    }


# ------------------------------------------------------------------------------------------------------------ lines


def _comparison(result: Rounds, ours: str, theirs: str, label: str, bar: Bar | None) -> str:
    if theirs not in result.rates:
        return f"  {label:<48} not measured: pip install {' '.join(published.missing_peers())}"
    ratio = result.ratio(ours, theirs)
    return (
        f"  {label:<48}{ratio.median:>8.2f}x ({ratio.lowest:.2f} to {ratio.highest:.2f})"
        f"{result.rate(ours):>10,.0f} : {result.rate(theirs):,.0f} images/s"
        + ("" if bar is None else f"   {bar.verdict(ratio.median)}")
    )


def _ok(reached: bool) -> str:
    return "ok" if reached else "short"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"
