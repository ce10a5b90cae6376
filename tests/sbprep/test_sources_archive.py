"""Archives as sources: what tars and zips have in common, and how they are told apart."""

import gzip
import os
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sbformat.errors import SourceError
from sbprep.sources.archive import open_tree
from sbprep.sources.base import Listing, Rejected
from sbprep.sources.folder import FolderTree
from sbprep.sources.layout import splits_of_tree
from sbprep.sources.tar import TarTree
from sbprep.sources.tree import MAX_MEMBER_BYTES
from sbprep.sources.zipped import ZipTree
from trees import CONTENTS, NAMES, codes, make_tar, make_zip, read_all, tar_bytes

# What all archives do


@pytest.fixture(params=["tar", "tar.gz", "tar.bz2", "tar.xz", "stored.zip", "zip"])
def tree(request, tmp_path) -> TarTree | ZipTree:
    path = tmp_path / f"data.{request.param}"
    if path.suffix != ".zip":
        return make_tar(path, CONTENTS)
    return make_zip(path, CONTENTS, zipfile.ZIP_STORED if "stored" in path.name else zipfile.ZIP_DEFLATED)


def test_members_are_listed_by_name_after_the_name_of_the_archive(tree):
    path = Path(tree.where)
    files = tree.files()

    assert files.names == sorted(f"{path.name}#{name}" for name in NAMES)
    assert [tree.member(name) for name in files.names] == sorted(NAMES)
    assert files.sizes.tolist() == [len(CONTENTS[name]) for name in sorted(NAMES)]
    assert files.stamps.tolist() == [path.stat().st_mtime_ns] * len(NAMES)
    assert files.labels is None
    assert files.keys.dtype == np.int64


def test_every_archive_gives_the_bytes_that_went_in(tree):
    assert read_all(tree) == CONTENTS


def test_a_part_is_read_in_its_own_order(tree):
    files = tree.files()
    rows = np.array([4, 0, 2, 0])

    assert list(tree.read(files.take(rows))) == [CONTENTS[sorted(NAMES)[row]] for row in rows]


def test_a_pickled_tree_reads_the_same_bytes(tree):
    again = pickle.loads(pickle.dumps(tree))

    assert again == tree
    assert list(again.read(tree.files())) == list(tree.read(tree.files()))


def test_an_empty_part_reads_nothing(tree):
    assert list(tree.read(tree.files().take(np.array([], np.int64)))) == []


def test_layouts_serve_archives_as_they_serve_folders(tree):
    splits = splits_of_tree(tree, "tar")

    assert [tree.member(name) for name in splits["train"].listing.names] == sorted(NAMES)[2:]
    assert splits["train"].label_names == ("cat", "dog")
    assert splits["train"].listing.labels.tolist() == [0, 0, 1]
    assert splits["test"].label_names == ("dog",)
    assert splits["test"].source is tree


def test_a_vanished_archive_rejects_its_images(tree):
    files = tree.files()
    Path(tree.where).unlink()

    assert [item.code for item in tree.read(files)] == ["vanished"] * len(NAMES)


def test_another_archive_in_its_place_never_passes_for_the_listed_one(tree):
    path = Path(tree.where)
    files = tree.files()
    other = {f"x{name}": content[::-1] * 3 for name, content in CONTENTS.items()}
    make_zip(path, other) if isinstance(tree, ZipTree) else make_tar(path, other)

    assert {item.code for item in tree.read(files)} <= {"changed", "damaged_member"}


def test_members_are_hidden_as_files_are(tmp_path):
    members = dict.fromkeys(("a.jpg", "._a.jpg", "__MACOSX/._a.jpg", ".git/b.jpg", "./c.jpg", "d//e.jpg"), b"x")

    assert list(read_all(make_tar(tmp_path / "a.tar", members))) == ["a.jpg", "c.jpg", "d/e.jpg"]
    assert list(read_all(make_zip(tmp_path / "a.zip", members))) == ["a.jpg", "c.jpg", "d/e.jpg"]


def test_a_hash_in_the_name_of_the_archive_is_written_as_percent_23(tmp_path):
    tree = make_tar(tmp_path / "c#.tar", {"a#b.jpg": b"x"})

    assert tree.files().names == ["c%23.tar#a#b.jpg"]
    assert read_all(tree) == {"a#b.jpg": b"x"}


def test_of_members_with_one_name_the_last_counts(tmp_path):
    members = [("a.jpg", b"old"), ("b.jpg", b"b"), ("./a.jpg", b"newer")]
    plain, packed = make_tar(tmp_path / "a.tar", members), make_tar(tmp_path / "a.tar.gz", members)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a.jpg", b"old")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a.jpg", b"new")

    assert read_all(plain) == read_all(packed) == {"a.jpg": b"newer", "b.jpg": b"b"}
    assert read_all(ZipTree(tmp_path / "a.zip")) == {"a.jpg": b"new"}


