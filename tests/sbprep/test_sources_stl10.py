import os
import pickle

import numpy as np
import pytest

from sbformat.errors import SourceError
from sbprep.sources import stl10
from sbprep.sources.base import Rejected

OFFICIAL = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def make_images(count, seed=0):
    """Random (count, 96, 96, 3): any exchange of row, column or channel changes it."""
    return np.random.default_rng(seed).integers(0, 256, (count, 96, 96, 3), np.uint8)


def write_x(path, images):
    """Write plane by plane, each column by column, straight from the definition."""
    path.write_bytes(b"".join(image[:, col, c].tobytes() for image in images for c in range(3) for col in range(96)))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "stl10_binary"
    root.mkdir()
    write_x(root / "train_X.bin", make_images(4, seed=1))
    write_x(root / "test_X.bin", make_images(3, seed=2))
    write_x(root / "unlabeled_X.bin", make_images(5, seed=3))
    (root / "train_y.bin").write_bytes(bytes([1, 10, 3, 3]))
    (root / "test_y.bin").write_bytes(bytes([2, 9, 10]))
    return root


def read_all(split, rows=None):
    rows = np.arange(len(split.listing)) if rows is None else np.array(rows)
    return list(split.source.read(split.listing.take(rows)))


@pytest.mark.parametrize(("name", "count", "seed"), [("train", 4, 1), ("test", 3, 2), ("unlabeled", 5, 3)])
def test_every_pixel_of_a_split_is_exact(folder, name, count, seed):
    items = read_all(stl10.splits(folder)[name])

    np.testing.assert_array_equal(np.stack(items), make_images(count, seed))


def test_byte_of_a_pixel_is_plane_then_column_then_row(folder):
    image = np.zeros((96, 96, 3), np.uint8)
    image[7, 20, 2] = 255
    raw = bytearray(27_648)
    raw[2 * 9216 + 20 * 96 + 7] = 255
    (folder / "unlabeled_X.bin").write_bytes(bytes(raw))

    np.testing.assert_array_equal(read_all(stl10.splits(folder)["unlabeled"])[0], image)


