"""Rows of a split become batches: the same ones, wherever they wait and however often one starts."""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from builds import small_config
from runs import IMAGES, command
from sbformat.errors import ConfigError, FormatError, ShardError
from sbformat.manifest import Manifest, open_manifest
from sbformat.schema import TargetSpec, values_from_bins, values_from_image
from sbprep.pipeline import build
from sbtrain.bench.synthetic import write_synthetic
from sbtrain.cli import main
from sbtrain.data import Batch, Loader, Order, SplitReader, order_from_text, reside
from sbtrain.evaluation.labeled import Labeled
from sbtrain.residence import host_memory

CPU = torch.device("cpu")
NAMES = ("image", "image_range", "target_single", "target_dual", "target_range", "source_index")
RESIDENCES = ("device", "host", "mmap")


def loader(manifest: Manifest, cache: str = "mmap", shuffle: str = "exact", batch: int = 8) -> Loader:
    names = tuple(name for name in NAMES if name in manifest.datasets("unlabeled"))
    reader = SplitReader(manifest, "unlabeled", names)
    return Loader(reside(cache, reader, CPU), order_from_text(shuffle, len(reader), 3), batch)


def content(batch: Batch) -> dict[str, bytes]:
    fields = {name: tensor.numpy().tobytes() for name, tensor in batch.fields.items()}
    return {"index": batch.index.numpy().tobytes(), "epoch": bytes([batch.epoch]), **fields}


@pytest.mark.parametrize("shuffle", ["exact", "window=10"])
def test_batches_are_the_same_bits_in_every_residence(rescaled: Manifest, shuffle: str) -> None:
    found = [[content(b) for b in loader(rescaled, cache, shuffle).batches(0, 15)] for cache in RESIDENCES]

    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 15


def test_wide_class_numbers_are_the_same_in_every_residence(tmp_path: Path) -> None:
    """More than 256 joint bins are stored as uint16, which torch does not gather."""
    config = small_config(None, tmp_path, "rgb", image_size=16, target=TargetSpec(size=4, dual=20), limit=20)
    manifest = build(config).manifests["rgb"]
    assert manifest is not None

    found = [[content(b) for b in loader(manifest, cache).batches(0, 2)] for cache in RESIDENCES]

    assert found[0] == found[1] == found[2]
    assert manifest.datasets("unlabeled")["target_dual"].dtype == np.uint16


def test_a_batch_holds_the_rows_that_its_index_names(rescaled: Manifest) -> None:
    reader = SplitReader(rescaled, "unlabeled", ("image", "source_index"))
    whole = np.concatenate([shard.read("image", 0, len(shard)) for _, shard in reader.blocks("image")])

    batch = next(loader(rescaled).batches(4, 5))

    assert np.array_equal(batch["image"].numpy(), whole[batch.index.numpy()])


@pytest.mark.parametrize("shuffle", ["exact", "window=7", "window=48", "window=1000"])
def test_an_epoch_shows_every_image_once_and_the_next_in_another_order(shuffle: str) -> None:
    order = order_from_text(shuffle, IMAGES, 0)
    places = np.arange(IMAGES)

    first, second = order.at(0, places), order.at(1, places)

    assert sorted(first) == sorted(second) == list(range(IMAGES))
    assert first.tolist() != second.tolist()


def test_a_window_reads_neighbors() -> None:
    rows = Order(100, 0, window=10).at(0, np.arange(100)).reshape(10, 10)

    assert all(np.ptp(window) == 9 for window in rows)


def test_batches_from_the_middle_are_those_of_the_whole(lab: Manifest) -> None:
    one = loader(lab)
    whole = [content(batch) for batch in one.batches(0, 14)]

    assert [content(batch) for batch in one.batches(9, 14)] == whole[9:]


def test_the_remainder_of_an_epoch_is_another_in_each(lab: Manifest) -> None:
    one = loader(lab, batch=20)  # 48 = 2 * 20 + 8
    left = [set(range(IMAGES)) - {i for b in one.batches(2 * e, 2 * e + 2) for i in b.index.tolist()} for e in (0, 1)]

    assert [len(rows) for rows in left] == [8, 8]
    assert left[0] != left[1]