def test_an_empty_image_and_one_above_the_limit_are_rejected(tree):
    files = tree.files()
    sizes = np.array([0, MAX_MEMBER_BYTES + 1, *files.sizes[2:]])
    part = Listing(names=files.names, sizes=sizes, stamps=files.stamps, keys=files.keys)

    assert list(tree.read(part))[:2] == [
        Rejected("empty", "0 bytes"),
        Rejected("too_large", "100663297 bytes, at most 100663296 are read"),
    ]


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_an_archive_without_files_is_a_source_error(tmp_path, make):
    with pytest.raises(SourceError, match=r"a\.x: no files in this archive, expected images; check the path"):
        make(tmp_path / "a.x", {}).files()


@pytest.mark.parametrize("make", [lambda path: TarTree((path,)), ZipTree])
def test_a_missing_archive_is_a_source_error(tmp_path, make):
    with pytest.raises(SourceError, match=r"a\.x: cannot be opened \(No such file or directory\).*check the path"):
        make(tmp_path / "a.x").files()


@pytest.mark.parametrize("make", [make_tar, make_zip])
@pytest.mark.parametrize("name", ["/etc/a.jpg", "../a.jpg", "x/../../a.jpg"])
def test_a_path_that_leaves_the_archive_keeps_its_line_and_is_rejected(tmp_path, make, name):
    tree = make(tmp_path / "a.bin", {name: b"x", "good.jpg": b"x"})

    assert codes(tree) == {name: "unsafe_name", "good.jpg": "ok"}


# Dispatch


def test_trees_are_told_by_content_not_by_suffix(tmp_path):
    make_tar(tmp_path / "a.zip", CONTENTS)
    make_tar(tmp_path / "b.gz", CONTENTS)
    make_zip(tmp_path / "c.tar", CONTENTS)

    assert open_tree(tmp_path / "a.zip") == (TarTree((tmp_path / "a.zip",)), "tar")
    assert open_tree(tmp_path / "b.gz") == (TarTree((tmp_path / "b.gz",)), "tar")
    assert open_tree(tmp_path / "c.tar") == (ZipTree(tmp_path / "c.tar"), "zip")
    assert open_tree(tmp_path) == (FolderTree(tmp_path), "folder")


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path):
    make_zip(tmp_path / "in.zip", CONTENTS)
    (tmp_path / "a.tar").write_bytes(tar_bytes({"in.zip": (tmp_path / "in.zip").read_bytes()})[:-9216])

    assert open_tree(tmp_path / "a.tar")[1] == "tar"


# Named, as gzip holds the second it was made in: processes that collect at different ones would not agree on the names.
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xd8 a photograph", gzip.compress(b"x" * 2000)], ids=["empty", "photograph", "gzip"]
)
def test_anything_else_is_a_source_error_that_says_what_is_supported(tmp_path, content):
    (tmp_path / "a.bin").write_bytes(content)

    with pytest.raises(
        SourceError, match=r"a\.bin: neither tar nor zip, expected a folder, a \.zip, a \.tar, .*\.tar\.xz"
    ):
        open_tree(tmp_path / "a.bin")


def test_nothing_at_all_is_a_source_error(tmp_path):
    with pytest.raises(SourceError, match=r"gone: No such file or directory, expected a folder, a \.zip"):
        open_tree(tmp_path / "gone")


def test_a_tar_without_members_is_a_tar(tmp_path):
    make_tar(tmp_path / "a.tar", {})

    assert open_tree(tmp_path / "a.tar")[1] == "tar"


def test_a_pipe_is_a_source_error(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(SourceError, match="pipe: a device or pipe"):
        open_tree(tmp_path / "pipe")


def test_a_compressed_tar_cut_in_its_first_block_is_called_broken(tmp_path):
    make_tar(tmp_path / "a.tar.gz", {"a.jpg": np.random.default_rng(0).bytes(900)})
    os.truncate(tmp_path / "a.tar.gz", 40)
    tree, kind = open_tree(tmp_path / "a.tar.gz")

    assert kind == "tar"
    with pytest.raises(SourceError, match=r"broken tar, 0 members read before \(EOFError"):
        tree.files()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="reads zstd")
def test_a_zstd_tar_says_which_python_reads_it(tmp_path):
    (tmp_path / "a.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))

    with pytest.raises(SourceError, match=r"a\.tar\.zst: zstd needs Python 3\.14 or later; .* `zstd -d`"):
        open_tree(tmp_path / "a.tar.zst")
