"""Archives as sources: tar, zip and WebDataset, whole and damaged, friendly and not."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import re
import stat
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sbformat.errors import SourceError
from sbprep.sources import archive
from sbprep.sources.archive import TarTree, ZipTree, is_webdataset, open_tree, webdataset_splits
from sbprep.sources.base import Listing, Rejected
from sbprep.sources.folder import MAX_MEMBER_BYTES, FolderTree, one_split_of_tree, splits_of_tree

NAMES = [
    "train/dog/with space.jpg",
    "train/cat/äöü 漢字.png",
    "train/cat/new\nline.jpg",
    "test/dog/a#b.jpg",
    "readme.md",
]
CONTENTS = {name: (name * 100).encode() for name in NAMES}
COMPRESSORS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def tar_bytes(members: dict[str, bytes] | list[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, encoding="utf-8") as tar:
        for name, content in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def make_tar(path: Path, members: dict[str, bytes] | list[tuple[str, bytes]]) -> TarTree:
    """Write a tar, compressed if the last suffix says so."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(COMPRESSORS.get(path.suffix[1:], bytes)(tar_bytes(members)))
    return TarTree((path,))


def make_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> ZipTree:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return ZipTree(path)


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


def read_all(tree: FolderTree | TarTree | ZipTree) -> dict[str, object]:
    files = tree.files()
    return dict(zip([tree.member(name) for name in files.names], tree.read(files), strict=True))


def codes(tree: TarTree | ZipTree) -> dict[str, str]:
    """Return reject code, or 'ok', of each image as a layout lists them."""
    split = one_split_of_tree(tree, "x", "unlabeled")
    items = zip(split.listing.names, tree.read(split.listing), strict=True)
    return {tree.member(name): item.code if isinstance(item, Rejected) else "ok" for name, item in items}


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
        Rejected("too_large", "268435457 bytes, at most 268435456 are read"),
    ]


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_an_archive_without_files_is_a_source_error(tmp_path, make):
    with pytest.raises(SourceError, match=r"a\.x: no files in this archive, expected images; check the path"):
        make(tmp_path / "a.x", {}).files()


@pytest.mark.parametrize("make", [lambda path: TarTree((path,)), ZipTree])
def test_a_missing_archive_is_a_source_error(tmp_path, make):
    with pytest.raises(SourceError, match=r"a\.x: cannot be opened \(No such file or directory\).*check the path"):
        make(tmp_path / "a.x").files()


# Unsafe and strange members


@pytest.mark.parametrize("make", [make_tar, make_zip])
@pytest.mark.parametrize("name", ["/etc/a.jpg", "../a.jpg", "x/../../a.jpg"])
def test_a_path_that_leaves_the_archive_keeps_its_line_and_is_rejected(tmp_path, make, name):
    tree = make(tmp_path / "a.bin", {name: b"x", "good.jpg": b"x"})

    assert codes(tree) == {name: "unsafe_name", "good.jpg": "ok"}


def test_backslashes_in_a_zip_separate_folders(tmp_path):
    tree = make_zip(tmp_path / "a.zip", {"train\\cat\\1.jpg": b"x", "..\\2.jpg": b"x"})

    assert codes(tree) == {"train/cat/1.jpg": "ok", "../2.jpg": "unsafe_name"}


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


def test_a_symbolic_link_in_a_zip_is_rejected(tmp_path):
    link = zipfile.ZipInfo("soft.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
        file.writestr("good.jpg", b"x")
        file.mkdir("folder.jpg")

    assert codes(ZipTree(tmp_path / "a.zip")) == {"good.jpg": "ok", "soft.jpg": "not_a_file"}


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


# Tars


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
    monkeypatch.setattr(archive, "_OPEN_TARS", 2)
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


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="reads zstd")
def test_a_zstd_tar_says_which_python_reads_it(tmp_path):
    (tmp_path / "a.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))

    with pytest.raises(SourceError, match=r"a\.tar\.zst: zstd needs Python 3\.14 or later; .* `zstd -d`"):
        open_tree(tmp_path / "a.tar.zst")


# Zips


def flip(path: Path, where: Callable[[bytes], int]) -> None:
    data = bytearray(path.read_bytes())
    data[where(data)] ^= 255
    path.write_bytes(data)


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

    assert list(tree.read(tree.files())) == [Rejected("too_large", "268435457 bytes, at most 268435456 are read")]


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


@pytest.mark.parametrize("content", [b"", b"\xff\xd8 a photograph", gzip.compress(b"x" * 2000)])
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


# WebDataset


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
