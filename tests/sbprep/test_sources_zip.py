"""Zips as sources: strange members, damaged ones, and zips that are cut."""

import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sbformat.errors import SourceError
from sbprep.sources.base import Rejected
from sbprep.sources.tree import MAX_MEMBER_BYTES
from sbprep.sources.zipped import ZipTree
from trees import CONTENTS, codes, make_zip, read_all


def flip(path: Path, where: Callable[[bytes], int]) -> None:
    data = bytearray(path.read_bytes())
    data[where(data)] ^= 255
    path.write_bytes(data)


def test_backslashes_in_a_zip_separate_folders(tmp_path):
    tree = make_zip(tmp_path / "a.zip", {"train\\cat\\1.jpg": b"x", "..\\2.jpg": b"x"})

    assert codes(tree) == {"train/cat/1.jpg": "ok", "../2.jpg": "unsafe_name"}


def test_a_symbolic_link_in_a_zip_is_rejected(tmp_path):
    link = zipfile.ZipInfo("soft.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
        file.writestr("good.jpg", b"x")
        file.mkdir("folder.jpg")

    assert codes(ZipTree(tmp_path / "a.zip")) == {"good.jpg": "ok", "soft.jpg": "not_a_file"}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_of_a_zip_is_rejected_and_the_others_are_read(tmp_path, method):
    members = {f"{i}.jpg": np.random.default_rng(i).bytes(600) for i in range(3)}
    tree = make_zip(tmp_path / "a.zip", members, method)
    flip(tmp_path / "a.zip", lambda data: data.index(b"1.jpg") + 300)

    items = list(tree.read(tree.files()))

    assert items[0] == members["0.jpg"]
    assert items[1].code == "damaged_member"
    assert items[2] == members["2.jpg"]


def test_a_zip_member_without_its_own_header_is_rejected(tmp_path):
    tree = make_zip(tmp_path / "a.zip", {"a.jpg": b"a", "b.jpg": b"b"})
    flip(tmp_path / "a.zip", lambda data: data.index(b"b.jpg") - 30)

    assert codes(tree) == {"a.jpg": "ok", "b.jpg": "damaged_member"}


def test_an_encrypted_member_is_rejected(tmp_path):
    tree = make_zip(tmp_path / "a.zip", {"a.jpg": b"a", "b.jpg": b"b"})
    data = bytearray((tmp_path / "a.zip").read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)

    assert codes(tree) == {"a.jpg": "ok", "b.jpg": "encrypted"}


def test_a_member_of_another_method_is_rejected_with_the_remedy(tmp_path):
    tree = make_zip(tmp_path / "a.zip", {"a.jpg": b"a" * 99}, zipfile.ZIP_LZMA)

    assert list(tree.read(tree.files())) == [
        Rejected("unreadable", "compressed by another method than deflate; unzip the archive to a folder")
    ]


def test_a_bomb_is_inflated_no_further_than_it_declares(tmp_path):
    tree = make_zip(tmp_path / "a.zip", {"a.jpg": bytes(50_000_000)})
    data = bytearray((tmp_path / "a.zip").read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = struct.pack("<I", 1000)
    (tmp_path / "a.zip").write_bytes(data)
    files = tree.files()

    assert files.sizes.tolist() == [1000]
    assert [item.code for item in tree.read(files)] == ["damaged_member"]


@pytest.mark.parametrize("field", [20, 24])
def test_a_member_that_declares_too_much_is_rejected_unread(tmp_path, field):
    tree = make_zip(tmp_path / "a.zip", {"a.jpg": b"a" * 99})
    data = bytearray((tmp_path / "a.zip").read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    data[directory + field : directory + field + 4] = struct.pack("<I", MAX_MEMBER_BYTES + 1)
    (tmp_path / "a.zip").write_bytes(data)

    assert list(tree.read(tree.files())) == [Rejected("too_large", "100663297 bytes, at most 100663296 are read")]


def test_a_zip_after_something_else_in_the_file_is_read(tmp_path):
    tree = make_zip(tmp_path / "a.zip", CONTENTS)
    (tmp_path / "a.zip").write_bytes(b"#!self-extracting\n" * 9 + (tmp_path / "a.zip").read_bytes())

    assert read_all(tree) == CONTENTS


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_cut_zip_is_a_source_error(tmp_path, share):
    tree = make_zip(tmp_path / "a.zip", CONTENTS)
    os.truncate(tmp_path / "a.zip", int((tmp_path / "a.zip").stat().st_size * share))

    with pytest.raises(SourceError, match=r"a\.zip: broken zip \(.*\), 0 members read; copy or download it again"):
        tree.files()


def test_a_zip_without_its_beginning_is_a_source_error(tmp_path):
    tree = make_zip(tmp_path / "a.zip", CONTENTS)
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes()[100:])

    with pytest.raises(SourceError, match="broken zip"):
        tree.files()
