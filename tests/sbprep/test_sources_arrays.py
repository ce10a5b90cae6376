import os
import pickle

import h5py
import numpy as np
import pytest

from sbformat.errors import SourceError
from sbformat.schema import FORMAT_NAME
from sbprep.sources import arrays, hdf5, spill
from sbprep.sources.records import RecordFiles

COUNT, HEIGHT, WIDTH = 7, 5, 8


def make_images(count=COUNT, seed=0):
    """Random (count, 5, 8, 3): any exchange of row, column or channel changes it."""
    return np.random.default_rng(seed).integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8)


def write_npy(path, images):
    np.save(path, images)


def write_npz(path, images):
    np.savez(path, images=images)


def write_packed_npz(path, images):
    np.savez_compressed(path, images=images)


def write_hdf5(path, images):
    with h5py.File(path, "w") as file:
        file["images"] = images


def write_hdf5_with_user_block(path, images):
    with h5py.File(path, "w", userblock_size=512, libver="latest") as file:
        file["before"] = np.arange(1000)
        file["images"] = images


def write_chunked_hdf5(path, images):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, chunks=(3, *images.shape[1:]))


def write_packed_hdf5(path, images):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, chunks=True, compression="gzip", shuffle=True)


def write_growing_hdf5(path, images):
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            "images", shape=(0, *images.shape[1:]), maxshape=(None, *images.shape[1:]), dtype="u1"
        )
        dataset.resize(len(images), axis=0)
        dataset[:] = images


def write_compact_hdf5(path, images):
    with h5py.File(path, "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(images.shape)
        dataset = h5py.h5d.create(file.id, b"images", h5py.h5t.STD_U8LE, space, properties)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, images)


PLAIN = {
    "npy": (write_npy, "a.npy"),
    "npz": (write_npz, "a.npz"),
    "hdf5": (write_hdf5, "a.h5"),
    "user block": (write_hdf5_with_user_block, "a.hdf5"),
}
FORMATS = PLAIN | {
    "packed npz": (write_packed_npz, "a.npz"),
    "chunked": (write_chunked_hdf5, "a.h5"),
    "gzip": (write_packed_hdf5, "a.h5"),
    "growing": (write_growing_hdf5, "a.h5"),
    "compact": (write_compact_hdf5, "a.h5"),
}
any_format = pytest.mark.parametrize("form", FORMATS)


def write(folder, form, images):
    writer, name = FORMATS[form]
    writer(folder / name, images)
    return folder / name


def write_keys(folder, suffix, **items):
    """Write named arrays as .npz or .h5."""
    path = folder / f"keyed{suffix}"
    if suffix == ".npz":
        np.savez(path, **items)
    else:
        with h5py.File(path, "w") as file:
            for name, item in items.items():
                file[name] = item
    return path


any_keyed = pytest.mark.parametrize("suffix", [".npz", ".h5"])


def only(splits):
    (split,) = splits.values()
    return split


def read_all(split, rows=None):
    rows = np.arange(len(split.listing)) if rows is None else np.array(rows)
    return list(split.source.read(split.listing.take(rows)))


@any_format
def test_pixels_are_exact(tmp_path, form):
    path = write(tmp_path, form, make_images())

    np.testing.assert_array_equal(np.stack(read_all(only(arrays.splits(path)))), make_images())


@any_format
def test_items_come_in_the_order_of_the_part(tmp_path, form):
    split = only(arrays.splits(write(tmp_path, form, make_images())))
    rows = [6, 0, 3, 0, 5]

    np.testing.assert_array_equal(np.stack(read_all(split, rows)), make_images()[rows])


@any_format
def test_images_are_contiguous_writable_uint8_of_their_own(tmp_path, form):
    split = only(arrays.splits(write(tmp_path, form, make_images())))
    image = read_all(split)[2]
    image[:] = 0

    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(read_all(split)[2], make_images()[2])


@any_format
def test_planar_images_are_turned(tmp_path, form):
    path = write(tmp_path, form, np.ascontiguousarray(make_images().transpose(0, 3, 1, 2)))

    np.testing.assert_array_equal(np.stack(read_all(only(arrays.splits(path)))), make_images())


@any_format
def test_gray_images_are_repeated(tmp_path, form):
    gray = make_images()[..., 0]
    items = read_all(only(arrays.splits(write(tmp_path, form, np.ascontiguousarray(gray)))))

    np.testing.assert_array_equal(np.stack(items), np.stack([gray] * 3, axis=-1))
    assert all(item.flags.c_contiguous for item in items)


