"""Failures of the machine are no rejects; what a pass puts aside; prepared shards are no source."""

import errno
import os
import resource
import shutil
import tarfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from builds import small_config, write_images
from sbformat.errors import BuildError, SourceError
from sbprep.pipeline import build
from sbprep.sources import open_splits, spill
from sbprep.sources.base import Listing, Rejected
from sbprep.sources.failures import MachineError, Naming, raise_if_machine, refusal_of
from sbprep.sources.folder import FolderTree
from sbprep.sources.records import RecordFiles
from sbprep.sources.spill import Spill
from sbprep.sources.tar import TarTree
from sbprep.sources.zipped import ZipTree


@contextmanager
def no_more_files():
    """Let this process open no further file, as where a limit of the system is reached (EMFILE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def files_of_at_most(size):
    """Let this process write no file beyond so many bytes (EFBIG), which is like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def packed(path, folder, mode):
    with tarfile.open(path, mode) as tar:
        tar.add(folder, ".")
    return path


def sources(folder, tmp_path):
    shutil.make_archive(str(tmp_path / "a"), "zip", folder)
    yield FolderTree(folder)
    yield ZipTree(tmp_path / "a.zip")
    yield TarTree((packed(tmp_path / "a.tar", folder, "w"),))
    yield TarTree((packed(tmp_path / "a.tar.gz", folder, "w:gz"),))


# Errors of the machine


@pytest.mark.parametrize("kind", range(4), ids=["folder", "zip", "tar", "tar.gz"])
def test_no_free_descriptor_ends_the_build_and_rejects_nothing(tmp_path, kind):
    source = list(sources(write_images(tmp_path / "photos", 3), tmp_path))[kind]
    files = source.files()

    with (
        no_more_files(),
        pytest.raises(MachineError, match=r"EMFILE \(Too many open files\).*run the same command again"),
    ):
        list(source.read(files))
    assert all(isinstance(item, bytes) for item in source.read(files))


def test_records_that_the_disk_does_not_give_are_named_with_file_and_byte():
    """Linux answers EIO where a process reads its own memory at an address that holds nothing."""
    memory = Path("/proc/self/mem")
    source = RecordFiles(paths=(memory,), shape=(3, 2, 2), axes=(1, 2, 0))
    stamps = np.array([memory.stat().st_mtime_ns])
    part = Listing(names=["mem#0"], sizes=np.array([12]), stamps=stamps, keys=np.array([[0, 64]]))

    with pytest.raises(MachineError, match=r"/proc/self/mem, byte 64: EIO \(Input/output error\)"):
        list(source.read(part))


def test_records_given_in_bits_are_put_together(tmp_path, monkeypatch):
    content = np.arange(24, dtype=np.uint8)
    content.tofile(tmp_path / "a.bin")
    source = RecordFiles(paths=(tmp_path / "a.bin",), shape=(3, 2, 2), axes=(1, 2, 0))
    stamps = np.full(2, (tmp_path / "a.bin").stat().st_mtime_ns)
    keys = np.array([[0, 12], [0, 20]])
    part = Listing(names=["a#1", "a#2"], sizes=np.full(2, 12), stamps=stamps, keys=keys)
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, views, offset: preadv(file, [views[0][:5]], offset))

    whole, cut = source.read(part)
    np.testing.assert_array_equal(whole, content[12:].reshape(3, 2, 2).transpose(1, 2, 0))
    assert (cut.code, "4 of 12 bytes" in cut.detail) == ("changed", True)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.ENFILE])
def test_an_error_of_the_machine_is_a_source_error_with_its_name(number):
    with pytest.raises(SourceError, match=rf"a\.jpg: {errno.errorcode[number]} "):
        refusal_of(OSError(number, "x"), "a.jpg")


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOENT, "vanished"), (errno.EACCES, "unreadable"), (errno.EISDIR, "unreadable")]
)
def test_an_error_of_the_file_is_a_reject(number, code):
    assert refusal_of(OSError(number, os.strerror(number)), "a.jpg") == Rejected(code, os.strerror(number))


