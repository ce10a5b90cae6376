"""Who connects to the first rank, and who does not."""

import queue
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from builds import environment
from dask_clusters import wait_until
from ranked import plain
from runs import checkpoints
from sbtrain.ranks import watch
from sbtrain.ranks.meeting import RankError
from sbtrain.ranks.watch import Watch
from sbtrain.runtime import only_one


@pytest.fixture(autouse=True)
def address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")


def test_a_rank_that_dies_before_it_connects_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "CONNECT", 0.2)

    with pytest.raises(RankError, match=r"of the ranks that had met, 1, 2 did not connect within 0 s"):
        Watch(0, 3, lambda value: value)


def test_a_first_rank_that_does_not_answer_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    with pytest.raises(RankError, match=f"rank 0 does not answer at 127.0.0.1:{port}"):
        Watch(1, 2, lambda _: [port, "0" * 32])


def test_a_stranger_that_says_nothing_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "HELLO", 0.2)
    told: queue.Queue[Any] = queue.Queue()
    strangers: list[socket.socket] = []
    others: list[Watch] = []

    def from_first(value: Any) -> Any:  # the stranger comes before rank 1
        strangers.append(socket.create_connection(("127.0.0.1", value[0])))
        told.put(value)
        return value

    thread = threading.Thread(target=lambda: others.append(Watch(1, 2, lambda _: told.get())))
    thread.start()
    first = Watch(0, 2, from_first)
    thread.join()

    for each in (first, *others):
        each.close()
    for stranger in strangers:
        stranger.close()
    assert len(others) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_ranks_save_and_end_where_torchrun_is_killed(shards: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "sbtrain"]
    more = ("--epochs", "5000", "--checkpoint-every", "100000", "--keep-last", "1")
    torchrun = subprocess.Popen(
        [*command, *plain(shards, run_dir, *more)],
        env=environment(OMP_NUM_THREADS="1"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until(lambda: (run_dir / "metrics.jsonl").exists(), "it does not begin", 60)
    torchrun.send_signal(signal.SIGKILL)
    torchrun.wait()

    wait_until(lambda: bool(checkpoints(run_dir)), "nothing is saved")
    wait_until(lambda: free(run_dir), "the first rank goes on")


def free(run_dir: Path) -> bool:
    try:
        with only_one(run_dir):
            return True
    except Exception:
        return False