@pytest.mark.parametrize("axis", [1, 3])
def test_gray_images_may_have_a_channel_axis(tmp_path, axis):
    gray = make_images()[..., 0]
    items = read_all(only(arrays.splits(write(tmp_path, "npy", np.expand_dims(gray, axis)))))

    np.testing.assert_array_equal(np.stack(items), np.stack([gray] * 3, axis=-1))


def test_three_rows_of_color_pixels_are_not_taken_for_planes(tmp_path):
    images = np.ascontiguousarray(make_images()[:, :3])

    np.testing.assert_array_equal(np.stack(read_all(only(arrays.splits(write(tmp_path, "npy", images))))), images)


@any_format
def test_source_survives_pickling(tmp_path, form):
    split = only(arrays.splits(write(tmp_path, form, make_images())))
    copy = pickle.loads(pickle.dumps(split.source))

    assert copy == split.source
    assert len(pickle.dumps(split.source)) < 1000
    np.testing.assert_array_equal(next(iter(copy.read(split.listing))), make_images()[0])


@pytest.mark.parametrize("form", PLAIN)
def test_plain_rows_are_read_at_their_offsets(tmp_path, form):
    split = only(arrays.splits(write(tmp_path, form, make_images())))

    assert isinstance(split.source, RecordFiles)


@any_format
def test_names_sizes_and_stamps(tmp_path, form):
    path = write(tmp_path, form, make_images(3))
    listing = only(arrays.splits(path)).listing

    assert listing.names == [f"{path.name}#0", f"{path.name}#1", f"{path.name}#2"]
    assert listing.sizes.tolist() == [HEIGHT * WIDTH * 3] * 3
    assert listing.stamps.tolist() == [path.stat().st_mtime_ns] * 3


@any_format
def test_images_alone_are_unlabeled(tmp_path, form):
    splits = arrays.splits(write(tmp_path, form, make_images()))

    assert list(splits) == ["unlabeled"]
    assert splits["unlabeled"].listing.labels is None
    assert splits["unlabeled"].label_names is None


@pytest.mark.parametrize(("form", "kind"), [("npy", "npy"), ("packed npz", "npz"), ("gzip", "hdf5")])
def test_kind_is_the_format(tmp_path, form, kind):
    assert only(arrays.splits(write(tmp_path, form, make_images()))).kind == kind


@any_keyed
@pytest.mark.parametrize("image_key", ["images", "x", "data", "X"])
@pytest.mark.parametrize("label_key", ["labels", "y"])
def test_images_with_labels_are_train(tmp_path, suffix, image_key, label_key):
    labels = np.array([2, 0, 1, 3, 2, 0, 0])
    splits = arrays.splits(write_keys(tmp_path, suffix, **{image_key: make_images(), label_key: labels}))

    assert list(splits) == ["train"]
    assert splits["train"].listing.labels.tolist() == labels.tolist()
    assert splits["train"].listing.labels.dtype == np.int32
    assert splits["train"].label_names == ("0", "1", "2", "3")


@any_keyed
@pytest.mark.parametrize("name", ["x_{}", "{}_x", "images_{}", "{}_images", "data_{}", "{}_data"])
@pytest.mark.parametrize("label", ["y_{}", "{}_labels"])
def test_arrays_named_by_split_make_the_splits(tmp_path, suffix, name, label):
    items = {"README": np.zeros(3)}
    for seed, split in enumerate(("test", "val", "train")):
        items |= {name.format(split): make_images(3, seed), label.format(split): np.array([seed, 0, 1], np.uint8)}
    items[name.format("unlabeled")] = make_images(4, 9)

    splits = arrays.splits(write_keys(tmp_path, suffix, **items))

    assert list(splits) == ["unlabeled", "train", "val", "test"]
    for seed, split in enumerate(("test", "val", "train")):
        np.testing.assert_array_equal(np.stack(read_all(splits[split])), make_images(3, seed))
        assert splits[split].listing.labels.tolist() == [seed, 0, 1]
    np.testing.assert_array_equal(np.stack(read_all(splits["unlabeled"])), make_images(4, 9))


def test_splits_of_a_file_share_the_class_names(tmp_path):
    items = {"x_train": make_images(2), "y_train": [0, 4], "x_test": make_images(2), "y_test": [1, 2]}
    splits = arrays.splits(write_keys(tmp_path, ".npz", **items))

    assert splits["train"].label_names == splits["test"].label_names == ("0", "1", "2", "3", "4")


