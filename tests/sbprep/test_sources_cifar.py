import os
import pickle
import struct

import numpy as np
import pytest

from sbformat.errors import SourceError
from sbprep.sources import cifar

OFFICIAL = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FINE = tuple(f"fine{i}" for i in range(100))


def make_images(count, seed=0):
    """Random (count, 32, 32, 3): any exchange of row, column or channel changes it."""
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def planes(image):
    return b"".join(image[row, :, c].tobytes() for c in range(3) for row in range(32))


def write_binary(path, images, *labels):
    """Write label bytes, then the planes of each image."""
    path.write_bytes(b"".join(bytes(row[1:]) + planes(row[0]) for row in zip(images, *labels, strict=True)))


def py2(value):
    """Pickle as Python 2's protocol 2 does it: byte strings, and arrays with the old module names."""
    if isinstance(value, dict):
        return b"}(" + b"".join(py2(key) + py2(item) for key, item in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(py2(item) for item in value) + b"e"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode()
    return py2_array(value)


def py2_array(array, code="u1"):
    shape = b"(" + b"".join(py2(n) for n in array.shape) + b"t"
    dtype = b"cnumpy\ndtype\n" + py2(code) + py2(0) + py2(1) + b"\x87R"
    dtype += b"(" + py2(3) + py2("|") + b"NNN" + py2(-1) + py2(-1) + py2(0) + b"tb"
    data = b"T" + struct.pack("<i", array.nbytes) + array.tobytes()
    make = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + py2(0) + b"\x85" + py2("b") + b"\x87R"
    return make + b"(" + py2(1) + shape + dtype + py2(False) + data + b"tb"


def write_py2(path, value):
    path.write_bytes(b"\x80\x02" + py2(value) + b".")


def rows_of(images):
    return np.frombuffer(b"".join(planes(image) for image in images), np.uint8).reshape(len(images), 3072)


@pytest.fixture
def binary10(tmp_path):
    root = tmp_path / "cifar-10-batches-bin"
    root.mkdir()
    for number in range(1, 6):
        write_binary(root / f"data_batch_{number}.bin", make_images(2, number), [number, 9])
    write_binary(root / "test_batch.bin", make_images(3, 6), [0, 1, 2])
    (root / "batches.meta.txt").write_text("\n".join(OFFICIAL) + "\n\n")
    return root


@pytest.fixture
def binary100(tmp_path):
    root = tmp_path / "cifar-100-binary"
    root.mkdir()
    write_binary(root / "train.bin", make_images(3, 1), [19, 0, 5], [99, 0, 42])
    write_binary(root / "test.bin", make_images(2, 2), [1, 2], [7, 8])
    (root / "fine_label_names.txt").write_text("\n".join(FINE) + "\n")
    return root


@pytest.fixture
def python10(tmp_path):
    root = tmp_path / "cifar-10-batches-py"
    root.mkdir()
    for number in range(1, 6):
        batch = {"batch_label": f"training batch {number} of 5", "labels": [number, 9]}
        batch |= {"data": rows_of(make_images(2, number)), "filenames": ["a.png", "b.png"]}
        write_py2(root / f"data_batch_{number}", batch)
    write_py2(root / "test_batch", {"data": rows_of(make_images(3, 6)), "labels": [0, 1, 2]})
    write_py2(root / "batches.meta", {"num_cases_per_batch": 2, "label_names": list(OFFICIAL), "num_vis": 3072})
    return root


@pytest.fixture
def python100(tmp_path):
    root = tmp_path / "cifar-100-python"
    root.mkdir()
    train = {"data": rows_of(make_images(3, 1)), "fine_labels": [99, 0, 42], "coarse_labels": [19, 0, 5]}
    write_py2(root / "train", train)
    write_py2(root / "test", {"data": rows_of(make_images(2, 2)), "fine_labels": [7, 8], "coarse_labels": [1, 2]})
    write_py2(root / "meta", {"fine_label_names": list(FINE), "coarse_label_names": ["c"] * 20})
    return root


CIFAR10, CIFAR100 = ["binary10", "python10"], ["binary100", "python100"]


@pytest.fixture
def folder(request):
    return request.getfixturevalue(request.param)


any_version = pytest.mark.parametrize("folder", CIFAR10 + CIFAR100, indirect=True)
any_cifar10 = pytest.mark.parametrize("folder", CIFAR10, indirect=True)
any_cifar100 = pytest.mark.parametrize("folder", CIFAR100, indirect=True)
any_python = pytest.mark.parametrize("folder", ["python10", "python100"], indirect=True)


def read_all(split, rows=None):
    rows = np.arange(len(split.listing)) if rows is None else np.array(rows)
    return list(split.source.read(split.listing.take(rows)))


@any_cifar10
def test_cifar10_pixels_are_exact_in_batch_order(folder):
    splits = cifar.splits(folder)

    train = np.concatenate([make_images(2, number) for number in range(1, 6)])
    np.testing.assert_array_equal(np.stack(read_all(splits["train"])), train)
    np.testing.assert_array_equal(np.stack(read_all(splits["test"])), make_images(3, 6))


@any_cifar100
def test_cifar100_pixels_are_exact(folder):
    splits = cifar.splits(folder)

    np.testing.assert_array_equal(np.stack(read_all(splits["train"])), make_images(3, 1))
    np.testing.assert_array_equal(np.stack(read_all(splits["test"])), make_images(2, 2))


def test_byte_of_a_pixel_is_label_then_plane_then_row_then_column(binary10):
    image = np.zeros((32, 32, 3), np.uint8)
    image[7, 20, 2] = 255
    record = bytearray(3073)
    record[1 + 2 * 1024 + 7 * 32 + 20] = 255
    (binary10 / "test_batch.bin").write_bytes(bytes(record))

    np.testing.assert_array_equal(read_all(cifar.splits(binary10)["test"])[0], image)


@any_version
def test_images_are_contiguous_writable_uint8(folder):
    image = read_all(cifar.splits(folder)["train"])[0]

    assert image.shape == (32, 32, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable


@any_cifar10
def test_items_come_in_the_order_of_the_part_across_batches(folder):
    train = np.concatenate([make_images(2, number) for number in range(1, 6)])
    rows = [9, 0, 3, 8, 0, 1]

    np.testing.assert_array_equal(np.stack(read_all(cifar.splits(folder)["train"], rows)), train[rows])


@any_cifar10
def test_cifar10_labels(folder):
    splits = cifar.splits(folder)

    assert splits["train"].listing.labels.tolist() == [1, 9, 2, 9, 3, 9, 4, 9, 5, 9]
    assert splits["train"].listing.labels.dtype == np.int32
    assert splits["test"].listing.labels.tolist() == [0, 1, 2]


@any_cifar100
def test_cifar100_labels_are_the_fine_ones(folder):
    splits = cifar.splits(folder)

    assert splits["train"].listing.labels.tolist() == [99, 0, 42]
    assert splits["test"].listing.labels.tolist() == [7, 8]


@any_cifar10
def test_cifar10_kind_and_class_names(folder):
    split = cifar.splits(folder)["test"]

    assert (split.kind, split.label_names) == ("cifar10", OFFICIAL)


@any_cifar100
def test_cifar100_kind_and_class_names(folder):
    split = cifar.splits(folder)["test"]

    assert (split.kind, split.label_names) == ("cifar100", FINE)


def test_names_sizes_and_stamps_of_binary_records(binary10):
    listing = cifar.splits(binary10)["train"].listing

    assert listing.names[:3] == ["data_batch_1.bin#0", "data_batch_1.bin#1", "data_batch_2.bin#0"]
    assert listing.sizes.tolist() == [3073] * 10
    assert listing.stamps[-1] == (binary10 / "data_batch_5.bin").stat().st_mtime_ns


def test_names_and_sizes_of_pickled_records(python100):
    listing = cifar.splits(python100)["train"].listing

    assert listing.names == ["train#0", "train#1", "train#2"]
    assert listing.sizes.tolist() == [3072] * 3


def test_record_sizes_of_cifar100_count_both_labels(binary100):
    assert cifar.splits(binary100)["test"].listing.sizes.tolist() == [3074] * 2


@any_version
def test_parent_folder_gives_the_same_splits(folder):
    assert cifar.matches(folder.parent)
    assert cifar.splits(folder.parent)["train"].source == cifar.splits(folder)["train"].source


@any_version
def test_source_survives_pickling(folder):
    split = cifar.splits(folder)["test"]
    copy = pickle.loads(pickle.dumps(split.source))

    assert copy == split.source
    assert copy.sequential is False
    np.testing.assert_array_equal(next(iter(copy.read(split.listing))), read_all(split)[0])


@any_version
def test_matches_the_layout(folder):
    assert cifar.matches(folder)
    assert not cifar.matches(next(folder.iterdir()))


def test_other_paths_do_not_match(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "test.bin").write_bytes(b"1")

    assert not cifar.matches(tmp_path)
    assert not cifar.matches(tmp_path / "nothing")
    assert not cifar.matches(tmp_path / ("x" * 5000))


def test_binary_version_is_preferred(binary10, python10):
    assert cifar.splits(binary10.parent)["test"].listing.names[0] == "test_batch.bin#0"


def test_cifar10_and_cifar100_together_are_an_error(binary10, python100):
    with pytest.raises(SourceError, match=r"holds CIFAR-10 and CIFAR-100; give one of .*batches-bin, .*100-python"):
        cifar.splits(binary10.parent)


def test_other_folder_is_an_error_that_says_what_to_give(tmp_path):
    with pytest.raises(SourceError, match=r"no CIFAR batch here or in cifar-10-batches-bin.*unpack"):
        cifar.splits(tmp_path)


def test_missing_batches_leave_the_present_ones(binary10):
    for number in (1, 3, 4):
        (binary10 / f"data_batch_{number}.bin").unlink()
    (binary10 / "test_batch.bin").unlink()

    splits = cifar.splits(binary10)

    assert list(splits) == ["train"]
    assert splits["train"].listing.labels.tolist() == [2, 9, 5, 9]
    np.testing.assert_array_equal(read_all(splits["train"])[2], make_images(2, 5)[0])


def test_test_batch_alone_is_enough(python10):
    for number in range(1, 6):
        (python10 / f"data_batch_{number}").unlink()

    assert list(cifar.splits(python10)) == ["test"]


@any_cifar10
def test_missing_names_default_to_the_official_order(folder):
    next(folder.glob("batches.meta*")).unlink()

    assert cifar.splits(folder)["train"].label_names == OFFICIAL


def test_missing_cifar100_names_default_to_numbers(binary100):
    (binary100 / "fine_label_names.txt").unlink()

    assert cifar.splits(binary100)["train"].label_names == tuple(str(i) for i in range(100))


def test_wrong_number_of_names_is_an_error(binary100):
    (binary100 / "fine_label_names.txt").write_text("apple\n")

    with pytest.raises(SourceError, match=r"fine_label_names.txt: 1 names, expected 100"):
        cifar.splits(binary100)


def test_pickled_names_must_be_a_list(python10):
    write_py2(python10 / "batches.meta", {"label_names": 10})

    with pytest.raises(SourceError, match=r"batches.meta: no list of label_names, expected 10"):
        cifar.splits(python10)


@pytest.mark.parametrize("size", [0, 3072, 3074 * 2])
def test_binary_file_of_a_wrong_size_is_an_error(binary10, size):
    (binary10 / "data_batch_2.bin").write_bytes(b"0" * size)

    with pytest.raises(SourceError, match=rf"data_batch_2.bin: {size} bytes, expected .* 3073 bytes each"):
        cifar.splits(binary10)


def test_binary_label_out_of_range_names_its_row(binary10):
    write_binary(binary10 / "data_batch_4.bin", make_images(2), [9, 10])

    with pytest.raises(SourceError, match=r"data_batch_4.bin: label 10 in row 1, expected 0 to 9"):
        cifar.splits(binary10)


def test_binary_cifar100_label_out_of_range_names_its_row(binary100):
    write_binary(binary100 / "test.bin", make_images(2), [0, 0], [99, 100])

    with pytest.raises(SourceError, match=r"test.bin: label 100 in row 1, expected 0 to 99"):
        cifar.splits(binary100)


@pytest.mark.parametrize("label", [-1, 10])
def test_pickled_label_out_of_range_names_its_row(python10, label):
    write_py2(python10 / "test_batch", {"data": rows_of(make_images(2)), "labels": [3, label]})

    with pytest.raises(SourceError, match=rf"test_batch: label {label} in row 1, expected 0 to 9"):
        cifar.splits(python10)


def test_huge_pickled_label_is_an_error(python10):
    batch = {"data": rows_of(make_images(1)), "labels": [10**30]}
    (python10 / "test_batch").write_bytes(pickle.dumps(batch, 2))

    with pytest.raises(SourceError, match=rf"test_batch: label {10**30} in row 0"):
        cifar.splits(python10)


@any_version
def test_vanished_file_rejects_each_row(folder):
    split = cifar.splits(folder)["test"]
    next(folder.glob("test*")).unlink()

    assert [item.code for item in read_all(split)] == ["vanished"] * len(split.listing)


@any_version
def test_file_written_anew_is_rejected_as_changed(folder):
    split = cifar.splits(folder)["test"]
    os.utime(next(folder.glob("test*")), ns=(0, 1))

    assert {item.code for item in read_all(split)} == {"changed"}


@any_cifar10
def test_only_rows_of_the_lost_batch_are_rejected(folder):
    split = cifar.splits(folder)["train"]
    next(folder.glob("data_batch_2*")).unlink()

    items = read_all(split, [0, 2, 8])

    np.testing.assert_array_equal(items[0], make_images(2, 1)[0])
    assert items[1].code == "vanished"
    np.testing.assert_array_equal(items[2], make_images(2, 5)[0])


def test_damaged_pickle_with_its_old_time_rejects_its_rows(python100):
    split = cifar.splits(python100)["test"]
    stamp = (python100 / "test").stat().st_mtime_ns
    (python100 / "test").write_bytes(b"\x80\x02}")
    os.utime(python100 / "test", ns=(stamp, stamp))

    assert [item.code for item in read_all(split)] == ["unreadable"] * 2


def test_hand_written_pickles_are_what_python_reads():
    images = rows_of(make_images(2))
    batch = pickle.loads(b"\x80\x02" + py2({"data": images, "labels": [1, 2]}) + b".", encoding="bytes")

    np.testing.assert_array_equal(batch[b"data"], images)
    assert batch[b"labels"] == [1, 2]


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_batches_pickled_by_python_3_are_read(python10, protocol, module):
    batch = {"data": rows_of(make_images(2, 8)), "labels": [4, 5]}
    content = pickle.dumps(batch, protocol)
    if protocol < 4:  # later ones carry the length of the name
        content = content.replace(b"numpy._core.multiarray", module.encode())
    (python10 / "test_batch").write_bytes(content)

    split = cifar.splits(python10)["test"]

    np.testing.assert_array_equal(np.stack(read_all(split)), make_images(2, 8))
    assert split.listing.labels.tolist() == [4, 5]


def test_fortran_ordered_array_is_read_right(python10):
    batch = {"data": np.asfortranarray(rows_of(make_images(3, 8))), "labels": [4, 5, 6]}
    (python10 / "test_batch").write_bytes(pickle.dumps(batch, 2))

    np.testing.assert_array_equal(np.stack(read_all(cifar.splits(python10)["test"])), make_images(3, 8))


@any_python
def test_hostile_pickle_is_refused_and_does_not_run(folder, tmp_path):
    mark = tmp_path / "ran"
    name = "test_batch" if folder.name.startswith("cifar-10-") else "test"
    hostile = b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR."
    (folder / name).write_bytes(hostile)

    with pytest.raises(SourceError, match=rf"{name}: refused: the pickle wants os.system"):
        cifar.splits(folder)
    assert not mark.exists()
    pickle.loads(hostile)  # the same bytes do run where nothing stops them
    assert mark.exists()


def test_hostile_pickle_put_in_place_after_listing_does_not_run(python10, tmp_path):
    split = cifar.splits(python10)["test"]
    path = python10 / "test_batch"
    stamp = path.stat().st_mtime_ns
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    os.utime(path, ns=(stamp, stamp))

    assert {item.code for item in read_all(split)} == {"unreadable"}
    assert not (tmp_path / "ran").exists()


def test_hostile_class_names_file_is_refused(python10):
    (python10 / "batches.meta").write_bytes(b"cposix\nsystem\n(S'true'\ntR.")

    with pytest.raises(SourceError, match=r"batches.meta: refused: the pickle wants posix.system"):
        cifar.splits(python10)


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(tR"
#: A tuple of twice the same tuple, sixty times: some hundred bytes that take years to hash, to show or to compare.
NESTED = b"K\x01\x85q\x00" + b"0h\x00h\x00\x86q\x00" * 60


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"c__builtin__\neval\n(S'1'\ntR.", "__builtin__.eval"),
        (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
        (b"ccollections\nOrderedDict\n)R.", "collections.OrderedDict"),
        (b"(S'true'\nios\nsystem\n.", "os.system"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.", "numpy.ndarray.dumps"),
        (b"cnumpy\nload\n(S'x'\ntR.", "numpy.load"),
        (b"cnumpy.core.multiarray\nfromfile\n.", "numpy.core.multiarray.fromfile"),
        (b"cnumpy.core.multiarray\nscalar\n.", "numpy.core.multiarray.scalar"),
        (b"cnumpy\nndarray\n((I9\ntS'O'\ntR.", "to call numpy.ndarray"),
        (b"cnumpy\ndtype\n}S'x'\nI1\nsb.", "to change a global"),
        (b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.", "an array of dtype 'O8'"),
        (b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR.", "an array of dtype 'f8'"),
        (b"cnumpy\ndtype\n((S'a'\nS'O'\nltR.", "an array of dtype"),
        (b"c_codecs\nencode\n(Vx\nS'rot13'\ntR.", "_codecs.encode to 'rot13'"),
        (b"\x82\x01.", "extension 1"),
        (b"\x80\x02" + NESTED + b"}h\x00K\x01s.", "a tuple as the key of a dict"),
        (b"\x80\x02" + NESTED + b"}(h\x00K\x01u.", "a tuple as the key of a dict"),
        (b"\x80\x02(" + NESTED + b"K\x01d.", "a tuple as the key of a dict"),
        (b"\x80\x04\x8f(" + NESTED + b"\x90.", "a set or bytearray"),
        (b"\x80\x04(" + NESTED + b"\x91.", "a set or bytearray"),
        (b"\x80\x05\x96" + (1 << 50).to_bytes(8, "little") + b".", "a set or bytearray"),
        (b"\x80\x02c_codecs\nencode\nVx\n" + NESTED + b"\x86R.", "_codecs.encode to tuple"),
        (b"\x80\x02cnumpy\ndtype\n" + NESTED + b"\x85R.", "an array of dtype tuple"),
        (
            b"\x80\x02c_codecs\nencode\nq\x01V" + b"x" * 99 + b"\nS'latin1'\n\x86q\x020" + b"h\x01h\x02R0" * 9 + b"}.",
            "to encode more text than it holds",
        ),
    ],
)
def test_everything_but_plain_arrays_is_refused_by_name(python10, content, wanted):
    (python10 / "data_batch_3").write_bytes(content)

    with pytest.raises(SourceError) as error:
        cifar.splits(python10)
    assert f"data_batch_3: refused: the pickle wants {wanted}" in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02",
        b"no pickle at all",
        b"\x80\x02" + py2({"data": rows_of(make_images(1)), "labels": [1]})[:-40],
        b"]\x94.",
        b"Nr\xff\xff\xff\xff.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fx.",
        b"}(S'data'\n" + ARRAY + b"u.",
        b"}(S'data'\n" + ARRAY + b"(I1\n(I2\ntNI00\nS'ab'\ntbu.",
        b"}(S'data'\ncnumpy\nndarray\n)\x81u.",
        b"Pid\n.",
        b"cnumpy\ndtype\n(S'u1'\ntR" + b"S'x'\na.",
        b"\x80\x02}S'data'\n" + ARRAY + b"(I1\n" + NESTED + b"cnumpy\ndtype\n(S'u1'\ntRI00\nS'ab'\ntbs.",
        b"\x80\x02" + NESTED + b".",
    ],
)
def test_malformed_pickle_is_an_error_with_the_file(python10, content):
    (python10 / "data_batch_3").write_bytes(content)

    with pytest.raises(SourceError, match="data_batch_3: malformed pickle"):
        cifar.splits(python10)


def test_array_state_must_match_its_bytes(python10):
    content = py2({"data": rows_of(make_images(2)), "labels": [1, 2]})
    content = content.replace(b"(" + py2(2) + py2(3072) + b"t", b"(" + py2(9) + py2(3072) + b"t")
    (python10 / "test_batch").write_bytes(b"\x80\x02" + content + b".")

    with pytest.raises(SourceError, match=r"test_batch: malformed pickle .* shape \(9, 3072\) from 6144 bytes"):
        cifar.splits(python10)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"labels": [1]}, "'data' is NoneType, expected uint8"),
        ({"data": "text", "labels": [1]}, "'data' is bytes, expected uint8"),
        ({"data": np.zeros((2, 100), np.uint8), "labels": [1, 2]}, r"'data' is uint8 \(2, 100\), expected uint8"),
        ({"data": np.zeros(3072, np.uint8), "labels": [1]}, r"'data' is uint8 \(3072,\), expected uint8"),
        ({"data": np.zeros((0, 3072), np.uint8), "labels": []}, r"'data' is uint8 \(0, 3072\), expected uint8"),
        ({"data": np.zeros((2, 3072), np.uint8)}, "'labels' is NoneType, expected a list of 2 ints"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, "'labels' is 1 values, expected a list of 2 ints"),
        (
            {"data": np.zeros((2, 3072), np.uint8), "labels": [1, "a"]},
            "'labels' is 2 values, expected a list of 2 ints",
        ),
        (
            {"data": np.zeros((2, 3072), np.uint8), "labels": [1, True]},
            "'labels' is 2 values, expected a list of 2 ints",
        ),
        (
            {"data": np.zeros((1, 3072), np.uint8), "labels": np.ones(1, np.uint8)},
            "'labels' is ndarray, expected a list",
        ),
    ],
)
def test_batch_of_wrong_types_or_shapes_is_an_error(python10, batch, message):
    write_py2(python10 / "test_batch", batch)

    with pytest.raises(SourceError, match=f"test_batch: {message}"):
        cifar.splits(python10)


def test_pickle_too_large_for_memory_is_refused_unread(python10):
    os.truncate(python10 / "data_batch_1", 1 << 30)

    with pytest.raises(SourceError, match=rf"data_batch_1: a pickle of {1 << 30} bytes, at most"):
        cifar.splits(python10)


def test_every_batch_is_unpickled_once_a_read(python10, monkeypatch):
    split = cifar.splits(python10)["train"]
    loaded = []
    load = cifar.load_pickle
    monkeypatch.setattr(cifar, "load_pickle", lambda content, path: loaded.append(path.name) or load(content, path))
    read_all(split, [9, 0, 1, 0, 8, 4, 9])

    assert loaded == ["data_batch_1", "data_batch_3", "data_batch_5"]