@pytest.mark.parametrize("cache", RESIDENCES)
def test_a_thousand_early_breaks_leave_no_thread_and_no_file(lab: Manifest, cache: str) -> None:
    one = loader(lab, cache)
    next(one.batches(0, 1))
    files, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    for step in range(1000):
        for _ in one.batches(step, step + 6):
            break

    assert (len(list(Path("/proc/self/fd").iterdir())), threading.active_count()) == (files, threads)


@pytest.mark.parametrize("cache", RESIDENCES)
def test_a_batch_that_is_held_is_never_written_over(lab: Manifest, cache: str) -> None:
    expected = [content(batch) for batch in loader(lab, cache).batches(0, 20)]

    held = list(loader(lab, cache).batches(0, 20))

    assert [content(batch) for batch in held] == expected


@pytest.mark.parametrize("piece", [lambda b: b["image"][3:4, 1].numpy(), lambda b: b.parts(2)[1]["image"].numpy()[1:]])
def test_a_piece_of_a_batch_keeps_its_memory(lab: Manifest, piece: Callable[[Batch], Any]) -> None:
    batches = loader(lab, "host").batches(0, 40)
    kept = piece(next(batches))
    before = np.array(kept)

    for _ in batches:
        pass

    assert np.array_equal(kept, before)


def test_waiting_for_data_is_measured(lab: Manifest) -> None:
    one = loader(lab)

    assert len(list(one.batches(0, 6))) == 6
    assert one.waiting.seconds > 0


def test_micro_batches_are_the_batch_in_pieces(rescaled: Manifest) -> None:
    batch = next(loader(rescaled).batches(6, 7))

    parts = batch.parts(4)

    assert torch.equal(torch.cat([part["image"] for part in parts]), batch["image"])
    assert {part.epoch for part in parts} == {1}


def test_a_window_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected exact or window=K"):
        order_from_text("window=0", 10, 0)


def test_host_memory_is_some_gigabytes() -> None:
    assert 1 << 28 < host_memory() < 1 << 50


def test_decoded_targets_have_a_and_b_the_right_way_round(rescaled: Manifest) -> None:
    """A swap of both survives every loss: the joint class is a * n + b."""
    batch = next(loader(rescaled, batch=IMAGES).batches(0, 1))
    image = values_from_image(batch["image"].numpy(), "rescaled_lab", batch["image_range"].numpy())
    means = image.reshape(IMAGES, 3, 4, 16, 4, 16).mean((3, 5))

    decoded = values_from_bins(
        batch["target_single"].numpy(), batch["target_dual"].numpy(), batch["target_range"].numpy(), rescaled.target
    )

    spans = np.ptp(batch["target_range"].numpy(), axis=-1)[:, 1:, None, None]
    assert np.all(np.abs(decoded - means)[:, 1:] <= spans / 20 + 0.5)
    assert not np.all(np.abs(decoded - means[:, [0, 2, 1]])[:, 1:] <= spans / 20 + 0.5)


# ------------------------------------------------------------------------------------------------- damaged shards


def shard_of(root: Path, number: int = 1) -> Path:
    return root / "lab" / "unlabeled" / f"shard-{number:05d}.h5"


def flip(path: Path, dataset: str, bit: int = 0x80) -> None:
    shards = Manifest.read(path.parents[1]).splits[path.parent.name].shards
    place = next(shard for shard in shards if shard.name == path.name).chunks(dataset).offset + 4
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ bit]))


def test_verify_names_a_flipped_byte_before_the_first_step(own_shards: Path, tmp_path: Path) -> None:
    flip(shard_of(own_shards), "image")

    result = CliRunner().invoke(main, command(own_shards, tmp_path / "run", "--verify"))

    assert result.exit_code == 1
    assert "shard-00001.h5: image chunk 0 (images 0 to 19)" in result.output
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("cache", "dataset"),
    [
        ("device", "image"),
        ("host", "image"),
        ("device", "target_dual"),
        ("host", "target_dual"),
        ("mmap", "target_dual"),
    ],
)
def test_a_flipped_byte_of_whatever_is_read_whole_is_never_learned_from(
    own_shards: Path, tmp_path: Path, cache: str, dataset: str
) -> None:
    flip(shard_of(own_shards), dataset)

    result = CliRunner().invoke(main, command(own_shards, tmp_path / "run", "--cache", cache))

    assert result.exit_code == 1
    assert f"shard-00001.h5: {dataset} chunk 0 (images 0 to 19): its checksum is not the manifest's" in result.output
    assert [path.read_text() for path in (tmp_path / "run").glob("metrics.jsonl")] in ([], [""])


