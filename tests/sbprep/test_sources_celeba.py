import pickle
import shutil
import zipfile

import numpy as np
import pytest

from sbformat.errors import SourceError
from sbprep.sources import celeba

FILES = tuple(f"{number:06}.jpg" for number in range(1, 7))
NAMES = tuple(f"Attribute_{column}" for column in range(40))
PARTITION = dict(zip(FILES, (0, 2, 1, 0, 2, 0), strict=True))


def content_of(file):
    return b"\xff\xd8 bytes of " + file.encode()


def attributes_of(file):
    """40 bits that differ from file to file: the number in the name, least bit first."""
    number = int(file[:6]) * 0x9E3779B1
    return [number >> bit & 1 for bit in range(40)]


def write_attributes(path, files=FILES, count=None):
    rows = [f"{file} " + " ".join(f"{bit * 2 - 1:2}" for bit in attributes_of(file)) for file in files]
    path.write_text("\n".join([str(len(files) if count is None else count), " ".join(NAMES) + " ", *rows]) + "\n")


def write_partition(path, partition=PARTITION):
    path.write_text("".join(f"{file} {number}\n" for file, number in partition.items()))


def write_images(folder, files=FILES):
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).write_bytes(content_of(file))


def write_zip(path, files=FILES):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("img_align_celeba/", b"")
        for file in files:
            archive.writestr(f"img_align_celeba/{file}", content_of(file))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "celeba"
    write_images(root / "img_align_celeba")
    write_attributes(root / "list_attr_celeba.txt")
    write_partition(root / "list_eval_partition.txt")
    return root


@pytest.fixture
def zipped(folder):
    shutil.rmtree(folder / "img_align_celeba")
    write_zip(folder / "img_align_celeba.zip")
    return folder


def read_all(split):
    return list(split.source.read(split.listing))


EXPECTED = {"train": [FILES[0], FILES[3], FILES[5]], "val": [FILES[2]], "test": [FILES[1], FILES[4]]}


def test_splits_follow_the_partition_in_build_order(folder):
    splits = celeba.splits(folder)

    assert list(splits) == ["train", "val", "test"]
    assert {name: split.listing.names for name, split in splits.items()} == EXPECTED


def test_folder_gives_the_bytes_of_each_image(folder):
    splits = celeba.splits(folder)

    assert {name: read_all(split) for name, split in splits.items()} == {
        name: [content_of(file) for file in files] for name, files in EXPECTED.items()
    }


def test_zip_gives_the_bytes_of_each_image(zipped):
    splits = celeba.splits(zipped)

    assert splits["val"].listing.names == ["img_align_celeba.zip#img_align_celeba/000003.jpg"]
    assert {name: read_all(split) for name, split in splits.items()} == {
        name: [content_of(file) for file in files] for name, files in EXPECTED.items()
    }


def test_folder_is_preferred_to_the_zip(folder):
    write_zip(folder / "img_align_celeba.zip")

    assert celeba.splits(folder)["val"].listing.names == ["000003.jpg"]


@pytest.mark.parametrize("layout", ["folder", "zipped"])
def test_labels_are_the_attributes_as_bits(layout, request):
    splits = celeba.splits(request.getfixturevalue(layout))

    for name, files in EXPECTED.items():
        assert splits[name].listing.labels.dtype == np.uint8
        assert splits[name].listing.labels.tolist() == [attributes_of(file) for file in files]
        assert splits[name].label_names == NAMES
        assert splits[name].kind == "celeba"


def test_lists_may_be_in_another_order_than_the_files(folder):
    write_attributes(folder / "list_attr_celeba.txt", FILES[::-1])
    write_partition(folder / "list_eval_partition.txt", dict(reversed(PARTITION.items())))

    split = celeba.splits(folder)["train"]

    assert split.listing.names == EXPECTED["train"]
    assert split.listing.labels.tolist() == [attributes_of(file) for file in EXPECTED["train"]]


