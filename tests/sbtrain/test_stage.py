"""Shards copied beside training: a copy is whole and used, or not there, and no batch changes by a bit."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from builds import environment, largest_file
from ranked import plain, run_ranks
from runs import command, outcome
from sbformat.manifest import Manifest, open_manifest
from sbtrain.cli import main
from sbtrain.data import Loader, Order, SplitReader, reside
from sbtrain.run_folder import data_record
from sbtrain.stage import Stage, StageError, _Lock

NAMES = ("image", "target_single", "target_dual")


class Staged:
    """A reader of small shards and what stages them to `root`."""

    def __init__(self, manifest: Manifest, root: Path) -> None:
        self.manifest, self.said = manifest, list[str]()
        self.reader = SplitReader(manifest, "unlabeled", NAMES)
        digest = data_record(manifest, "unlabeled")["digest"]
        self.stage = Stage(root, manifest, "unlabeled", digest, self.reader, self.said.append)
        self.loader = Loader(reside("mmap", self.reader, torch.device("cpu")), Order(len(self.reader), 0), 8)

    @property
    def copies(self) -> list[Path]:
        return sorted((self.stage.folder / "unlabeled").iterdir())

    def batches(self) -> list[list[bytes]]:
        return [[rows.numpy().tobytes() for rows in b.fields.values()] for b in self.loader.batches(0, 12)]


@pytest.fixture
def staged(own_shards: Path, tmp_path: Path) -> Staged:
    return Staged(open_manifest(own_shards, "lab"), tmp_path / "local")


def sources(staged: Staged) -> list[Path]:
    return sorted((staged.manifest.root / "unlabeled").glob("*.h5"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)


def test_copies_are_whole_and_a_folder_of_shards_themselves(staged: Staged) -> None:
    staged.stage.fill()

    assert [copy.read_bytes() for copy in staged.copies] == [path.read_bytes() for path in sources(staged)]
    assert open_manifest(staged.stage.folder).splits.keys() == staged.manifest.splits.keys()
    assert staged.said == [f"all 3 shards are read from {staged.stage.folder} now"]


def test_batches_are_the_same_bits_before_while_and_after(staged: Staged) -> None:
    before = staged.batches()
    with staged.stage.beside():
        beside = staged.batches()
        wait_until(lambda: bool(staged.said))

    assert beside == before
    assert staged.batches() == before


def test_afterwards_only_the_copies_are_read(staged: Staged) -> None:
    before = staged.batches()
    staged.stage.fill()
    for path in sources(staged):
        path.write_bytes(bytes(path.stat().st_size))  # in place: whoever maps it sees zeros

    assert staged.batches() == before


def test_a_second_run_uses_the_copies_that_are_there(staged: Staged, tmp_path: Path) -> None:
    staged.stage.fill()
    there = [copy.stat().st_mtime_ns for copy in staged.copies]

    again = Staged(staged.manifest, tmp_path / "local")
    again.stage.fill()

    assert [copy.stat().st_mtime_ns for copy in again.copies] == there
    assert again.said == staged.said


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_copy_is_never_read_but_made_again(damage: str, staged: Staged, tmp_path: Path) -> None:
    before = staged.batches()
    staged.stage.fill()
    victim = staged.copies[1]
    if damage == "flipped":
        flip(victim)
    else:
        os.truncate(victim, victim.stat().st_size // 2 if damage == "cut" else 0)

    again = Staged(staged.manifest, tmp_path / "local")
    with again.stage.beside():
        assert again.batches() == before
        wait_until(lambda: bool(again.said))

    assert victim.read_bytes() == sources(staged)[1].read_bytes()


def test_killed_while_it_copies_it_leaves_nothing_that_is_read(staged: Staged) -> None:
    before = staged.batches()
    code = (
        "import os, signal, sys; from pathlib import Path; import sbtrain.stage as s; from test_stage import *\n"
        "write, calls = s._write, []\n"
        "def dying(file, block):\n"
        "    calls.append(1)\n"
        "    write(file, block[:1000] if len(calls) == 2 else block)\n"
        "    len(calls) == 2 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "s._write = dying\n"
        "Staged(open_manifest(Path(sys.argv[1])), Path(sys.argv[2])).stage.fill()\n"
    )
    paths = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    killed = subprocess.run(
        [sys.executable, "-c", code, str(staged.manifest.root), str(staged.stage.folder.parent)],
        env=environment(PYTHONPATH=paths), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [copy.suffix for copy in staged.copies] == [".tmp", ".h5"]

    staged.stage.fill()

    assert [copy.name for copy in staged.copies] == [path.name for path in sources(staged)]
    assert staged.batches() == before


def test_a_full_disk_is_told_and_the_rest_comes_from_the_source(staged: Staged) -> None:
    before = staged.batches()
    with largest_file(sources(staged)[0].stat().st_size - 1):
        staged.stage.try_to_fill(lambda: False)

    assert "copying ends here" in staged.said[-1]
    assert staged.copies == []
    assert staged.batches() == before


def test_one_process_of_a_machine_copies_and_the_others_take_what_appears(staged: Staged, tmp_path: Path) -> None:
    follower = Staged(staged.manifest, tmp_path / "local")
    with _Lock(staged.stage.folder / ".lock") as lock:
        assert lock.take()
        with follower.stage.beside():
            time.sleep(0.5)
            assert follower.copies == []
            for path in sources(staged):
                (staged.stage.folder / "unlabeled" / path.name).write_bytes(path.read_bytes())
            wait_until(lambda: bool(follower.said))

    assert follower.said == [f"all 3 shards are read from {follower.stage.folder} now"]


def test_where_the_one_that_copied_is_gone_another_goes_on(staged: Staged, tmp_path: Path) -> None:
    follower = Staged(staged.manifest, tmp_path / "local")
    with ExitStack() as stack:
        with _Lock(staged.stage.folder / ".lock") as lock:
            assert lock.take()
            stack.enter_context(follower.stage.beside())
        wait_until(lambda: bool(follower.said))

    assert len(follower.copies) == 3


def test_a_damaged_source_is_told_and_not_copied(staged: Staged) -> None:
    flip(sources(staged)[1])

    staged.stage.fill()

    assert [copy.name for copy in staged.copies] == ["shard-00000.h5", "shard-00002.h5"]
    assert "shard-00001.h5: not the manifest's bytes" in staged.said[0]


def test_copies_of_other_images_are_kept_apart(staged: Staged, rescaled: Manifest, tmp_path: Path) -> None:
    assert Staged(rescaled, tmp_path / "local").stage.folder != staged.stage.folder


def test_a_folder_that_cannot_be_made_is_an_error(staged: Staged, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StageError, match="Use another --stage"):
        Staged(staged.manifest, tmp_path / "file")


@pytest.mark.parametrize("cache", ["mmap", "host"])
def test_a_staged_run_ends_with_the_same_bits(cache: str, shards: Path, undisturbed: Path, tmp_path: Path) -> None:
    arguments = command(shards / "lab", tmp_path / "run", "--stage", str(tmp_path / "local"), "--cache", cache)

    result = CliRunner().invoke(main, arguments)

    assert result.exit_code == 0, result.output
    assert outcome(tmp_path / "run") == outcome(undisturbed)


def test_ranks_of_one_machine_share_the_copies(shards: Path, tmp_path: Path) -> None:
    ranks = run_ranks(tmp_path, plain(shards, tmp_path / "run", "--stage", str(tmp_path / "local"), "--cache", "host"))

    assert [rank.code for rank in ranks] == [0, 0]
    assert "all 3 shards are read from" in ranks[0].output
    assert len(list((tmp_path / "local").glob("lab-*/unlabeled/*.h5"))) == 3
