"""Tars as sources: every dialect, several at once, whole and broken, before and after listing."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from sbformat.errors import SourceError
from sbprep.sources import tar
from sbprep.sources.base import Rejected
from sbprep.sources.tar import TarTree
from trees import COMPRESSORS, CONTENTS, codes, make_tar, read_all, tar_bytes


def tar_with(path: Path, *specials: tarfile.TarInfo) -> TarTree:
    """Write a tar of members without content, and one good image."""
    with tarfile.open(path, "w") as tar:
        for info in specials:
            tar.addfile(info)
        good = tarfile.TarInfo("good.jpg")
        good.size = 4
        tar.addfile(good, io.BytesIO(b"good"))
    return TarTree((path,))


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


# Members that are no files


@pytest.mark.parametrize("compressed", [False, True])
def test_links_devices_and_pipes_in_a_tar_are_rejected(tmp_path, compressed):
    tree = tar_with(
        tmp_path / "a.tar",
        special("soft.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard.jpg", tarfile.LNKTYPE, "good.jpg"),
        special("pipe.jpg", tarfile.FIFOTYPE),
        special("disk.jpg", tarfile.BLKTYPE),
        special("folder.jpg", tarfile.DIRTYPE),
        special("soft link", tarfile.SYMTYPE, "good.jpg"),
    )
    if compressed:
        path = tmp_path / "a.tar"
        path.write_bytes(gzip.compress(path.read_bytes()))

    assert codes(tree) == {
        "disk.jpg": "not_a_file",
        "good.jpg": "ok",
        "hard.jpg": "not_a_file",
        "pipe.jpg": "not_a_file",
        "soft.jpg": "not_a_file",
    }


def test_a_sparse_member_of_a_tar_is_rejected(tmp_path):
    block = bytearray(tar_bytes({"holes.jpg": b"x" * 512, "good.jpg": b"x"}, tarfile.GNU_FORMAT))
    block[156:157] = tarfile.GNUTYPE_SPARSE
    block[386:410] = b"%011o\0%011o\0" % (0, 512)
    block[483:495] = b"%011o\0" % 4096
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:512]) + 8 * 32)
    (tmp_path / "a.tar").write_bytes(block)

    assert codes(TarTree((tmp_path / "a.tar",))) == {"good.jpg": "ok", "holes.jpg": "not_a_file"}


# Reading


def test_only_compressed_tars_are_sequential(tmp_path):
    plain, packed = make_tar(tmp_path / "a.tar", CONTENTS), make_tar(tmp_path / "b.tar.xz", CONTENTS)

    assert not plain.sequential
    assert packed.sequential
    assert TarTree((*plain.paths, *packed.paths)).sequential


def test_several_tars_are_one_tree(tmp_path):
    first = make_tar(tmp_path / "a.tar", {"1.jpg": b"a1", "2.jpg": b"a2"})
    second = make_tar(tmp_path / "b.tar.gz", {"1.jpg": b"b1", "0.jpg": b"b0"})
    tree = TarTree((*second.paths, *first.paths))
    files = tree.files()

    assert files.names == ["a.tar#1.jpg", "a.tar#2.jpg", "b.tar.gz#0.jpg", "b.tar.gz#1.jpg"]
    assert list(tree.read(files.take(np.array([3, 1, 2, 0])))) == [b"b1", b"a2", b"b0", b"a1"]
    assert tree.where == f"{tmp_path}/b.tar.gz and 1 more"


def test_more_tars_are_read_than_are_held_open(tmp_path, monkeypatch):
    monkeypatch.setattr(tar, "_OPEN_TARS", 2)
    tree = TarTree(tuple(make_tar(tmp_path / f"{i}.tar", {"a.jpg": b"%d" % i}).paths[0] for i in range(5)))
    files = tree.files()

    assert list(tree.read(files.take(np.array([4, 0, 3, 1, 2, 0])))) == [b"4", b"0", b"3", b"1", b"2", b"0"]


def test_two_tars_of_one_name_are_a_source_error(tmp_path):
    paths = [make_tar(tmp_path / folder / "a.tar", CONTENTS).paths[0] for folder in ("x", "y")]

    with pytest.raises(SourceError, match="two tars have the same file name"):
        TarTree(tuple(paths)).files()


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_dialect_of_tar_is_read(tmp_path, format):
    members = {f"{'long/' * 25}{i}.jpg": bytes([i]) * 700 for i in range(3)}
    (tmp_path / "a.tar").write_bytes(tar_bytes(members, format))

    assert read_all(TarTree((tmp_path / "a.tar",))) == members


def test_a_name_that_is_not_utf8_survives(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_bytes({"caf#.jpg": b"x"}, tarfile.USTAR_FORMAT))
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[3] = 0xE9
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + sum(data[156:512]) + 8 * 32)
    (tmp_path / "a.tar").write_bytes(data)

    assert read_all(TarTree((tmp_path / "a.tar",))) == {"caf\udce9.jpg": b"x"}


def test_a_plain_tar_may_lack_the_blocks_that_mark_its_end(tmp_path):
    members = {f"{i}.jpg": bytes([i + 1]) * 600 for i in range(3)}
    path = tmp_path / "a.tar"
    for cut in (4608, 5120, 5248, 10240):
        path.write_bytes(tar_bytes(members)[:cut])

        assert read_all(TarTree((path,))) == members


# Broken tars


def test_a_plain_tar_cut_anywhere_else_is_a_source_error(tmp_path):
    """Save between two members (1536 bytes each), where nothing but the end marks would tell."""
    whole = tar_bytes({f"{i}.jpg": bytes([i + 1]) * 600 for i in range(3)})
    path = tmp_path / "a.tar"
    for cut in {*range(0, 5120, 128)} - {1536, 3072, 4608}:
        path.write_bytes(whole[:cut])
        with pytest.raises(SourceError, match=r"a\.tar: broken tar, \d members read before .*download it again"):
            TarTree((path,)).files()


def test_the_error_of_a_broken_tar_counts_the_members_before(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes({f"{i}.jpg": b"x" * 600 for i in range(3)})[: 2 * 1536 + 700])

    with pytest.raises(SourceError, match=r"a\.tar: broken tar, [23] members read before \(ReadError: unexpected end"):
        TarTree((path,)).files()


def test_a_damaged_header_amid_a_tar_is_not_taken_for_its_end(tmp_path):
    data = bytearray(tar_bytes({f"{i}.jpg": b"x" * 600 for i in range(3)}))
    data[1536 + 5] ^= 1
    (tmp_path / "a.tar").write_bytes(data)

    with pytest.raises(
        SourceError, match=r"broken tar, 1 members read before \(ReadError: bad checksum at byte 1536\)"
    ):
        TarTree((tmp_path / "a.tar",)).files()


@pytest.mark.parametrize("compress", COMPRESSORS.values())
def test_a_compressed_tar_cut_anywhere_is_a_source_error(tmp_path, compress):
    whole = compress(tar_bytes({f"{i}.jpg": np.random.default_rng(i).bytes(600) for i in range(3)}))
    path = tmp_path / "a.tar.z"
    for cut in range(1, len(whole), 61):
        path.write_bytes(whole[:cut])
        with pytest.raises(SourceError, match=r"a\.tar\.z: broken tar, \d members read before .*download it again"):
            TarTree((path,)).files()


@pytest.mark.parametrize("compress", COMPRESSORS.values())
def test_a_flipped_byte_in_a_compressed_tar_is_a_source_error(tmp_path, compress):
    whole = compress(tar_bytes({f"{i}.jpg": np.random.default_rng(i).bytes(600) for i in range(3)}))
    path = tmp_path / "a.tar.z"
    for where in range(40, len(whole), 97):
        path.write_bytes(whole[:where] + bytes([whole[where] ^ 255]) + whole[where + 1 :])
        with pytest.raises(SourceError, match="broken tar"):
            TarTree((path,)).files()


def test_an_extended_header_that_points_backwards_does_not_hang(tmp_path):
    first = tarfile.TarInfo("a.jpg")
    first.pax_headers = {"size": "-2048"}
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(first)
        tar.addfile(tarfile.TarInfo("b.jpg"))

    with pytest.raises(SourceError, match=r"broken tar, \d members read before"):
        TarTree((tmp_path / "a.tar",)).files()


def test_a_negative_size_does_not_hang(tmp_path):
    data = bytearray(tar_bytes({"a.jpg": b"x" * 512, "b.jpg": b"x"}))
    data[124:136] = b"\xff" * 12  # -1 in the binary notation
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + sum(data[156:512]) + 8 * 32)
    (tmp_path / "a.tar").write_bytes(data)

    with pytest.raises(SourceError, match="broken tar, 0 members"):
        TarTree((tmp_path / "a.tar",)).files()


def test_a_name_of_gigabytes_is_refused(tmp_path):
    data = bytearray(tar_bytes({"a" * 200: b"x"}, tarfile.GNU_FORMAT))
    data[124:136] = b"\x80" + (1 << 60).to_bytes(11, "big")
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + sum(data[156:512]) + 8 * 32)
    (tmp_path / "a.tar").write_bytes(data)

    with pytest.raises(SourceError, match="broken tar, 0 members"):
        TarTree((tmp_path / "a.tar",)).files()


def test_what_is_no_tar_is_a_source_error(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"\xff\xd8 a photograph" * 100)

    with pytest.raises(SourceError, match=r"a\.tar: broken tar, 0 members read before"):
        TarTree((tmp_path / "a.tar",)).files()


def test_a_compressed_tar_cut_after_listing_gives_what_is_left(tmp_path):
    members = {f"{i}.jpg": np.random.default_rng(i).bytes(100_000) for i in range(4)}
    tree = make_tar(tmp_path / "a.tar.gz", members)
    files = tree.files()
    os.truncate(tmp_path / "a.tar.gz", 270_000)
    items = list(tree.read(files))

    assert items[:2] == [members["0.jpg"], members["1.jpg"]]
    assert [item.code for item in items[2:]] == ["changed", "changed"]


def test_members_that_a_compressed_tar_lost_after_listing_are_rejected(tmp_path):
    tree = make_tar(tmp_path / "a.tar.xz", {"0.jpg": b"0", "1.jpg": b"1"})
    files = tree.files()
    make_tar(tmp_path / "a.tar.xz", {"0.jpg": b"0"})

    assert list(tree.read(files)) == [b"0", Rejected("changed", "fewer members in the tar than were listed")]


def test_a_plain_tar_cut_after_listing_gives_what_is_left(tmp_path):
    tree = make_tar(tmp_path / "a.tar", {"0.jpg": b"0" * 900, "1.jpg": b"1" * 900})
    files = tree.files()
    os.truncate(tmp_path / "a.tar", 2500)

    assert list(tree.read(files)) == [
        b"0" * 900,
        Rejected("changed", "listed with 900 bytes at byte 2048 of the tar, now something else is there"),
    ]
