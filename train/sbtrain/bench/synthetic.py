"""Shards of random bytes: what a benchmark streams where no data set was prepared. Uncompressed, schema 1, h5py alone.

Not for training: images and targets have nothing to do with each other.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from sbformat.manifest import ChunkTable, Manifest, ShardRecord, SplitManifest
from sbformat.schema import (
    ALIGNMENT,
    CHUNK_IMAGES,
    FORMAT_NAME,
    IMAGES_PER_SHARD,
    SCHEMA_VERSION,
    Colorspace,
    DatasetSpec,
    TargetSpec,
    class_label,
    fixed_range,
    shard_datasets,
)


def write_synthetic(
    root: Path,
    splits: dict[str, int],
    colorspace: Colorspace = "lab",
    image_size: int = 96,
    target: TargetSpec | None = None,
    classes: int = 10,
    seed: int = 0,
) -> Manifest:
    """Write random shards and their manifest into the folder `root`, and return the manifest.

    Parameters
    ----------
    root : Path
        ``<data_cache>/<colorspace>``; created.
    splits : dict
        Split -> images. The class of row i is i modulo `classes`; split unlabeled has no labels.
    colorspace, image_size, target
        As of any shards.
    classes : int
    seed : int
        Of the bytes. Full shards of one split have the same ones.
    """
    target = target or TargetSpec()
    made = {}
    for split, images in splits.items():
        label = None if split == "unlabeled" else class_label()
        datasets = shard_datasets(colorspace, image_size, target, label)
        records = _write_split(root / split, images, datasets, (colorspace, target, classes, seed))
        made[split] = SplitManifest(
            source={"kind": "synthetic"},
            listed=images,
            rejected={},
            label_kind=None if label is None else "class",
            files={},
            statistics={"mean": [127.5] * 3, "std": [73.9] * 3},
            shards=tuple(records),
        )
    manifest = Manifest(
        root=root,
        colorspace=colorspace,
        image_size=image_size,
        target=target,
        label_names=tuple(f"class-{c}" for c in range(classes)),
        recipe={"compression": "none", "seed": seed, "images_per_shard": IMAGES_PER_SHARD},
        provenance={"software": {"synthetic": "random bytes"}},
        splits=made,
    )
    manifest.write()
    return manifest


_About = tuple[Colorspace, TargetSpec, int, int]


def _write_split(folder: Path, images: int, datasets: dict[str, DatasetSpec], about: _About) -> list[ShardRecord]:
    folder.mkdir(parents=True, exist_ok=True)
    records: list[ShardRecord] = []
    for number in range(-(-images // IMAGES_PER_SHARD)):
        count = min(IMAGES_PER_SHARD, images - number * IMAGES_PER_SHARD)
        path = folder / f"shard-{number:05d}.h5"
        if records and count == records[0].count:  # drawing and hashing take longer than copying
            shutil.copyfile(folder / records[0].name, path)
            first = records[0]
            records.append(ShardRecord(path.name, count, first.bytes, first.xxh3_128, first.datasets))
        else:
            records.append(_write_shard(path, _rows(count, datasets, *about), datasets))
    return records


def _rows(
    count: int, datasets: dict[str, DatasetSpec], colorspace: Colorspace, target: TargetSpec, classes: int, seed: int
) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng((seed, count))
    high = {"image": 256, "target_single": target.single_classes, "target_dual": target.dual_classes}
    rows: dict[str, NDArray[Any]] = {}
    for name, spec in datasets.items():
        if name in high:
            rows[name] = rng.integers(0, high[name], (count, *spec.row_shape), spec.dtype)
        elif name in ("image_range", "target_range"):
            rows[name] = np.broadcast_to(fixed_range(colorspace), (count, 3, 2)).astype(spec.dtype)
        else:
            rows[name] = np.arange(count, dtype=spec.dtype) % (classes if name == "label" else count)
    return rows


def _write_shard(path: Path, rows: dict[str, NDArray[Any]], datasets: dict[str, DatasetSpec]) -> ShardRecord:
    count = len(rows["image"])
    offsets: dict[str, list[int]] = {}
    with h5py.File(
        path,
        "w",
        libver=("v110", "v110"),
        meta_block_size=max(2048, 32 * count // CHUNK_IMAGES),
        alignment_threshold=ALIGNMENT,
        alignment_interval=ALIGNMENT,
    ) as file:
        file.attrs["format"], file.attrs["schema"] = FORMAT_NAME, SCHEMA_VERSION
        for name in datasets:
            size = CHUNK_IMAGES if name == "image" else count
            chunks = -(-count // size)
            padded = np.zeros((chunks * size, *rows[name].shape[1:]), rows[name].dtype)
            padded[:count] = rows[name]
            dataset = file.create_dataset(
                name, rows[name].shape, padded.dtype, chunks=(size, *padded.shape[1:]), maxshape=padded.shape
            )
            for k in range(chunks):
                start = (k * size,) + (0,) * (padded.ndim - 1)
                dataset.id.write_direct_chunk(start, padded[k * size : (k + 1) * size].data.cast("B"))
        file.flush()
        for name in datasets:
            infos = [file[name].id.get_chunk_info(k) for k in range(file[name].id.get_num_chunks())]
            offsets[name] = [info.byte_offset for info in sorted(infos, key=lambda info: info.chunk_offset[0])]
    return _record(path, count, datasets, offsets)


def _record(path: Path, count: int, datasets: dict[str, DatasetSpec], offsets: dict[str, list[int]]) -> ShardRecord:
    content = np.memmap(path, np.uint8, "r")
    tables = {}
    for name, spec in datasets.items():
        rows = CHUNK_IMAGES if name == "image" else count
        size, found = rows * spec.row_bytes, offsets[name]
        stride = found[1] - found[0] if len(found) > 1 else size
        sums = "".join(xxhash.xxh3_64_hexdigest(content[offset : offset + size].data) for offset in found)
        tables[name] = ChunkTable(rows, sums, offset=found[0], stride=stride).to_json()
    return ShardRecord(path.name, count, len(content), xxhash.xxh3_128_hexdigest(content.data), tables)
