"""Layouts: the names of a tree turned into splits and labels, and labels joined over splits."""

from pathlib import Path

import numpy as np
import pytest

from sbformat.errors import ConfigError, SourceError
from sbprep.sources.base import Listing, Split
from sbprep.sources.folder import FolderTree
from sbprep.sources.layout import join_labels, one_split_of_tree, splits_of_tree
from trees import fill, make_tar


def labels_by_name(split: Split) -> dict[str, str]:
    assert split.listing.labels is not None
    assert split.listing.labels.dtype == np.int32
    assert split.label_names is not None
    return {
        name: split.label_names[label] for name, label in zip(split.listing.names, split.listing.labels, strict=True)
    }


def labeled(names: tuple[str, ...], labels: list) -> Split:
    array = np.array(labels, np.int32)
    counts = np.ones(len(array), np.int64)
    listing = Listing(names=[f"{i}.png" for i in range(len(array))], sizes=counts, stamps=counts, labels=array)
    return Split(kind="folder", source=FolderTree(Path("x")), listing=listing, label_names=names)


def attributed(names: tuple[str, ...]) -> Split:
    split = labeled(names, [0])
    listing = Listing(
        names=["0.png"],
        sizes=split.listing.sizes,
        stamps=split.listing.stamps,
        labels=np.zeros((1, len(names)), np.uint8),
    )
    return Split(kind="celeba", source=split.source, listing=listing, label_names=names)


# Layouts


def test_flat_nested_and_bucketed_images_are_one_unlabeled_split(tmp_path):
    splits = splits_of_tree(fill(tmp_path, "a.jpg", "b/c.jpg", "b/00/01/d.jpg"), "folder")

    assert list(splits) == ["unlabeled"]
    assert splits["unlabeled"].listing.names == ["a.jpg", "b/00/01/d.jpg", "b/c.jpg"]
    assert splits["unlabeled"].listing.labels is None
    assert splits["unlabeled"].label_names is None
    assert splits["unlabeled"].kind == "folder"


def test_only_image_suffixes_in_any_case_are_listed(tmp_path):
    images = ["a.jpg", "b.JPEG", "c.Png", "d.webp", "e.BMP", "f.tif", "g.TIFF"]
    tree = fill(tmp_path, *images, "readme.md", "x.txt", "y.json", "Thumbs.db", "jpg", "z.jpg.part")

    assert splits_of_tree(tree, "folder")["unlabeled"].listing.names == images


def test_a_tree_without_images_is_an_error_that_says_what_was_seen(tmp_path):
    tree = fill(tmp_path, "a.txt", "b/c.json")

    expected = rf"{tmp_path}: no images among 2 files, expected names ending in \.jpg .*\.tiff; check the path"
    with pytest.raises(SourceError, match=expected):
        splits_of_tree(tree, "folder")


def test_split_folders_with_class_folders_make_labeled_splits(tmp_path):
    tree = fill(
        tmp_path, "test/dog/1.jpg", "train/dog/2.jpg", "train/cat/3.jpg", "train/cat/deep/4.jpg", "val/cat/5.jpg"
    )

    splits = splits_of_tree(tree, "folder")

    assert list(splits) == ["train", "val", "test"]
    assert splits["train"].listing.names == ["train/cat/3.jpg", "train/cat/deep/4.jpg", "train/dog/2.jpg"]
    assert splits["train"].label_names == ("cat", "dog")
    assert splits["train"].listing.labels.tolist() == [0, 0, 1]
    assert splits["val"].label_names == ("cat",)
    assert splits["test"].label_names == ("dog",)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("VAL", "val"),
        ("valid", "val"),
        ("Validation", "val"),
        ("Unlabeled", "unlabeled"),
        ("unsupervised", "unlabeled"),
    ],
)
def test_other_names_of_split_folders_in_any_case(tmp_path, name, split):
    splits = splits_of_tree(fill(tmp_path, "Train/cat/1.jpg", f"{name}/cat/2.jpg"), "folder")

    assert splits[split].listing.names == [f"{name}/cat/2.jpg"]
    assert splits["train"].label_names == ("cat",)


def test_the_unlabeled_split_folder_has_no_labels_at_any_depth(tmp_path):
    splits = splits_of_tree(fill(tmp_path, "train/cat/1.jpg", "unlabeled/2.jpg", "unlabeled/x/3.jpg"), "folder")

    assert splits["unlabeled"].listing.names == ["unlabeled/2.jpg", "unlabeled/x/3.jpg"]
    assert splits["unlabeled"].label_names is None


