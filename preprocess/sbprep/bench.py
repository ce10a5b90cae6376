"""``sbprep bench``: this machine's rates beside scikit-image, OpenCV and the published per-image preparation.

Contestants take turns, a ratio is taken within a round, the median of all rounds counts (`stopwatch`). Every side has
one thread a core, is warmed first and reads files that lie in the page cache. Conversion is timed on one core with pixels
in memory: blocks of 64 images on our side, one image after the other on the others'. Builds: see `bench_build`.

Whatever the source, the files measured are 96 x 96 JPEGs: its own where they are, else its images at quality 90.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import time
import zlib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from sbformat.colorimetry import lab_from_rgb
from sbformat.errors import ConfigError, SourceError
from sbformat.manifest import Manifest, open_manifest
from sbformat.schema import CHUNK_IMAGES, STORED_OFFSET, STORED_SCALE, TargetSpec
from sbformat.shard import Shard, open_shard
from sbformat.words import counted
from sbprep import published
from sbprep.bench_build import Files, Job, building, scaling
from sbprep.config import BuildConfig
from sbprep.convert import convert
from sbprep.decode import decode, use_one_thread
from sbprep.sources import builtin, open_splits
from sbprep.sources.base import Item, Rejected, Split
from sbprep.stopwatch import Bar, Contestant, Crew, comparison, ok, rounds, sampled
from sbprep.verify import find_damage
from sbprep.worker import pixels_of

SIZE = 96
QUALITY = 90
REPEATS = 7
BARS = {"scikit-image": Bar(8, 20), "OpenCV, 8 bit": Bar(1, 2), "OpenCV, float32": None}
#: Images that the published preparation does in a round: it is slow and steady.
PUBLISHED_IMAGES = 150
#: Random rows read at a time, as a training batch reads them.
BATCH = 64


def run_scaling(
    source: Path | None, images: int, workers: int, scheduler: str | None, repeats: int = REPEATS
) -> Iterator[str]:
    """Measure what more workers bring, and a Dask cluster of as many; as `run` otherwise."""
    paths = {} if source is None else {"source": source}
    config = BuildConfig(colorspaces=("rescaled_lab",), paths=paths, limit=images, workers=workers)
    with TemporaryDirectory(prefix="sbprep-bench-") as folder, Crew(config.worker_count) as crew:
        files = _write_files(config, crew, Path(folder))
        yield from _conditions(files, source, crew, repeats)
        yield from scaling(files, crew, Job(decode_files, files.paths), scheduler, repeats)


def run(source: Path | None, images: int, workers: int, repeats: int = REPEATS, reds: int = 256) -> Iterator[str]:
    """Measure, and yield the lines to print as soon as each is known.

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
        The source, or an option, is unusable.
    """
    if images < 1:
        raise ConfigError(f"{images} images, expected 1 or more")
    paths = {} if source is None else {"source": source}
    config = BuildConfig(colorspaces=("rescaled_lab",), paths=paths, limit=images, workers=workers)
    use_one_thread()
    with TemporaryDirectory(prefix="sbprep-bench-") as folder, Crew(config.worker_count) as crew:
        files = _write_files(config, crew, Path(folder))
        lacking = published.missing_peers()
        yield from _conditions(files, source, crew, repeats)
        yield from _conversion(files, lacking, repeats)
        yield from _accuracy(crew, reds)
        jobs = {"decode alone": Job(decode_files, files.paths)}
        if importlib.util.find_spec("simplejpeg"):
            jobs["decode alone, libjpeg-turbo"] = Job(decode_files_by_libjpeg_turbo, files.paths)
        if not lacking:
            jobs["published preparation"] = Job(prepare_files, files.paths[:PUBLISHED_IMAGES])
        yield from building(files, crew, jobs, lacking, repeats)
        manifest = open_manifest(files.scratch / "command")
        yield from _checksums(manifest, len(crew), repeats)
        yield from _reading(manifest, repeats)


def _conditions(files: Files, source: Path | None, crew: Crew, repeats: int) -> Iterator[str]:
    size = sum(Path(path).stat().st_size for path in files.paths) / len(files)
    origin = "generated" if source is None else f"from {source}"
    yield f"sbprep bench, {time.strftime('%Y-%m-%d', time.gmtime())}"
    yield f"  processor  {_processor()}, {counted(os.cpu_count() or 1, 'core')}, {len(crew)} of them used"
    yield f"  software   Python {platform.python_version()}, {', '.join(_versions())}"
    yield f"  images     {len(files):,} JPEGs of {SIZE} x {SIZE}, {size:,.0f} bytes on average, {origin}"
    yield f"  numbers    ratio (lowest to highest of {counted(repeats, 'round')}), then the two rates; above 1 sbprep is faster"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _versions() -> Iterator[str]:
    yield f"OpenCV {importlib.import_module('cv2').__version__}"
    for name in ("simplejpeg", "numpy", "numba", "h5py", "joblib", *published.PEERS.values()):
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"{name} not installed"


# ----------------------------------------------------------------------------------------------------------- images


def _write_files(config: BuildConfig, crew: Crew, scratch: Path) -> Files:
    split = _largest_split(config)
    folder = scratch / "images"
    folder.mkdir()
    parts = np.array_split(np.arange(len(split.listing)), len(crew))
    crew.map(write_jpegs, [(split, rows, folder) for rows in parts])
    paths = sorted(str(path) for path in folder.iterdir())
    if not paths:
        raise SourceError(
            f"{config.paths.get('source')}: none of its first {len(split.listing)} images can be decoded. "
            f"sbprep build lists the reasons in rejects.jsonl"
        )
    return Files(folder, paths, scratch)


def _largest_split(config: BuildConfig) -> Split:
    if not config.paths:
        return builtin.splits(SIZE, counts={"unlabeled": config.limit or 1})["unlabeled"]
    return max(open_splits(config).values(), key=lambda split: len(split.listing))


def write_jpegs(split: Split, rows: NDArray[np.int64], folder: Path) -> None:
    """Write these rows of a split as 96 x 96 JPEG files into `folder`, but for images that cannot be decoded."""
    for row, item in zip(rows, split.source.read(split.listing.take(rows)), strict=True):
        content = _jpeg_of(item)
        if content is not None:
            (folder / f"{row:07d}.jpg").write_bytes(content)


def _jpeg_of(item: Item) -> bytes | None:
    if isinstance(item, bytes) and item.startswith(b"\xff\xd8"):
        whole = decode(item)
        if not isinstance(whole, Rejected) and whole.shape == (SIZE, SIZE, 3):
            return item
    pixels = pixels_of(item, SIZE, "crop")
    if isinstance(pixels, Rejected):
        return None
    cv2 = importlib.import_module("cv2")
    encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return bytes(encoded)


def decode_files(paths: list[str]) -> None:
    """Read and decode JPEG files by OpenCV, nothing else."""
    cv2 = importlib.import_module("cv2")
    use_one_thread()
    for path in paths:
        with open(path, "rb") as file:  # noqa: PTH123 - a Path would cost this side 2 us
            cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)


def decode_files_by_libjpeg_turbo(paths: list[str]) -> None:
    """Read and decode JPEG files by the decoder that builds use, nothing else."""
    simplejpeg = importlib.import_module("simplejpeg")
    for path in paths:
        with open(path, "rb") as file:  # noqa: PTH123 - as above
            simplejpeg.decode_jpeg(file.read())


def prepare_files(paths: list[str]) -> None:
    """Do the published preparation, image by image."""
    for path in paths:
        published.prepare(path)


# ------------------------------------------------------------------------------------------- conversion and accuracy


def _conversion(files: Files, lacking: list[str], repeats: int) -> Iterator[str]:
    yield f"convert, pixels to stored pixels and targets, one core, blocks of {CHUNK_IMAGES}"
    result = rounds(_converters(_blocks(files), lacking), repeats)
    yield "  " + ", ".join(f"{name} {result.rate(name):,.0f}" for name in ("rescaled_lab", "lab", "rgb")) + " images/s"
    for ours in ("rescaled_lab", "lab"):
        for theirs, bar in BARS.items():
            judged = bar if ours == "rescaled_lab" else None
            yield comparison(result, ours, theirs, f"{ours} / {theirs}, Lab alone", judged, lacking)


def _blocks(files: Files) -> list[NDArray[np.uint8]]:
    """Decode up to 256 of the files into blocks of 64 images; fewer than 64 are repeated to fill one."""
    items = [pixels_of(Path(path).read_bytes(), SIZE, "crop") for path in files.paths[: 4 * CHUNK_IMAGES]]
    pixels = np.stack([item for item in items if not isinstance(item, Rejected)])
    count = max(len(pixels) // CHUNK_IMAGES, 1) * CHUNK_IMAGES
    return np.split(pixels[np.arange(count) % len(pixels)], count // CHUNK_IMAGES)


def _converters(blocks: list[NDArray[np.uint8]], lacking: list[str]) -> dict[str, Contestant]:
    target, count = TargetSpec(), len(blocks) * CHUNK_IMAGES
    cv2 = importlib.import_module("cv2")
    # OpenCV writes into one image that stays in the cache, and its float32 starts from floats: its best case.
    images, floats = np.concatenate(blocks), np.concatenate(blocks).astype(np.float32) / 255
    lab, lab_float = np.empty_like(images[0]), np.empty_like(floats[0])
    code = cv2.COLOR_RGB2Lab
    contestants = {
        "rescaled_lab": sampled(lambda: [convert(block, "rescaled_lab", target) for block in blocks], count),
        "lab": sampled(lambda: [convert(block, "lab", target) for block in blocks], count),
        "rgb": sampled(lambda: [convert(block, "rgb", target) for block in blocks], count),
        "OpenCV, 8 bit": sampled(lambda: [cv2.cvtColor(image, code, lab) for image in images], count),
        "OpenCV, float32": sampled(lambda: [cv2.cvtColor(image, code, lab_float) for image in floats], count),
    }
    if not lacking:
        rgb2lab = importlib.import_module("skimage.color").rgb2lab
        contestants["scikit-image"] = sampled(lambda: [rgb2lab(image) for image in blocks[0]], CHUNK_IMAGES)
    return contestants


def _accuracy(crew: Crew, reds: int) -> Iterator[str]:
    levels = np.linspace(0, 255, reds).round().astype(np.uint8)
    errors = crew.map(color_errors, [(part,) for part in np.array_split(levels, len(crew))])
    worst, wrong = max(error for error, _ in errors), sum(count for _, count in errors)
    share = 1 - wrong / (3 * reds << 16)
    yield f"color, {reds << 16:,} sRGB values stored as lab, against float64"
    yield f"  worst error half a step {worst:+.1e}   bar half a step +1e-03: {ok(worst <= 1e-3)}"
    yield f"  correctly rounded {100 * share:.4f} %   stretch 99.99 %: {ok(share >= 0.9999)}"


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


# -------------------------------------------------------------------------------------------- checksums and reading


def _checksums(manifest: Manifest, workers: int, repeats: int) -> Iterator[str]:
    chunk = np.random.default_rng(0).bytes(CHUNK_IMAGES * 3 * SIZE * SIZE)
    size = sum(shard.bytes for split in manifest.splits.values() for shard in split.shards)
    works: dict[str, tuple[Callable[[], object], int]] = {
        "xxh3_64": (lambda: xxhash.xxh3_64_digest(chunk), len(chunk)),
        "xxh3_128": (lambda: xxhash.xxh3_128_digest(chunk), len(chunk)),
        "crc32": (lambda: zlib.crc32(chunk), len(chunk)),
        "sha256": (lambda: hashlib.sha256(chunk).digest(), len(chunk)),
        "find_damage, 1 thread": (lambda: list(find_damage(manifest, 1)), size),
        f"find_damage, {counted(workers, 'thread')}": (lambda: list(find_damage(manifest, workers)), size),
    }
    result = rounds({name: sampled(work, amount / 1e9) for name, (work, amount) in works.items()}, repeats)
    yield f"checksums of a chunk of {len(chunk):,} bytes; find_damage on {size:,} bytes of shards"
    yield "  " + ", ".join(f"{name} {result.rate(name):.1f}" for name in works) + " GB/s"


def _reading(manifest: Manifest, repeats: int) -> Iterator[str]:
    (split,) = manifest.splits
    with (
        open_shard(manifest, split, manifest.splits[split].shards[0]) as shard,
        h5py.File(shard.path, "r", locking=False) as file,
    ):
        result = rounds(_readers(shard, file["image"]), repeats)
        yield f"read images of a shard of {len(shard):,}, one core, {min(BATCH, len(shard))} random rows at a time"
    yield f"  Shard.read, all in order {result.rate('read'):,.0f} images/s"
    for theirs in ("h5py, row by row", "h5py, sorted rows"):
        yield comparison(result, "gather", theirs, f"Shard.array[rows] / {theirs}")


def _readers(shard: Shard, dataset: h5py.Dataset) -> dict[str, Contestant]:
    count, image = len(shard), shard.array("image")
    rows = np.random.default_rng(0).permutation(count)[:BATCH]
    block = np.empty((min(CHUNK_IMAGES, count), *image.shape[1:]), np.uint8)
    starts = range(0, count - len(block) + 1, len(block))

    def read() -> None:
        for start in starts:
            shard.read("image", start, start + len(block), block)

    return {
        "read": sampled(read, len(starts) * len(block)),
        "gather": sampled(lambda: image[rows], len(rows)),
        "h5py, row by row": sampled(lambda: [dataset[row] for row in rows], len(rows)),
        "h5py, sorted rows": sampled(lambda: dataset[np.sort(rows)], len(rows)),
    }
