"""WebDataset as a source: samples, class numbers, splits, and how it is recognized."""

import re

import numpy as np
import pytest

from sbformat.errors import SourceError
from sbprep.sources.webdataset import is_webdataset, webdataset_splits
from trees import make_tar, make_zip


def samples(numbers: range, **extra: str) -> dict[str, bytes]:
    """Return images and their companions; the text may use {i}."""
    return {
        f"{i:06d}.{suffix}": text.format(i=i).encode()
        for i in numbers
        for suffix, text in {"jpg": "image {i}", **extra}.items()
    }


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_images_take_the_class_number_of_their_sample(tmp_path, suffix):
    path = make_tar(tmp_path / f"a.{suffix}", samples(range(9, 12), cls="{i}\n", txt="caption")).paths[0]
    splits = webdataset_splits([path])

    assert list(splits) == ["train"]
    assert splits["train"].kind == "webdataset"
    assert splits["train"].listing.names == [
        f"a.{suffix}#000009.jpg",
        f"a.{suffix}#000010.jpg",
        f"a.{suffix}#000011.jpg",
    ]
    assert splits["train"].listing.labels.tolist() == [9, 10, 11]
    assert splits["train"].listing.labels.dtype == np.int32
    assert splits["train"].label_names == tuple(str(i) for i in range(12))
    assert list(splits["train"].source.read(splits["train"].listing)) == [b"image 9", b"image 10", b"image 11"]


def test_a_sample_ends_at_the_first_dot_of_the_last_part_of_its_path(tmp_path):
    members = {
        "v1.0/x.left.jpg": b"l",
        "v1.0/x.right.JPG": b"r",
        "v1.0/x.cls": b"1",
        "v1.1/x.jpg": b"o",
        "v1.1/x.cls": b"0",
    }
    split = webdataset_splits([make_tar(tmp_path / "a.b.tar", members).paths[0]])["train"]

    assert split.listing.names == ["a.b.tar#v1.0/x.left.jpg", "a.b.tar#v1.0/x.right.JPG", "a.b.tar#v1.1/x.jpg"]
    assert split.listing.labels.tolist() == [1, 1, 0]


@pytest.mark.parametrize("field", ["label", "cls"])
def test_labels_come_from_json_where_there_is_no_cls(tmp_path, field):
    members = samples(range(3)) | {f"{i:06d}.json": b'{"%s": %d, "url": "x"}' % (field.encode(), i) for i in range(3)}
    split = webdataset_splits([make_tar(tmp_path / "a.tar", members).paths[0]])["train"]

    assert split.listing.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "text",
    [
        '{{"label": "cat"}}',
        '{{"label": true}}',
        '{{"label": -1}}',
        '{{"url": 1}}',
        "[1]",
        "{{",
        pytest.param("[" * 100_000, id="deep"),
        "\xff",
    ],
)
def test_json_without_a_class_number_means_unlabeled(tmp_path, text):
    splits = webdataset_splits([make_tar(tmp_path / "a.tar", samples(range(2), json=text)).paths[0]])

    assert list(splits) == ["unlabeled"]
    assert splits["unlabeled"].label_names is None
    assert len(splits["unlabeled"].listing) == 2


def test_an_image_without_a_label_among_others_is_an_error_that_names_it(tmp_path):
    members = samples(range(2), cls="{i}") | samples(range(2, 3))
    path = make_tar(tmp_path / "a.tar", members).paths[0]

    with pytest.raises(SourceError, match=r"a\.tar#000002\.jpg has no label and others do"):
        webdataset_splits([path])


def test_an_unsafe_image_needs_no_label(tmp_path):
    members = samples(range(3), cls="{i}") | {"../evil.jpg": b"x"}
    split = webdataset_splits([make_tar(tmp_path / "a.tar", members).paths[0]])["train"]

    assert split.listing.labels.tolist() == [0, 0, 1, 2]
    assert [getattr(item, "code", "ok") for item in split.source.read(split.listing)] == [
        "unsafe_name",
        "ok",
        "ok",
        "ok",
    ]