def test_running_out_of_memory_names_the_image():
    with (
        pytest.raises(MachineError, match=r"train/cat/1\.jpg: out of memory .* fewer --workers"),
        Naming("train/cat/1.jpg"),
    ):
        raise MemoryError


def test_other_errors_pass_unchanged():
    raise_if_machine(ValueError("x"), "a.jpg")
    with pytest.raises(ZeroDivisionError), Naming("a.jpg"):
        raise ZeroDivisionError


# Spill


@pytest.mark.parametrize("in_memory", [0, 10, 1000])
def test_what_is_put_aside_is_given_back_in_any_order(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(spill, "IN_MEMORY", in_memory)
    items = {number: bytes([number]) * number for number in range(9)}
    lost = Rejected("changed", "x")
    with Spill(tmp_path) as kept:
        for number, item in items.items():
            kept.put(number, item)
        kept.put("lost", lost)

        assert {number: kept.get(number) for number in reversed(items)} == items
        assert kept.get("lost") == lost
        assert list(tmp_path.iterdir()) == []  # the file has no name: nothing is left whatever happens


def test_a_spill_without_room_is_a_build_error_with_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(spill, "IN_MEMORY", 0)
    with Spill(tmp_path) as kept, files_of_at_most(1000):
        kept.put(1, b"x" * 900)
        with pytest.raises(
            BuildError, match=rf"{tmp_path}: no temporary file of 1,100 bytes .*beside the shards.* make room"
        ):
            kept.put(2, b"x" * 200)


def test_a_build_lets_passes_spill_into_its_output_folder(tmp_path):
    archive = packed(tmp_path / "a.tar.gz", write_images(tmp_path / "photos", 3), "w:gz")
    splits = open_splits(small_config(archive, tmp_path / "out"))

    assert splits["train"].source.scratch == tmp_path / "out"


def test_images_beyond_memory_make_the_same_shards(tmp_path, monkeypatch):
    archive = packed(tmp_path / "a.tar.gz", write_images(tmp_path / "photos", 40), "w:gz")
    build(small_config(archive, tmp_path / "one"))
    monkeypatch.setattr(spill, "IN_MEMORY", 0)
    build(small_config(archive, tmp_path / "two"))
    shards = [sorted(path.read_bytes() for path in (tmp_path / name).rglob("*.h5")) for name in ("one", "two")]

    assert shards[0] == shards[1]
    assert len(shards[0]) == 3


# Prepared shards


@pytest.mark.parametrize("inside", ["", "rgb", "rgb/train"])
def test_the_output_of_a_build_is_no_source(tmp_path, inside):
    build(small_config(write_images(tmp_path / "photos", 3), tmp_path / "out"))

    with pytest.raises(
        SourceError, match=r"out.*: holds shards that sbprep build wrote .*expected images; give the images"
    ):
        open_splits(small_config(tmp_path / "out" / inside, tmp_path / "other"))


def test_an_unfinished_build_is_no_source(tmp_path):
    build(small_config(write_images(tmp_path / "photos", 40), tmp_path / "out", partition=(1, 2)))

    with pytest.raises(SourceError, match="holds shards that sbprep build wrote"):
        open_splits(small_config(tmp_path / "out", tmp_path / "other"))


def test_a_shard_is_no_source(tmp_path):
    build(small_config(write_images(tmp_path / "photos", 3), tmp_path / "out"))
    shard = next((tmp_path / "out").rglob("*.h5"))

    with pytest.raises(SourceError, match=r"\.h5: a shard that sbprep build wrote, expected images"):
        open_splits(small_config(shard, tmp_path / "other"))


def test_a_manifest_of_somebody_else_does_no_harm(tmp_path):
    write_images(tmp_path / "photos", 3)
    (tmp_path / "photos" / "manifest.json").write_text('{"format": "other"}')

    assert len(open_splits(small_config(tmp_path / "photos", tmp_path / "out"))["train"].listing) == 3