def test_sizes_and_stamps_are_those_of_the_files(folder):
    listing = celeba.splits(folder)["val"].listing

    assert listing.sizes.tolist() == [len(content_of("000003.jpg"))]
    assert listing.stamps.tolist() == [(folder / "img_align_celeba/000003.jpg").stat().st_mtime_ns]


def test_folders_of_the_distribution_are_searched(folder):
    for name, target in (
        ("img_align_celeba", "Img"),
        ("list_attr_celeba.txt", "Anno"),
        ("list_eval_partition.txt", "Eval"),
    ):
        (folder / target).mkdir()
        (folder / name).rename(folder / target / name)

    assert celeba.matches(folder)
    assert celeba.splits(folder)["test"].listing.names == EXPECTED["test"]


def test_zip_in_img_is_found(zipped):
    (zipped / "Img").mkdir()
    (zipped / "img_align_celeba.zip").rename(zipped / "Img/img_align_celeba.zip")

    assert read_all(celeba.splits(zipped)["val"]) == [content_of("000003.jpg")]


def test_images_one_folder_deeper_are_found(folder):
    (folder / "img_align_celeba").rename(folder / "deeper")
    (folder / "img_align_celeba").mkdir()
    (folder / "deeper").rename(folder / "img_align_celeba/img_align_celeba")

    assert celeba.splits(folder)["val"].listing.names == ["img_align_celeba/000003.jpg"]


def test_parent_folder_gives_the_same_splits(folder):
    assert celeba.matches(folder.parent)
    assert celeba.splits(folder.parent)["train"].source == celeba.splits(folder)["train"].source


def test_source_survives_pickling(zipped):
    split = celeba.splits(zipped)["test"]
    copy = pickle.loads(pickle.dumps(split.source))

    assert copy == split.source
    assert list(copy.read(split.listing)) == read_all(split)


def test_subset_of_the_images_is_accepted(folder):
    for file in (FILES[1], FILES[2], FILES[3]):
        (folder / "img_align_celeba" / file).unlink()

    splits = celeba.splits(folder)

    assert {name: split.listing.names for name, split in splits.items()} == {
        "train": [FILES[0], FILES[5]],
        "test": [FILES[4]],
    }
    assert splits["train"].listing.labels.tolist() == [attributes_of(FILES[0]), attributes_of(FILES[5])]


def test_other_files_beside_the_images_are_passed_over(folder):
    (folder / "img_align_celeba/readme.txt").write_text("hello")
    (folder / "img_align_celeba/.DS_Store").write_text("hello")

    assert celeba.splits(folder)["train"].listing.names == EXPECTED["train"]


def test_matches_needs_images_and_a_list(folder, tmp_path):
    assert celeba.matches(folder)
    assert not celeba.matches(folder / "img_align_celeba")
    assert not celeba.matches(tmp_path / "nothing")
    assert not celeba.matches(tmp_path / ("x" * 5000))
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        assert celeba.matches(folder)
        (folder / name).unlink()
    assert not celeba.matches(folder)


def test_list_without_images_does_not_match(folder):
    shutil.rmtree(folder / "img_align_celeba")

    assert not celeba.matches(folder)


def test_other_folder_is_an_error_that_says_what_to_give(tmp_path):
    with pytest.raises(
        SourceError, match=r"no img_align_celeba/ or img_align_celeba.zip .*put the images and both lists"
    ):
        celeba.splits(tmp_path)


@pytest.mark.parametrize("name", ["list_attr_celeba.txt", "list_eval_partition.txt"])
def test_missing_list_is_an_error(folder, name):
    (folder / name).unlink()

    with pytest.raises(SourceError, match=f"{name} is not there"):
        celeba.splits(folder)


def test_images_without_attributes_are_counted_and_the_first_named(folder):
    write_attributes(folder / "list_attr_celeba.txt", (FILES[0], FILES[1], FILES[3], FILES[5]))

    with pytest.raises(SourceError, match=r"list_attr_celeba.txt: 2 of the 6 images .* first is 000003.jpg"):
        celeba.splits(folder)