def test_a_mapped_target_that_is_no_class_never_reaches_the_loss(tmp_path: Path) -> None:
    """Targets of 32 x 32 cells are mapped as images are: what a batch needs is all that is read."""
    config = small_config(
        None, tmp_path, "lab", image_size=64, target=TargetSpec(size=32), images_per_shard=10, limit=20
    )
    manifest = build(config).manifests["lab"]
    assert manifest is not None
    flip(manifest.root / "unlabeled" / "shard-00001.h5", "target_dual")

    with pytest.raises(ShardError, match=r"shard-00001\.h5: image 0: target_dual \d+, expected below 100"):
        list(loader(manifest, "mmap", batch=10).batches(0, 2))


def test_a_label_flipped_into_another_class_is_never_learned_from(tmp_path: Path) -> None:
    manifest = write_synthetic(tmp_path / "lab", {"train": 20}, image_size=16)
    flip(manifest.root / "train" / "shard-00000.h5", "label", 0x01)

    with pytest.raises(ShardError, match=r"shard-00000\.h5: label chunk 0 \(images 0 to 19\)"):
        Labeled(manifest, "train", ("image",), CPU)


def test_a_truncated_shard_is_named(own_shards: Path) -> None:
    path = shard_of(own_shards)
    os.truncate(path, path.stat().st_size // 2)

    with pytest.raises(ShardError, match=r"shard-00001\.h5.*bytes, the manifest says"):
        SplitReader(open_manifest(own_shards), "unlabeled", ("image",))


def test_a_missing_shard_is_named(own_shards: Path) -> None:
    shard_of(own_shards).unlink()

    with pytest.raises(ShardError, match=r"shard-00001\.h5: missing"):
        SplitReader(open_manifest(own_shards), "unlabeled", ("image",))


def test_labels_that_are_not_there_are_named(lab: Manifest) -> None:
    with pytest.raises(FormatError, match=r"split unlabeled has no labels\. Choose a labeled split"):
        SplitReader(lab, "unlabeled", ("label",))


def test_compressed_shards_give_the_same_batches_and_refuse_to_be_mapped(lab: Manifest, tmp_path: Path) -> None:
    shutil.copytree(lab.root, tmp_path / "plain")
    config = small_config(
        None, tmp_path, "lab", image_size=64, target=TargetSpec(size=4), images_per_shard=20, limit=IMAGES,
        compression="zstd",
    )  # fmt: skip
    packed = build(config).manifests["lab"]
    assert packed is not None

    assert content(next(loader(packed, "auto").batches(0, 1))) == content(next(loader(lab).batches(0, 1)))
    with pytest.raises(ConfigError, match="the shards are compressed"):
        loader(packed, "mmap")


FILES = """
import resource, sys
from pathlib import Path
import numpy as np
from sbformat.errors import ShardError
from sbformat.manifest import open_manifest
from sbtrain import reader
from sbtrain.reader import SplitReader

reader.OTHER_FILES = 40
resource.setrlimit(resource.RLIMIT_NOFILE, (32, int(sys.argv[2])))
rows = np.arange(48)
try:
    split = SplitReader(open_manifest(Path(sys.argv[1])), "unlabeled", ("image",))
    out = {"image": np.empty((48, *split.specs["image"].row_shape), np.uint8)}
    split.gather(rows, out)
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], (out["image"] == split.read("image")).all())
except ShardError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("allowed", "said"),
    [
        (4096, r"136 True\n"),
        (40, r".*: cannot be opened .*40 open files are allowed, and a mapped shard takes two: raise the limit, ulimit -n .*\n"),
    ],
    ids=["a low limit is raised", "where it cannot be, the message names it"],
)  # fmt: skip
def test_more_shards_than_files_may_be_open(allowed: int, said: str, tmp_path: Path) -> None:
    build(small_config(None, tmp_path, "rgb", images_per_shard=1, limit=48))
    path = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FILES, str(tmp_path), str(allowed)]

    done = subprocess.run(command, capture_output=True, text=True, check=True, env=path)

    assert re.fullmatch(said, done.stdout)
