"""Folders as sources: what is listed and what reading gives."""

import os
import pickle
import re

import numpy as np
import pytest

from sbformat.errors import SourceError
from sbprep.sources.base import Rejected
from sbprep.sources.folder import FolderTree
from sbprep.sources.layout import splits_of_tree
from sbprep.sources.tree import MAX_MEMBER_BYTES
from trees import fill

# Listing


def test_files_are_listed_by_name_in_string_order_with_size_and_stamp(tmp_path):
    tree = fill(tmp_path, "b/2.jpg", "b/10.jpg", "a.txt", "b.png", "B.jpg")
    os.utime(tmp_path / "a.txt", ns=(7, 1_234_567_891))

    files = tree.files()

    assert files.names == ["B.jpg", "a.txt", "b.png", "b/10.jpg", "b/2.jpg"]
    assert files.sizes.tolist() == [5, 5, 5, 8, 7]
    assert files.stamps[1] == 1_234_567_891
    assert files.labels is None
    assert files.sizes.dtype == files.stamps.dtype == np.int64


def test_hidden_files_and_what_macos_leaves_are_not_listed(tmp_path):
    tree = fill(tmp_path, "a.jpg", ".b.jpg", ".git/c.jpg", "__MACOSX/d.jpg", "x/._e.jpg", "x/.f/g.jpg", "_h.jpg")

    assert tree.files().names == ["_h.jpg", "a.jpg"]


def test_a_linked_file_is_listed_with_the_size_of_its_target(tmp_path):
    fill(tmp_path, "elsewhere/long name.jpg")
    tree = fill(tmp_path / "data", "a.jpg")
    (tmp_path / "data/link.jpg").symlink_to(tmp_path / "elsewhere/long name.jpg")

    files = tree.files()

    assert files.names == ["a.jpg", "link.jpg"]
    assert list(tree.read(files)) == [b"a.jpg", b"elsewhere/long name.jpg"]


def test_a_linked_folder_is_not_followed_so_a_loop_ends(tmp_path):
    tree = fill(tmp_path, "x/a.jpg")
    (tmp_path / "x/loop").symlink_to(tmp_path)
    (tmp_path / "x/loop.jpg").symlink_to(tmp_path)

    assert tree.files().names == ["x/a.jpg"]


def test_a_link_that_leads_nowhere_keeps_a_line_and_is_rejected(tmp_path):
    tree = fill(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "nothing.jpg")
    files = tree.files()

    assert files.names == ["a.jpg", "b.jpg"]
    assert list(tree.read(files)) == [b"a.jpg", Rejected("vanished", "No such file or directory")]


def test_a_link_to_itself_is_rejected(tmp_path):
    tree = fill(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "b.jpg")

    assert list(tree.read(tree.files()))[1] == Rejected("unreadable", "Too many levels of symbolic links")


def test_a_pipe_is_not_listed(tmp_path):
    tree = fill(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")

    assert tree.files().names == ["a.jpg"]


@pytest.mark.parametrize("name", ["with space.jpg", "äöü 漢字.jpg", "new\nline.jpg", "tab\t'\".jpg", "a#b.jpg"])
def test_any_name_is_listed_and_read(tmp_path, name):
    tree = fill(tmp_path, f"dir {name}/{name}")
    files = tree.files()

    assert files.names == [f"dir {name}/{name}"]
    assert list(tree.read(files)) == [f"dir {name}/{name}".encode()]


def test_a_name_that_is_not_utf8_is_listed_and_read(tmp_path):
    tree = fill(tmp_path, "caf\udce9/\udcff.jpg")
    files = tree.files()

    assert files.names == ["caf\udce9/\udcff.jpg"]
    assert list(tree.read(files)) == [b"caf\xe9/\xff.jpg"]
    assert splits_of_tree(tree, "folder")["unlabeled"].listing.names == files.names


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing", "No such file or directory"), ("a.jpg", "Not a directory"), ("empty", "no files in this folder")],
)
def test_what_is_no_folder_with_files_is_a_source_error(tmp_path, name, reason):
    fill(tmp_path, "a.jpg")
    (tmp_path / "empty/deep").mkdir(parents=True)

    with pytest.raises(SourceError, match=rf"{re.escape(str(tmp_path / name))}.*{reason}.*check the path"):
        FolderTree(tmp_path / name).files()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_folder_that_may_not_be_read_is_a_source_error(tmp_path):
    tree = fill(tmp_path, "a.jpg", "locked/b.jpg")
    (tmp_path / "locked").chmod(0)

    with pytest.raises(SourceError, match="locked/: Permission denied"):
        tree.files()


# Reading


def test_a_part_is_read_in_its_own_order(tmp_path):
    tree = fill(tmp_path, "a.jpg", "b.jpg", "c.jpg")

    assert list(tree.read(tree.files().take(np.array([2, 0, 2])))) == [b"c.jpg", b"a.jpg", b"c.jpg"]


def test_a_pickled_tree_reads_the_same_bytes(tmp_path):
    tree = fill(tmp_path, "a.jpg", "b/c.jpg")
    files = tree.files()
    again = pickle.loads(pickle.dumps(tree))

    assert again == tree
    assert not again.sequential
    assert list(again.read(files)) == [b"a.jpg", b"b/c.jpg"]


def test_each_bad_file_is_a_reject_and_the_others_are_read(tmp_path):
    tree = fill(tmp_path, "a.jpg", "changed.jpg", "empty.jpg", "folder.jpg", "gone.jpg", "parent/x.jpg", "pipe.jpg")
    (tmp_path / "empty.jpg").write_bytes(b"")
    files = tree.files()
    (tmp_path / "changed.jpg").write_bytes(b"123456789abcd")
    (tmp_path / "gone.jpg").unlink()
    (tmp_path / "folder.jpg").unlink()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "parent/x.jpg").unlink()
    (tmp_path / "parent").rmdir()
    (tmp_path / "parent").write_bytes(b"")
    (tmp_path / "pipe.jpg").unlink()
    os.mkfifo(tmp_path / "pipe.jpg")

    assert list(tree.read(files)) == [
        b"a.jpg",
        Rejected("changed", "listed with 11 bytes, now 13"),
        Rejected("empty", "0 bytes"),
        Rejected("unreadable", "Is a directory"),
        Rejected("vanished", "No such file or directory"),
        Rejected("unreadable", "Not a directory"),
        Rejected("unreadable", "listed as a file, now something else"),
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read_is_rejected(tmp_path):
    tree = fill(tmp_path, "a.jpg")
    (tmp_path / "a.jpg").chmod(0)

    assert list(tree.read(tree.files())) == [Rejected("unreadable", "Permission denied")]


def test_a_file_above_the_limit_is_rejected_unread(tmp_path):
    tree = fill(tmp_path, "a.jpg")
    os.truncate(tmp_path / "a.jpg", MAX_MEMBER_BYTES + 1)

    assert list(tree.read(tree.files())) == [Rejected("too_large", "100663297 bytes, at most 100663296 are read")]