def test_images_are_contiguous_writable_uint8(folder):
    image = read_all(stl10.splits(folder)["train"])[0]

    assert image.shape == (96, 96, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable


def test_items_come_in_the_order_of_the_part(folder):
    items = read_all(stl10.splits(folder)["unlabeled"], [4, 0, 2, 0])

    np.testing.assert_array_equal(np.stack(items), make_images(5, seed=3)[[4, 0, 2, 0]])


def test_labels_count_from_zero(folder):
    splits = stl10.splits(folder)

    assert splits["train"].listing.labels.tolist() == [0, 9, 2, 2]
    assert splits["train"].listing.labels.dtype == np.int32
    assert splits["test"].listing.labels.tolist() == [1, 8, 9]
    assert splits["unlabeled"].listing.labels is None
    assert splits["unlabeled"].label_names is None


def test_listing_names_sizes_and_stamps(folder):
    listing = stl10.splits(folder)["test"].listing

    assert listing.names == ["test_X.bin#0", "test_X.bin#1", "test_X.bin#2"]
    assert listing.sizes.tolist() == [27_648] * 3
    assert listing.stamps.tolist() == [(folder / "test_X.bin").stat().st_mtime_ns] * 3
    assert {array.dtype for array in (listing.sizes, listing.stamps, listing.keys)} == {np.dtype(np.int64)}


def test_splits_come_in_build_order(folder):
    assert list(stl10.splits(folder)) == ["unlabeled", "train", "test"]


def test_only_the_files_present_make_splits(folder):
    for name in ("train_X.bin", "train_y.bin", "unlabeled_X.bin"):
        (folder / name).unlink()

    assert list(stl10.splits(folder)) == ["test"]


def test_class_names_default_to_the_official_order(folder):
    assert stl10.splits(folder)["train"].label_names == OFFICIAL


def test_class_names_are_read_from_the_file(folder):
    (folder / "class_names.txt").write_text("\n".join("abcdefghij") + "\n")

    assert stl10.splits(folder)["test"].label_names == tuple("abcdefghij")


def test_parent_folder_gives_the_same_splits(folder):
    assert stl10.matches(folder.parent)
    assert stl10.splits(folder.parent)["train"].source == stl10.splits(folder)["train"].source


def test_source_survives_pickling(folder):
    split = stl10.splits(folder)["train"]
    copy = pickle.loads(pickle.dumps(split.source))

    assert copy == split.source
    np.testing.assert_array_equal(next(iter(copy.read(split.listing))), make_images(4, seed=1)[0])


def test_source_is_small_and_not_sequential(folder):
    source = stl10.splits(folder)["unlabeled"].source

    assert source.sequential is False
    assert len(pickle.dumps(source)) < 1000


def test_matches_only_the_layout(folder, tmp_path):
    assert stl10.matches(folder)
    assert not stl10.matches(folder / "train_X.bin")
    assert not stl10.matches(tmp_path / "nothing")
    assert not stl10.matches(tmp_path / ("x" * 5000))


def test_partial_image_is_an_error_with_both_sizes(folder):
    with (folder / "train_X.bin").open("ab") as file:
        file.write(b"0")

    with pytest.raises(SourceError, match=r"train_X.bin: 110593 bytes, expected .* 27648 bytes each"):
        stl10.splits(folder)


def test_empty_image_file_is_an_error(folder):
    (folder / "unlabeled_X.bin").write_bytes(b"")

    with pytest.raises(SourceError, match=r"unlabeled_X.bin: 0 bytes"):
        stl10.splits(folder)


def test_label_count_must_equal_image_count(folder):
    (folder / "test_y.bin").write_bytes(bytes([1, 2]))

    with pytest.raises(SourceError, match=r"test_y.bin: 2 labels, expected 3"):
        stl10.splits(folder)


@pytest.mark.parametrize("label", [0, 11, 255])
def test_label_outside_1_to_10_names_its_row(folder, label):
    (folder / "train_y.bin").write_bytes(bytes([1, 2, label, 4]))

    with pytest.raises(SourceError, match=rf"train_y.bin: label {label} in row 2, expected 1 to 10"):
        stl10.splits(folder)


@pytest.mark.parametrize("name", ["train", "test"])
def test_labeled_split_without_labels_is_an_error(folder, name):
    (folder / f"{name}_y.bin").unlink()

    with pytest.raises(SourceError, match=rf"{name}_y.bin: not there"):
        stl10.splits(folder)


def test_wrong_number_of_class_names_is_an_error(folder):
    (folder / "class_names.txt").write_text("cat dog")

    with pytest.raises(SourceError, match=r"class_names.txt: 2 names, expected 10"):
        stl10.splits(folder)


def test_other_folder_is_an_error_that_says_what_to_give(tmp_path):
    with pytest.raises(SourceError, match=r"no train_X.bin.*unpack stl10_binary.tar.gz"):
        stl10.splits(tmp_path)


def test_vanished_file_rejects_each_row(folder):
    split = stl10.splits(folder)["test"]
    (folder / "test_X.bin").unlink()

    assert [item.code for item in read_all(split)] == ["vanished"] * 3


def test_unreadable_file_rejects_each_row(folder):
    split = stl10.splits(folder)["test"]
    (folder / "test_X.bin").unlink()
    (folder / "test_X.bin").mkdir()

    assert [item.code for item in read_all(split)] == ["unreadable"] * 3


def test_file_written_anew_is_rejected_as_changed(folder):
    split = stl10.splits(folder)["test"]
    os.utime(folder / "test_X.bin", ns=(0, 1))

    items = read_all(split)

    assert all(isinstance(item, Rejected) for item in items)
    assert {item.code for item in items} == {"changed"}


def test_truncated_file_with_its_old_time_rejects_the_lost_rows(folder):
    split = stl10.splits(folder)["test"]
    path = folder / "test_X.bin"
    stamp = path.stat().st_mtime_ns
    os.truncate(path, 27_648 + 100)
    os.utime(path, ns=(stamp, stamp))

    items = read_all(split)

    np.testing.assert_array_equal(items[0], make_images(3, seed=2)[0])
    assert [item.code for item in items[1:]] == ["changed", "changed"]


def test_reading_leaves_no_file_open(folder):
    split = stl10.splits(folder)["train"]
    before = len(list(os.scandir("/proc/self/fd")))
    read_all(split)
    items = split.source.read(split.listing)
    next(items)
    items.close()

    assert len(list(os.scandir("/proc/self/fd"))) == before