def test_validation_is_val(tmp_path):
    path = write_keys(tmp_path, ".npz", x_valid=make_images(2), y_valid=[0, 1])

    assert list(arrays.splits(path)) == ["val"]


def test_labels_of_one_column_are_classes(tmp_path):
    path = write_keys(tmp_path, ".npz", images=make_images(3), labels=np.array([[2], [0], [1]], np.uint8))

    assert only(arrays.splits(path)).listing.labels.tolist() == [2, 0, 1]


@any_keyed
def test_labels_of_many_columns_are_attributes(tmp_path, suffix):
    bits = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    split = only(arrays.splits(write_keys(tmp_path, suffix, images=make_images(2), labels=bits)))

    assert split.listing.labels.tolist() == bits.tolist()
    assert split.listing.labels.dtype == np.uint8
    assert split.label_names == ("attribute_0", "attribute_1", "attribute_2")


@any_keyed
def test_only_uint8_stack_needs_no_name(tmp_path, suffix):
    split = only(arrays.splits(write_keys(tmp_path, suffix, pictures=make_images(), depth=np.zeros((7, 5, 8, 1)))))

    np.testing.assert_array_equal(np.stack(read_all(split)), make_images())


def test_large_parts_are_gathered_window_by_window(tmp_path, monkeypatch):
    split = only(arrays.splits(write(tmp_path, "gzip", make_images())))
    monkeypatch.setattr(hdf5, "GATHER_BYTES", 2 * HEIGHT * WIDTH * 3)
    rows = [6, 0, 3, 0, 5]

    np.testing.assert_array_equal(np.stack(read_all(split, rows)), make_images()[rows])


def test_a_compressed_npz_is_read_in_passes(tmp_path):
    assert only(arrays.splits(write(tmp_path, "packed npz", make_images()))).source.sequential is True


def test_rows_of_a_compressed_npz_that_do_not_fit_in_memory_lie_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(spill, "IN_MEMORY", 2 * HEIGHT * WIDTH * 3)
    split = only(arrays.splits(write(tmp_path, "packed npz", make_images())))
    rows = [6, 0, 3, 0, 5]

    np.testing.assert_array_equal(np.stack(read_all(split, rows)), make_images()[rows])


def test_matches_files_by_suffix(tmp_path):
    for name in ("a.npy", "b.NPZ", "c.h5", "d.hdf5"):
        (tmp_path / name).write_bytes(b"anything")
        assert arrays.matches(tmp_path / name)
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "e.zip").write_bytes(b"anything")

    assert not arrays.matches(tmp_path / "folder.npy")
    assert not arrays.matches(tmp_path / "e.zip")
    assert not arrays.matches(tmp_path / "nothing.npy")
    assert not arrays.matches(tmp_path / ("x" * 5000 + ".npy"))


def test_other_suffix_is_an_error(tmp_path):
    with pytest.raises(SourceError, match=r"expected a file named .npy, .npz, .h5, .hdf5"):
        arrays.splits(tmp_path / "a.mat")


@pytest.mark.parametrize("form", ["npy", "npz", "packed npz", "hdf5", "gzip"])
@pytest.mark.parametrize("dtype", ["float32", "int16", "bool"])
def test_other_dtype_is_named_with_its_shape_and_the_remedy(tmp_path, form, dtype):
    path = write(tmp_path, form, make_images().astype(dtype))

    with pytest.raises(
        SourceError, match=rf"{dtype} \(7, 5, 8, 3\), expected uint8; scale to 0..255.*astype\(np.uint8\)"
    ):
        arrays.splits(path)


@pytest.mark.parametrize("shape", [(6,), (5, 8), (5, 8, 3), (7, 5, 8, 4), (7, 2, 8, 5), (7, 1, 5, 8, 3)])
def test_other_shape_is_an_error(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))

    with pytest.raises(SourceError, match=r"a.npy: uint8 \(.*\), expected \(N, H, W, 3\), \(N, 3, H, W\) or gray"):
        arrays.splits(tmp_path / "a.npy")


@pytest.mark.parametrize("shape", [(), (0, 5, 8, 3), (7, 0, 8, 3)])
def test_array_without_pixels_is_an_error(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))

    with pytest.raises(SourceError, match="no images"):
        arrays.splits(tmp_path / "a.npy")


