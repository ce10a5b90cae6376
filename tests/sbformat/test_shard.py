"""The shard reader gives what was written, plain h5py gives the same, and damage is named."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from sbformat.errors import ShardError
from sbformat.manifest import ShardRecord
from sbformat.schema import CHUNK_IMAGES, DatasetSpec, TargetSpec, attribute_label, class_label, shard_datasets
from sbformat.shard import Shard
from sbprep.writer import ShardWriter, commit

assert hdf5plugin.FILTERS["zstd"] == 32015  # importing it lets h5py read zstd


@dataclass(frozen=True)
class Sample:
    """A shard on disk and what was written to it."""

    path: Path
    record: ShardRecord
    datasets: dict[str, DatasetSpec]
    rows: dict[str, np.ndarray]

    def open(self) -> Shard:
        return Shard(self.path, self.record, self.datasets)

    def flip(self, place: int) -> None:
        content = bytearray(self.path.read_bytes())
        content[place] ^= 0x10
        self.path.write_bytes(content)


def make(
    folder: Path,
    side: int = 8,
    count: int = 150,
    compression: Any = "none",
    label: DatasetSpec | None = None,
    target: TargetSpec | None = None,
) -> Sample:
    """Write a `rescaled_lab` shard, which has every dataset; labels are classes unless given."""
    path = folder / "lab" / "train" / "shard-00000.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets = shard_datasets("rescaled_lab", side, target or TargetSpec(size=3, dual=20), label or class_label())
    rng = np.random.default_rng(side * 1000 + count)
    rows = {}
    for name, spec in datasets.items():
        shape = (count, *spec.row_shape)
        # Runs of equal values, so that zstd has something to pack.
        values = np.repeat(rng.integers(0, 120, (count, spec.row_bytes // spec.dtype.itemsize // 2 + 1)), 2, axis=1)
        rows[name] = values[:, : max(1, int(np.prod(spec.row_shape)))].reshape(shape).astype(spec.dtype)
    with ShardWriter(path, datasets, count, {"colorspace": "rescaled_lab", "split": "train"}, compression) as writer:
        for start in range(0, count, CHUNK_IMAGES):
            writer.append({name: values[start : start + CHUNK_IMAGES] for name, values in rows.items()})
        record = writer.finish()
    commit(path, writer.temporary)
    return Sample(path, record, datasets, rows)


SHAPES = {
    "one": {"count": 1},
    "chunk-less-one": {"count": 63},
    "chunk": {"count": 64},
    "chunk-and-one": {"count": 65},
    "gaps": {"side": 20},  # a chunk of 76,800 bytes: 18.75 pages
    "attributes": {"side": 32, "count": 129, "label": attribute_label(40)},
    "zstd": {"compression": "zstd"},
    "zstd-gaps-attributes": {"side": 20, "count": 65, "compression": "zstd", "label": attribute_label(5)},
}
NAMES = list(shard_datasets("rescaled_lab", 8, TargetSpec(), class_label()))


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> Sample:
    return make(tmp_path, **request.param)


@pytest.fixture
def plain(tmp_path: Path) -> Sample:
    return make(tmp_path)


# --------------------------------------------------------------------------------------------------- reading


def test_arrays_are_what_was_written(sample: Sample) -> None:
    with sample.open() as shard:
        for name, written in sample.rows.items():
            array = shard.array(name)
            assert array.dtype == sample.datasets[name].dtype
            assert array.shape == written.shape
            assert (array == written).all()


def test_arrays_are_read_only_and_aligned(sample: Sample) -> None:
    with sample.open() as shard:
        for name in sample.rows:
            flags = shard.array(name).flags
            assert (flags.writeable, flags.aligned, flags.c_contiguous) == (False, True, True)


def test_an_array_cannot_be_made_writable(plain: Sample) -> None:
    with plain.open() as shard, pytest.raises(ValueError, match="WRITEABLE"):
        shard.array("image").flags.writeable = True


def test_any_interval_of_rows_is_what_was_written(sample: Sample) -> None:
    count = sample.record.count
    borders = sorted({place for place in (0, 1, 5, 63, 64, 65, 127, 128, 129, count - 1, count) if 0 <= place <= count})
    with sample.open() as shard:
        for name, written in sample.rows.items():
            for start in borders:
                for stop in (place for place in borders if place >= start):
                    assert (shard.read(name, start, stop) == written[start:stop]).all()
                    assert len(shard.read(name, start, stop)) == stop - start


def test_rows_are_read_into_a_given_array(sample: Sample) -> None:
    stop = sample.record.count
    with sample.open() as shard:
        for name, written in sample.rows.items():
            out = np.zeros_like(written)
            assert shard.read(name, 0, stop, out) is out
            assert (out == written).all()


def test_rows_are_read_into_part_of_an_array(plain: Sample) -> None:
    out = np.full((20, 3, 8, 8), 255, np.uint8)
    with plain.open() as shard:
        shard.read("image", 60, 70, out[5:15])

    assert (out[5:15] == plain.rows["image"][60:70]).all()
    assert (out[:5] == 255).all()
    assert (out[15:] == 255).all()


@pytest.mark.parametrize(
    "out",
    [np.empty((9, 3, 8, 8), np.uint8), np.empty((10, 3, 8, 8), np.int8), np.empty((10, 3, 8, 16), np.uint8)[..., ::2]],
    ids=["shape", "dtype", "layout"],
)
def test_an_array_that_does_not_fit_is_refused(plain: Sample, out: np.ndarray) -> None:
    with plain.open() as shard, pytest.raises(ValueError, match=r"expected C-contiguous uint8 \(10, 3, 8, 8\)"):
        shard.read("image", 0, 10, out)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (5, 4), (0, 151), (151, 151)])
def test_rows_outside_of_the_shard_are_refused(plain: Sample, start: int, stop: int) -> None:
    with plain.open() as shard, pytest.raises(IndexError, match=rf"rows \[{start}, {stop}\) of 150"):
        shard.read("image", start, stop)


def test_the_length_of_a_shard_is_its_images(sample: Sample) -> None:
    with sample.open() as shard:
        assert len(shard) == sample.record.count


def test_plain_h5py_gives_the_same_arrays(sample: Sample) -> None:
    with h5py.File(sample.path) as file:
        assert set(file) == set(sample.rows)
        for name, written in sample.rows.items():
            assert file[name].dtype == written.dtype
            assert (file[name][:] == written).all()


def test_the_root_of_the_file_says_what_it_is(plain: Sample) -> None:
    with h5py.File(plain.path) as file:
        found = {name: value.item() if hasattr(value, "item") else value for name, value in file.attrs.items()}

    assert found == {"format": "splitbrain-shards", "schema": 1, "colorspace": "rescaled_lab", "split": "train"}


def test_many_threads_read_one_shard(sample: Sample) -> None:
    count = sample.record.count
    with sample.open() as shard, ThreadPoolExecutor(8) as pool:
        starts = [start % count for start in range(0, 400, 7)]
        found = list(pool.map(lambda start: shard.read("image", start, min(start + 9, count)), starts))

    for start, rows in zip(starts, found, strict=True):
        assert (rows == sample.rows["image"][start : start + 9]).all()


# ----------------------------------------------------------------------------------------------- layout on disk


def test_uncompressed_chunks_lie_at_one_stride_of_whole_pages(tmp_path: Path) -> None:
    sample = make(tmp_path, side=20)
    table = sample.record.chunks("image")

    assert (table.rows, table.offset % 4096, table.stride, len(table)) == (64, 0, 77_824, 3)
    assert all(sample.record.chunks(name).rows == 150 for name in NAMES if name != "image")


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_chunks_of_a_page_or_more_begin_at_a_page(tmp_path: Path, compression: str) -> None:
    sample = make(tmp_path, side=20, count=700, compression=compression, label=attribute_label(40))
    large = 0
    for name, spec in sample.datasets.items():
        table = sample.record.chunks(name)
        for offset, size in (table.extent(chunk, spec.row_bytes) for chunk in range(len(table))):
            large += size >= 4096
            assert offset % 4096 == 0 or size < 4096

    assert large > 11  # the chunks of images and some others


def test_the_last_chunk_of_images_is_padded_with_zeros(plain: Sample) -> None:
    offset, size = plain.record.chunks("image").extent(2, 192)
    chunk = plain.path.read_bytes()[offset : offset + size]

    assert chunk[: 22 * 192] == plain.rows["image"][128:].tobytes()
    assert not any(chunk[22 * 192 :])


def test_chunks_of_whole_pages_are_read_in_place(plain: Sample) -> None:
    """Nothing is copied: the array is a view of the file, so a change of the file shows."""
    with plain.open() as shard:
        image = shard.array("image")
        plain.flip(plain.record.chunks("image").offset)

        assert image[0, 0, 0, 0] == plain.rows["image"][0, 0, 0, 0] ^ 0x10


def test_the_same_rows_give_the_same_file(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a"), make(tmp_path / "b")

    assert first.record == second.record
    assert first.path.read_bytes() == second.path.read_bytes()


# ------------------------------------------------------------------------------------------------------- damage


def test_a_sound_shard_has_no_damage(sample: Sample) -> None:
    with sample.open() as shard:
        assert shard.damage() == []


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("end", ["first", "last"])
def test_a_flipped_bit_is_found_in_its_dataset_and_chunk(tmp_path: Path, compression: str, name: str, end: str) -> None:
    sample = make(tmp_path, compression=compression)
    table, row_bytes = sample.record.chunks(name), sample.datasets[name].row_bytes
    for chunk in range(len(table)):
        offset, size = table.extent(chunk, row_bytes)
        place = offset if end == "first" else offset + size - 1
        sample.flip(place)

        with sample.open() as shard:
            first, last = chunk * table.rows, min((chunk + 1) * table.rows, 150) - 1
            assert shard.damage() == [f"{name} chunk {chunk} (images {first} to {last})"]
        sample.flip(place)


def test_a_file_of_many_blocks_is_checked_to_its_last_byte(tmp_path: Path) -> None:
    sample = make(tmp_path, side=96, count=200)
    assert sample.record.bytes > 4 << 20
    with sample.open() as shard:
        assert shard.damage() == []
        sample.flip(sample.record.bytes - 1)
        assert len(shard.damage()) == 1


def test_damage_in_several_chunks_is_listed_chunk_by_chunk(plain: Sample) -> None:
    plain.flip(plain.record.chunks("image").extent(2, 192)[0])
    plain.flip(plain.record.chunks("image").extent(0, 192)[0])
    plain.flip(plain.record.chunks("label").offset)

    with plain.open() as shard:
        assert shard.damage() == [
            "image chunk 0 (images 0 to 63)",
            "image chunk 2 (images 128 to 149)",
            "label chunk 0 (images 0 to 149)",
        ]


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_flipped_bit_outside_of_every_chunk_is_the_structure(tmp_path: Path, compression: str) -> None:
    sample = make(tmp_path, side=20, compression=compression)
    inside = np.zeros(sample.record.bytes, bool)
    for name, spec in sample.datasets.items():
        table = sample.record.chunks(name)
        for chunk in range(len(table)):
            offset, size = table.extent(chunk, spec.row_bytes)
            inside[offset : offset + size] = True
    outside = np.flatnonzero(~inside)

    for place in outside[:: len(outside) // 40].tolist():
        sample.flip(place)
        with sample.open() as shard:
            assert shard.damage() == ["HDF5 structure (outside every chunk; the images themselves are sound)"]
        sample.flip(place)


def test_a_damaged_compressed_chunk_is_never_given_as_images(tmp_path: Path) -> None:
    sample = make(tmp_path, compression="zstd")
    offset, size = sample.record.chunks("image").extent(1, 192)
    for place in range(offset, offset + size, 127):
        sample.flip(place)
        with sample.open() as shard:
            assert (shard.read("image", 0, 64) == sample.rows["image"][:64]).all()
            with pytest.raises(ShardError, match=r"shard-00000\.h5: image chunk 1 is damaged\. Rebuild it: sbprep"):
                shard.read("image", 60, 70)
        sample.flip(place)


# ------------------------------------------------------------------------------------------------------- errors


def repair(sample: Sample) -> str:
    return f"sbprep verify --repair {sample.path.parents[1]}"


def test_a_missing_shard_is_named_with_its_remedy(plain: Sample) -> None:
    plain.path.unlink()

    with pytest.raises(ShardError) as error:
        plain.open()
    assert str(error.value) == f"{plain.path}: missing, the manifest lists it. Rebuild it: {repair(plain)}"


@pytest.mark.parametrize("change", [-1, +1])
def test_a_shard_of_another_size_is_named_with_both_sizes_and_its_remedy(plain: Sample, change: int) -> None:
    size = plain.record.bytes
    os.truncate(plain.path, size + change)

    with pytest.raises(ShardError) as error:
        plain.open()
    expected = f"{plain.path}: {size + change:,} bytes, the manifest says {size:,}. Rebuild it: {repair(plain)}"
    assert str(error.value) == expected


def test_an_empty_shard_is_of_another_size(plain: Sample) -> None:
    plain.path.write_bytes(b"")

    with pytest.raises(ShardError, match=r": 0 bytes, the manifest says"):
        plain.open()


def test_a_folder_in_place_of_a_shard_is_an_error(plain: Sample) -> None:
    plain.path.unlink()
    plain.path.mkdir()

    with pytest.raises(ShardError, match=r"shard-00000\.h5: "):
        plain.open()


@pytest.mark.parametrize("reading", ["read", "damage"])
def test_a_shard_cut_while_it_is_open_is_an_error(plain: Sample, reading: str) -> None:
    with plain.open() as shard:
        os.truncate(plain.path, 10_000)

        with pytest.raises(ShardError, match=r"ends at byte 10,000\. Rebuild it: sbprep verify --repair"):
            shard.read("image", 0, 150) if reading == "read" else shard.damage()


def test_a_shard_cut_before_it_is_mapped_is_an_error(plain: Sample) -> None:
    with plain.open() as shard:
        os.truncate(plain.path, 10_000)

        with pytest.raises(ShardError, match="cannot be mapped into memory"):
            shard.array("image")


def test_a_shard_of_no_images_cannot_be_opened(plain: Sample) -> None:
    with pytest.raises(ValueError, match="pass over records with count 0"):
        Shard(plain.path, replace(plain.record, count=0, datasets={}), plain.datasets)


# ------------------------------------------------------------------------------------------------------ closing


def test_arrays_outlive_their_shard(sample: Sample) -> None:
    with sample.open() as shard:
        arrays = {name: shard.array(name) for name in sample.rows}
    del shard

    for name, written in sample.rows.items():
        assert (arrays[name] == written).all()


def test_closing_twice_does_nothing(plain: Sample) -> None:
    shard = plain.open()
    shard.close()
    shard.close()


@pytest.mark.parametrize("use", ["array", "read", "damage"])
def test_a_closed_shard_gives_nothing(sample: Sample, use: str) -> None:
    shard = sample.open()
    shard.close()
    other = os.open(os.devnull, os.O_RDONLY)  # takes the number that the shard's file had
    try:
        with pytest.raises(ValueError, match="this shard is closed"):
            {"array": lambda: shard.array("image"), "read": lambda: shard.read("image", 0, 1), "damage": shard.damage}[
                use
            ]()
    finally:
        os.close(other)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_200_shards_leave_no_file_open(sample: Sample) -> None:
    before = open_files()
    for _ in range(200):
        with sample.open() as shard:
            shard.array("image")[:1].sum()
            shard.read("label", 0, 1)

    assert open_files() == before


def test_shards_that_cannot_be_opened_leave_no_file_open(plain: Sample) -> None:
    before = open_files()
    os.truncate(plain.path, 100)
    for _ in range(200):
        with pytest.raises(ShardError):
            plain.open()

    assert open_files() == before