def test_supervised_and_unsupervised_folders_are_found_under_their_common_folder(tmp_path):
    root = "ssl_data_96"
    tree = fill(
        tmp_path,
        f"{root}/supervised/train/n01/1.JPEG",
        f"{root}/supervised/train/n02/2.JPEG",
        f"{root}/supervised/val/n02/3.JPEG",
        f"{root}/unsupervised/4.JPEG",
        f"{root}/unsupervised/a/5.JPEG",
    )

    splits = splits_of_tree(tree, "folder")

    assert list(splits) == ["unlabeled", "train", "val"]
    assert labels_by_name(splits["train"]) == {
        f"{root}/supervised/train/n01/1.JPEG": "n01",
        f"{root}/supervised/train/n02/2.JPEG": "n02",
    }
    assert labels_by_name(splits["val"]) == {f"{root}/supervised/val/n02/3.JPEG": "n02"}
    assert splits["unlabeled"].listing.names == [f"{root}/unsupervised/4.JPEG", f"{root}/unsupervised/a/5.JPEG"]


def test_the_supervised_half_alone_is_found(tmp_path):
    splits = splits_of_tree(fill(tmp_path, "d/supervised/train/cat/1.jpg", "d/supervised/train/cat/2.jpg"), "folder")

    assert {name: split.label_names for name, split in splits.items()} == {"train": ("cat",)}


@pytest.mark.parametrize("prefix", ["", "cifar10/", "a/b/c/"])
def test_common_folders_are_looked_through_but_names_stay_whole(tmp_path, prefix):
    splits = splits_of_tree(fill(tmp_path, f"{prefix}train/cat/1.jpg", f"{prefix}train/dog/2.jpg"), "folder")

    assert labels_by_name(splits["train"]) == {f"{prefix}train/cat/1.jpg": "cat", f"{prefix}train/dog/2.jpg": "dog"}


@pytest.mark.parametrize("prefix", ["", "cifar10/"])
def test_a_single_class_does_not_hide_its_split_folder(tmp_path, prefix):
    splits = splits_of_tree(fill(tmp_path, f"{prefix}train/cat/1.jpg", f"{prefix}train/cat/2.jpg"), "folder")

    assert labels_by_name(splits["train"]) == {f"{prefix}train/cat/1.jpg": "cat", f"{prefix}train/cat/2.jpg": "cat"}


def test_a_class_may_bear_the_name_of_a_split(tmp_path):
    splits = splits_of_tree(fill(tmp_path, "vehicles/train/train/1.jpg", "vehicles/train/bus/2.jpg"), "folder")

    assert labels_by_name(splits["train"]) == {
        "vehicles/train/bus/2.jpg": "bus",
        "vehicles/train/train/1.jpg": "train",
    }


def test_an_image_outside_the_split_folders_makes_the_tree_unlabeled(tmp_path):
    splits = splits_of_tree(fill(tmp_path, "train/cat/1.jpg", "test/cat/2.jpg", "extra/3.jpg"), "folder")

    assert {name: len(split.listing) for name, split in splits.items()} == {"unlabeled": 3}


def test_a_split_folder_without_class_folders_is_that_split_unlabeled(tmp_path):
    splits = splits_of_tree(fill(tmp_path, "train/cat/1.jpg", "test/2.jpg", "test/3.jpg"), "folder")

    assert splits["test"].listing.names == ["test/2.jpg", "test/3.jpg"]
    assert splits["test"].listing.labels is None
    assert splits["test"].label_names is None
    assert splits["train"].label_names == ("cat",)


def test_an_image_beside_the_class_folders_is_an_error_that_names_it(tmp_path):
    tree = fill(tmp_path, "train/cat/1.jpg", "train/stray.jpg")

    with pytest.raises(SourceError, match=r"train/stray\.jpg lies directly .* expected train/<class>/<image>"):
        splits_of_tree(tree, "folder")


def test_an_unsafe_path_changes_neither_layout_nor_classes(tmp_path):
    tree = make_tar(tmp_path / "a.tar", {"train/cat/1.jpg": b"x", "../evil.jpg": b"x", "train/dog/2.jpg": b"x"})
    splits = splits_of_tree(tree, "tar")

    assert list(splits) == ["train"]
    assert splits["train"].label_names == ("cat", "dog")
    assert splits["train"].listing.names == ["a.tar#../evil.jpg", "a.tar#train/cat/1.jpg", "a.tar#train/dog/2.jpg"]
    assert splits["train"].listing.labels.tolist() == [0, 0, 1]
    assert one_split_of_tree(tree, "tar", "val").label_names == ("cat", "dog")