def test_fortran_order_is_an_error_with_the_remedy(tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray(make_images()))

    with pytest.raises(SourceError, match=r"in Fortran order, expected C order; save np.ascontiguousarray"):
        arrays.splits(tmp_path / "a.npy")


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_object_array_is_refused_and_does_not_run(tmp_path, suffix):
    images = np.array([Hostile(tmp_path / "ran"), None], dtype=object)
    path = tmp_path / f"a{suffix}"
    np.save(path, images) if suffix == ".npy" else np.savez(path, images=images)

    with pytest.raises(SourceError, match=r"object \(2,\): objects are pickles, which are not loaded"):
        arrays.splits(path)
    assert not (tmp_path / "ran").exists()


def test_object_labels_are_refused_and_do_not_run(tmp_path):
    labels = np.array([Hostile(tmp_path / "ran"), None], dtype=object)
    path = write_keys(tmp_path, ".npz", images=make_images(2), labels=labels)

    with pytest.raises(SourceError, match=r"keyed.npz\[labels\]: object \(2,\), expected integers"):
        arrays.splits(path)
    assert not (tmp_path / "ran").exists()


def test_bare_pickle_named_npy_is_refused_and_does_not_run(tmp_path):
    (tmp_path / "a.npy").write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))

    with pytest.raises(SourceError, match=r"a.npy: cannot be read \(ValueError: .*magic"):
        arrays.splits(tmp_path / "a.npy")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5"])
@pytest.mark.parametrize("content", [b"", b"not what the name says", b"\x93NUMPY\x01\x00\x10\x00{'descr': '|u1'}"])
def test_broken_file_is_an_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(SourceError, match=rf"{name}: cannot be read .*; check it or write it again"):
        arrays.splits(tmp_path / name)


@pytest.mark.parametrize("form", ["npy", "hdf5"])
def test_truncated_file_is_an_error(tmp_path, form):
    path = write(tmp_path, form, make_images(100))
    os.truncate(path, path.stat().st_size - 5000)

    with pytest.raises(SourceError, match=r"truncated|7000 bytes, expected 12000; it was cut short"):
        arrays.splits(path)


def test_several_nameless_stacks_are_listed(tmp_path):
    path = write_keys(tmp_path, ".npz", left=make_images(), right=make_images())

    with pytest.raises(SourceError, match=r"holds left uint8 \(7, 5, 8, 3\), right uint8 .*; expected one uint8 array"):
        arrays.splits(path)


def test_file_without_arrays_is_an_error(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("images")

    with pytest.raises(SourceError, match="holds no arrays"):
        arrays.splits(tmp_path / "a.h5")


def test_two_names_for_the_same_are_an_error(tmp_path):
    path = write_keys(tmp_path, ".npz", x_train=make_images(), train_images=make_images())

    with pytest.raises(SourceError, match="x_train and train_images mean the same"):
        arrays.splits(path)


def test_images_beside_images_of_a_split_are_an_error(tmp_path):
    path = write_keys(tmp_path, ".npz", x_train=make_images(), y_train=np.zeros(7, int), data=make_images())

    with pytest.raises(SourceError, match="data beside images named by split"):
        arrays.splits(path)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_split_without_labels_is_an_error(tmp_path, split):
    path = write_keys(tmp_path, ".npz", **{f"x_{split}": make_images()})

    with pytest.raises(SourceError, match=rf"has no labels; add y_{split} or {split}_labels"):
        arrays.splits(path)


@any_keyed
def test_label_count_must_equal_image_count(tmp_path, suffix):
    path = write_keys(tmp_path, suffix, images=make_images(), labels=np.zeros(6, int))

    with pytest.raises(SourceError, match=r"\[labels\]: int64 \(6,\), expected 7 labels"):
        arrays.splits(path)


@pytest.mark.parametrize("label", [-1, 1_000_000, 2**40])
def test_label_out_of_range_names_its_row(tmp_path, label):
    path = write_keys(tmp_path, ".npz", images=make_images(3), labels=np.array([0, 1, label]))

    with pytest.raises(SourceError, match=rf"label {label} in row 2, expected 0 to 999999"):
        arrays.splits(path)


def test_attribute_other_than_0_and_1_names_its_row(tmp_path):
    path = write_keys(tmp_path, ".npz", images=make_images(2), labels=np.array([[0, 1], [0, 2]], np.uint8))

    with pytest.raises(SourceError, match="row 1 is not of zeros and ones"):
        arrays.splits(path)


@any_keyed
def test_float_labels_are_an_error(tmp_path, suffix):
    path = write_keys(tmp_path, suffix, images=make_images(2), labels=np.zeros(2))

    with pytest.raises(SourceError, match=r"float64 \(2,\), expected integers .*astype\(np.int32\)"):
        arrays.splits(path)


def test_huge_images_are_an_error_with_the_remedy(tmp_path):
    images = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (1, 4096, 4097, 1))
    images.flush()

    with pytest.raises(
        SourceError, match=r"50343936 bytes an image in RGB, at most 50331648 .*save the images as files"
    ):
        arrays.splits(tmp_path / "a.npy")


