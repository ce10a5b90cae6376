"""Files and folders are whole and durable, or not there."""

import os
import resource
import signal
from pathlib import Path

import pytest

from sbformat import durable
from sbformat.durable import make_folder, write_atomically


def test_writing_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"one")
    write_atomically(tmp_path / "file", b"two")

    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"two"


def test_whoever_reads_the_old_file_reads_it_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        write_atomically(path, b"new")

        assert reader.read() == b"old"


def test_content_is_on_the_disk_before_the_name_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    seen: list[tuple[bytes | None, bytes]] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        synced = Path(f"/proc/self/fd/{descriptor}").resolve()
        seen.append((synced.read_bytes() if synced.is_file() else None, path.read_bytes()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write_atomically(path, b"new")

    assert seen == [(b"new", b"old"), (None, b"new")]  # the file under another name, then the folder


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # as good as a full disk
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomically(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)

    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_every_folder_that_is_made_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(durable, "fsync_path", synced.append)
    (tmp_path / "there").mkdir()
    make_folder(tmp_path / "there/one/two")
    make_folder(tmp_path / "there/one/two")

    assert (tmp_path / "there/one/two").is_dir()
    assert synced == [tmp_path / "there", tmp_path / "there/one"]


def test_a_relative_folder_is_made_durable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_folder(Path("one/two"))

    assert (tmp_path / "one/two").is_dir()


def test_a_folder_cannot_be_made_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    for path in (tmp_path / "file", tmp_path / "file/deeper"):
        with pytest.raises(OSError, match=r"Not a directory|File exists"):
            make_folder(path)