@pytest.mark.parametrize("text", ["cat", "-1", "1.5", "", "1000000", "²"])
def test_a_malformed_cls_is_an_error_that_names_it(tmp_path, text):
    path = make_tar(tmp_path / "a.tar", samples(range(1), cls=text)).paths[0]

    with pytest.raises(SourceError, match=r"a\.tar#000000\.cls: .*expected a class number from 0 to 999999"):
        webdataset_splits([path])


def test_tars_of_a_folder_are_grouped_by_the_split_in_their_names(tmp_path):
    for split, first in (("train", 0), ("val", 4), ("test", 6)):
        for i in range(2):
            make_tar(tmp_path / f"{split}-{i:06d}.tar", samples(range(first + i, first + i + 1), cls="{i}"))
    make_tar(tmp_path / "unlabeled_0.tar", samples(range(1), cls="not a number"))

    splits = webdataset_splits([tmp_path])

    assert list(splits) == ["unlabeled", "train", "val", "test"]
    assert splits["train"].listing.names == ["train-000000.tar#000000.jpg", "train-000001.tar#000001.jpg"]
    assert splits["test"].listing.labels.tolist() == [6, 7]
    assert splits["unlabeled"].listing.labels is None


def test_tars_without_a_split_in_their_names_are_one_split(tmp_path):
    make_tar(tmp_path / "000.tar", samples(range(1), cls="{i}"))
    make_tar(tmp_path / "001.tar", samples(range(1, 2), cls="{i}"))

    splits = webdataset_splits([tmp_path / "001.tar", tmp_path / "000.tar"])

    assert {name: split.listing.names for name, split in splits.items()} == {
        "train": ["000.tar#000000.jpg", "001.tar#000001.jpg"]
    }


def test_a_tar_without_a_split_in_its_name_beside_others_with_one_is_an_error(tmp_path):
    make_tar(tmp_path / "train-0.tar", samples(range(1)))
    make_tar(tmp_path / "extra.tar", samples(range(1)))

    with pytest.raises(SourceError, match=r"extra\.tar: other tars beside it begin with a split"):
        webdataset_splits([tmp_path])


def test_a_folder_with_other_files_is_no_webdataset(tmp_path):
    make_tar(tmp_path / "a.tar", samples(range(1)))
    (tmp_path / ".a.tar.partial").write_bytes(b"x")
    assert is_webdataset(tmp_path)
    (tmp_path / "readme.md").write_text("x")

    assert not is_webdataset(tmp_path)
    with pytest.raises(SourceError, match=re.escape(f"{tmp_path}: expected a folder of .tar files and nothing else")):
        webdataset_splits([tmp_path])


def test_a_webdataset_without_images_is_a_source_error(tmp_path):
    path = make_tar(tmp_path / "a.tar", {"1.cls": b"1", "1.mp3": b"x"}).paths[0]

    with pytest.raises(SourceError, match="no images among 2 files"):
        webdataset_splits([path])


@pytest.mark.parametrize(
    ("members", "answer"),
    [
        (samples(range(2), cls="1"), True),
        (samples(range(2), json="1"), True),
        (samples(range(2)), False),
        ({"a.jpg": b"x", "b.cls": b"1"}, False),
        ({"a.jpg": b"x", "readme.txt": b"1"}, False),
        ({"dir.x/a.jpg": b"x", "dir.x/a.txt": b"1"}, True),
        ({"d/train/cat/a.jpg": b"x", "d/train/cat/a.txt": b"1"}, False),
    ],
)
def test_a_tar_is_a_webdataset_if_an_image_shares_its_name(tmp_path, members, answer):
    for suffix in ("tar", "tar.xz"):
        assert is_webdataset(make_tar(tmp_path / f"a.{suffix}", members).paths[0]) is answer


def test_neither_zip_nor_an_image_folder_nor_nothing_is_a_webdataset(tmp_path):
    make_zip(tmp_path / "a.zip", samples(range(1), cls="1"))

    assert not is_webdataset(tmp_path / "a.zip")
    assert not is_webdataset(tmp_path)
    assert not is_webdataset(tmp_path / "gone")