def test_a_tree_of_unsafe_paths_alone_is_unlabeled(tmp_path):
    tree = make_tar(tmp_path / "a.tar", {"../train/cat/evil.jpg": b"x"})

    assert list(splits_of_tree(tree, "tar")) == ["unlabeled"]


# One tree, one split


@pytest.mark.parametrize("prefix", ["", "train/", "a/b/"])
def test_a_whole_tree_is_one_split_with_class_folders(tmp_path, prefix):
    split = one_split_of_tree(fill(tmp_path, f"{prefix}cat/1.jpg", f"{prefix}dog/x/2.jpg"), "folder", "val")

    assert labels_by_name(split) == {f"{prefix}cat/1.jpg": "cat", f"{prefix}dog/x/2.jpg": "dog"}


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_a_whole_tree_with_a_single_class_keeps_it(tmp_path, prefix):
    split = one_split_of_tree(fill(tmp_path, f"{prefix}cat/1.jpg", f"{prefix}cat/2.jpg"), "folder", "train")

    assert split.label_names == ("cat",)
    assert split.listing.labels.tolist() == [0, 0]


def test_a_whole_unlabeled_tree_has_no_labels_whatever_its_folders(tmp_path):
    split = one_split_of_tree(fill(tmp_path, "train/cat/1.jpg", "2.jpg"), "tar", "unlabeled")

    assert split.listing.names == ["2.jpg", "train/cat/1.jpg"]
    assert split.listing.labels is None
    assert split.label_names is None
    assert split.kind == "tar"


@pytest.mark.parametrize(
    ("names", "culprit"),
    [
        (("a.jpg", "b.jpg"), "a.jpg"),
        (("cat/1.jpg", "dog/2.jpg", "z.jpg"), "z.jpg"),
        (("t/1.jpg", "t/cat/2.jpg"), "t/1.jpg"),
    ],
)
def test_a_labeled_split_needs_a_class_folder_for_every_image(tmp_path, names, culprit):
    tree = fill(tmp_path, *names)

    with pytest.raises(SourceError, match=rf"{culprit} is in no class folder.* train/<class>/<image>; .*--unlabeled"):
        one_split_of_tree(tree, "folder", "train")


def test_an_unknown_split_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="'training': expected one of unlabeled, train, val, test"):
        one_split_of_tree(fill(tmp_path, "a.jpg"), "folder", "training")


# Joining labels


def test_joined_splits_share_the_sorted_union_of_their_classes():
    joined = join_labels({"train": labeled(("b", "d"), [0, 1, 1]), "test": labeled(("a", "d"), [1, 0])})

    assert joined["train"].label_names == joined["test"].label_names == ("a", "b", "d")
    assert joined["train"].listing.labels.tolist() == [1, 2, 2]
    assert joined["test"].listing.labels.tolist() == [2, 0]
    assert joined["train"].listing.labels.dtype == np.int32


def test_a_split_that_knows_every_class_gives_the_order():
    numbers = tuple(str(i) for i in range(12))
    joined = join_labels({"train": labeled(numbers, [2, 10]), "test": labeled(numbers[:11], [10])})

    assert joined["test"].label_names == numbers
    assert joined["train"].listing.labels.tolist() == [2, 10]
    assert joined["test"].listing.labels.tolist() == [10]


def test_unlabeled_and_attribute_splits_are_left_alone(tmp_path):
    unlabeled = one_split_of_tree(fill(tmp_path, "a.jpg"), "folder", "unlabeled")
    splits = {
        "unlabeled": unlabeled,
        "train": attributed(("Smiling", "Young")),
        "val": attributed(("Smiling", "Young")),
    }

    joined = join_labels(splits)

    assert list(joined) == ["unlabeled", "train", "val"]
    assert all(joined[name] is splits[name] for name in splits)


def test_classes_and_attributes_do_not_mix():
    with pytest.raises(SourceError, match="val have attributes and train have classes"):
        join_labels({"train": labeled(("a",), [0]), "val": attributed(("Young",))})


def test_attributes_must_have_the_same_names():
    with pytest.raises(SourceError, match="train, val name different attributes"):
        join_labels({"train": attributed(("Smiling",)), "val": attributed(("Young",))})
