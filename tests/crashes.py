"""Builds that are killed: run one, kill some of it, say what is left; and a source that kills its worker."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from builds import environment
from sbprep.sources.base import Listing

Victim = Literal["parent", "worker"]

#: Seconds within which a build must notice the death of a worker, and workers that of their build.
NOTICED, GONE = 10.0, 10.0


class Run:
    """A build in a session of its own, as a terminal or a job scheduler starts it."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # What started the tests in the background of a shell has SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def workers(self) -> list[int]:
        """Process ids of the worker processes that are alive."""
        return [pid for pid, command in self.alive().items() if "LokyProcess" in command]

    def kill(self, victim: Victim, rng: random.Random) -> bool:
        """Kill the build or one of its workers, by drawing; False if there is none."""
        victims = [self._process.pid] if victim == "parent" else self.workers()
        if self.ended or not victims:
            return False
        try:
            os.kill(rng.choice(victims), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def send_to_all(self, number: int) -> None:
        """Send a signal as a terminal does: to every process."""
        os.killpg(self._process.pid, number)

    def end(self, seconds: float = 60.0) -> tuple[int, str, str]:
        """Wait; return exit status, stdout and stderr."""
        out, err = self._process.communicate(timeout=seconds)
        return self._process.returncode, out, err

    def wait_until_gone(self) -> float:
        """Return the seconds until no process of the session is left.

        Raises
        ------
        TimeoutError
            Some are still there after `GONE` seconds.
        """
        start = time.monotonic()
        while left := self.alive():
            if time.monotonic() - start > GONE:
                raise TimeoutError(f"still running: {left}")
            time.sleep(0.02)
        return time.monotonic() - start

    def alive(self) -> dict[int, str]:
        """Process id -> command line of every process of the session."""
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                state, _, _, session, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(session) == self._process.pid and state != "Z":
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it ended while we looked
                continue
        return found


def journaled(out: Path) -> int:
    """Number of lines in all journals below `out`."""
    return sum(path.read_bytes().count(b"\n") for path in out.glob("*/journal*.jsonl"))


def unsound(out: Path) -> list[Path]:
    """Shards that a journal below `out` lists and that are not there byte for byte."""
    found = []
    for path in out.glob("*/journal*.jsonl"):
        for line in path.read_bytes().split(b"\n")[1:-1]:
            result = json.loads(line)
            record = result["record"]
            shard = path.parent / result["split"] / record["name"]
            content = shard.read_bytes() if shard.is_file() else b""
            if record["count"] and xxhash.xxh3_128_hexdigest(content) != record["xxh3_128"]:
                found.append(shard)
    return found


@dataclass(frozen=True)
class Kill:
    victim: Victim
    shards: int
    """Lines of the journals afterwards."""
    seconds: float
    """From the kill until no process was left."""


def kill_again_and_again(
    command: list[str], out: Path, victims: list[Victim], rng: random.Random, moment: Callable[[Run, int], None]
) -> Iterator[Kill]:
    """Run `command` once for each of `victims` and kill that; `moment(run, lines before)` waits for the time.

    Raises
    ------
    AssertionError
        The build ended before it was killed, or a rule is broken: a worker's death ends the build with 1 and a
        message that names an image; nobody survives; every journaled shard is sound.
    """
    for victim in victims:
        run, before = Run(command), journaled(out)
        moment(run, before)
        killed = run.kill(victim, rng)
        start = time.monotonic()
        status, _, err = run.end(NOTICED)
        assert killed, f"too late to kill the {victim}: exit {status}, {err}"
        run.wait_until_gone()
        seconds = time.monotonic() - start
        assert status == (-signal.SIGKILL if victim == "parent" else 1), err
        assert victim == "parent" or "Error: a worker process died at " in err, err
        assert unsound(out) == []
        yield Kill(victim, journaled(out), seconds)


@dataclass(frozen=True)
class DeadlySource:
    """Gray images, one of which kills whoever reads it."""

    deadly: str
    how: Literal["kill", "exit"]

    @property
    def sequential(self) -> bool:
        return False

    def read(self, part: Listing) -> Iterator[NDArray[np.uint8]]:
        for name in part.names:
            if name == self.deadly and self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if name == self.deadly:
                os._exit(3)
            time.sleep(0.005)  # so that the other worker is at work as well
            yield np.full((16, 16, 3), 128, np.uint8)