def test_images_outside_the_partition_are_counted_and_the_first_named(folder):
    write_partition(folder / "list_eval_partition.txt", dict.fromkeys(FILES[:5], 0))

    with pytest.raises(SourceError, match=r"list_eval_partition.txt: 1 of the 6 images .* first is 000006.jpg"):
        celeba.splits(folder)


def test_folder_without_images_is_an_error(folder):
    shutil.rmtree(folder / "img_align_celeba")
    (folder / "img_align_celeba").mkdir()
    (folder / "img_align_celeba/readme.txt").write_text("hello")

    with pytest.raises(SourceError, match="no images among 1 files"):
        celeba.splits(folder)


def test_image_in_two_folders_is_an_error(folder):
    write_images(folder / "img_align_celeba/again", FILES[:1])

    with pytest.raises(SourceError, match=r"000001.jpg is there in two folders"):
        celeba.splits(folder)


@pytest.mark.parametrize("count", [5, 7])
def test_header_count_must_equal_the_lines(folder, count):
    write_attributes(folder / "list_attr_celeba.txt", count=count)

    with pytest.raises(SourceError, match=rf"list_attr_celeba.txt: line 1 says {count} images, 6 follow"):
        celeba.splits(folder)


def test_missing_header_count_is_an_error(folder):
    path = folder / "list_attr_celeba.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))

    with pytest.raises(SourceError, match=r"line 1: 'Attribute_0 .*', expected the number of images"):
        celeba.splits(folder)


def test_wrong_number_of_attribute_names_is_an_error(folder):
    path = folder / "list_attr_celeba.txt"
    path.write_text(path.read_text().replace("Attribute_39", ""))

    with pytest.raises(SourceError, match="line 2: 39 names, expected 40"):
        celeba.splits(folder)


@pytest.mark.parametrize("value", ["0", "2", "x", "1.0"])
def test_attribute_value_other_than_plus_or_minus_one_names_its_line(folder, value):
    path = folder / "list_attr_celeba.txt"
    lines = path.read_text().splitlines()
    lines[4] = f"000003.jpg {value}" + " -1" * 39
    path.write_text("\n".join(lines))

    with pytest.raises(SourceError, match=rf"list_attr_celeba.txt, line 5: value '{value}', expected -1 or 1"):
        celeba.splits(folder)


def test_wrong_number_of_attribute_values_names_its_line(folder):
    path = folder / "list_attr_celeba.txt"
    path.write_text(path.read_text().rstrip() + " 1\n")

    with pytest.raises(SourceError, match="line 8: 41 values, expected 40"):
        celeba.splits(folder)


@pytest.mark.parametrize("line", ["000002.jpg 3", "000002.jpg", "000002.jpg train", "000002.jpg 0 0"])
def test_malformed_partition_line_is_named(folder, line):
    path = folder / "list_eval_partition.txt"
    path.write_text(path.read_text().replace("000002.jpg 2", line))

    with pytest.raises(
        SourceError, match=rf"list_eval_partition.txt, line 2: '{line}', expected a file name and 0, 1 or 2"
    ):
        celeba.splits(folder)


def test_file_listed_twice_is_an_error(folder):
    path = folder / "list_eval_partition.txt"
    path.write_text(path.read_text() + "000001.jpg 1\n")

    with pytest.raises(SourceError, match=r"line 7: 000001.jpg for the second time"):
        celeba.splits(folder)


def test_broken_zip_is_an_error(zipped):
    (zipped / "img_align_celeba.zip").write_bytes(b"no zip")

    with pytest.raises(SourceError, match=r"img_align_celeba.zip: broken zip"):
        celeba.splits(zipped)


def test_vanished_image_is_rejected(folder):
    split = celeba.splits(folder)["train"]
    (folder / "img_align_celeba" / FILES[3]).unlink()

    items = read_all(split)

    assert items[0] == content_of(FILES[0])
    assert items[1].code == "vanished"