def test_huge_chunks_are_an_error_with_the_remedy(tmp_path, monkeypatch):
    path = write(tmp_path, "chunked", make_images())
    monkeypatch.setattr(hdf5, "MAX_CHUNK_BYTES", 300)

    with pytest.raises(SourceError, match=r"chunks of 360 bytes, at most 300 .*chunks of fewer images"):
        arrays.splits(path)


def test_a_shard_of_a_build_is_refused(tmp_path):
    path = write(tmp_path, "hdf5", make_images())
    with h5py.File(path, "a") as file:
        file.attrs["format"] = FORMAT_NAME

    with pytest.raises(SourceError, match=r"a\.h5: a shard that sbprep build wrote, expected images; build from the"):
        arrays.splits(path)


def test_hdf5_images_that_were_never_written_are_an_error(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", shape=(7, 5, 8, 3), dtype="u1", chunks=True)

    with pytest.raises(SourceError, match="0 bytes, expected 840; it was cut short"):
        arrays.splits(tmp_path / "a.h5")


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}])
def test_hdf5_images_most_of_which_were_never_written_are_an_error(tmp_path, options):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        images = file.create_dataset("images", shape=(10**8, 5, 8, 3), dtype="u1", chunks=(2, 5, 8, 3), **options)
        images[:3] = make_images()[:3]

    with pytest.raises(SourceError, match="480 bytes, expected 12000000000; it was cut short"):
        arrays.splits(tmp_path / "a.h5")


def test_hdf5_images_are_no_more_than_the_bytes_of_their_file(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", data=np.zeros((100_000, 1, 1, 3), np.uint8), chunks=True, compression="gzip")

    with pytest.raises(SourceError, match=r"images\]: 100000 images in a file of (\d+) bytes, expected at most \1;"):
        arrays.splits(tmp_path / "a.h5")


def test_virtual_hdf5_images_of_any_number_are_not_listed(tmp_path):
    layout = h5py.VirtualLayout(shape=(10**8, 5, 8, 3), dtype="u1")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("images", layout)

    with pytest.raises(SourceError, match=r"100000000 images in a file of .*, expected at most 33554432"):
        arrays.splits(tmp_path / "a.h5")


def test_virtual_hdf5_images_are_read_through(tmp_path):
    layout = h5py.VirtualLayout(shape=(7, 5, 8, 3), dtype="u1")
    for row, image in enumerate(make_images()):
        with h5py.File(tmp_path / f"part{row}.h5", "w") as file:
            file["image"] = image
        layout[row] = h5py.VirtualSource(tmp_path / f"part{row}.h5", "image", shape=(5, 8, 3))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("images", layout)

    np.testing.assert_array_equal(np.stack(read_all(only(arrays.splits(tmp_path / "a.h5")))), make_images())


def test_large_sparse_npy_is_read_without_loading_it(tmp_path):
    images = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (100_000, 96, 96, 3))
    images[99_999] = 7
    images.flush()
    split = only(arrays.splits(tmp_path / "a.npy"))

    (last,) = read_all(split, [99_999])

    assert last.shape == (96, 96, 3)
    assert (last == 7).all()


@any_format
def test_vanished_file_rejects_each_row(tmp_path, form):
    path = write(tmp_path, form, make_images())
    split = only(arrays.splits(path))
    path.unlink()

    assert [item.code for item in read_all(split)] == ["vanished"] * COUNT


@any_format
def test_file_written_anew_is_rejected_as_changed(tmp_path, form):
    path = write(tmp_path, form, make_images())
    split = only(arrays.splits(path))
    os.utime(path, ns=(0, 1))

    assert {item.code for item in read_all(split)} == {"changed"}


@pytest.mark.parametrize("form", ["packed npz", "gzip"])
def test_damaged_file_with_its_old_time_rejects_each_row(tmp_path, form):
    path = write(tmp_path, form, make_images(100))
    split = only(arrays.splits(path))
    stamp = path.stat().st_mtime_ns
    os.truncate(path, 600)
    os.utime(path, ns=(stamp, stamp))

    assert [item.code for item in read_all(split)] == ["unreadable"] * 100


@any_format
def test_reading_nothing_gives_nothing(tmp_path, form):
    split = only(arrays.splits(write(tmp_path, form, make_images())))

    assert read_all(split, np.array([], np.int64)) == []
