"""Pretraining runs of several ranks: processes on this machine that speak gloo over loopback, as torchrun starts them."""

import json
import multiprocessing
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from runs import _before, command

#: The default rate: at larger ones a few steps magnify the rounding of float32 a hundredfold, on one rank as on two.
PLAIN = ("--precision", "float32", "--lr", "1e-4", "--log-every", "1")


@dataclass
class Ended:
    """How one rank ended."""

    code: int
    output: str
    rows: list[list[int]]
    """Row numbers of each step that it took."""


def run_ranks(
    folder: Path,
    arguments: list[str] | list[list[str]],
    size: int = 2,
    at: tuple[int, int, int] | None = None,
    **environment: str,
) -> list[Ended]:
    """Run the command line in `size` processes, in each the same or its own, and return how they ended.

    Parameters
    ----------
    at : (rank, step, signal), optional
        Sends the signal to the rank before that step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for rank in range(size):
        (folder / f"output-{rank}").unlink(missing_ok=True)
    own = arguments if isinstance(arguments[0], list) else [arguments] * size
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["runs", "ranked"])
    children = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        for rank in range(size):
            variables = rank_environment(rank, size, port) | environment
            event = (at[1], at[2]) if at is not None and at[0] == rank else None
            children.append(context.Process(target=_child, args=(own[rank], variables, folder, event)))
            children[-1].start()
    for child in children:
        child.join(100)
    hanging = [child for child in children if child.exitcode is None]
    for child in hanging:
        child.kill()
    assert not hanging, [(folder / f"output-{rank}").read_text() for rank in range(size)]
    return [_ended(folder, rank, child.exitcode) for rank, child in enumerate(children)]


def rank_environment(rank: int, size: int, port: int) -> dict[str, str]:
    """Return what torchrun sets."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def losses(run_dir: Path) -> list[float]:
    """Return the loss of every step."""
    return [json.loads(text)["loss"] for text in (run_dir / "metrics.jsonl").read_text().splitlines()]


def plain(shards: Path, run_dir: Path, *more: str) -> list[str]:
    """Return the arguments of a small run whose losses do not magnify rounding."""
    return command(shards / "lab", run_dir, *PLAIN, *more)


def _ended(folder: Path, rank: int, code: int | None) -> Ended:
    assert code is not None
    rows = folder / f"rows-{rank}"
    steps = [json.loads(text) for text in rows.read_text().splitlines()] if rows.exists() else []
    rows.unlink(missing_ok=True)
    return Ended(code, (folder / f"output-{rank}").read_text(), steps)


def _child(arguments: list[str], variables: dict[str, str], folder: Path, event: tuple[int, int] | None) -> None:
    from sbtrain import cli, guard, step

    os.environ.update(variables)
    rank = variables["RANK"]
    torch.set_num_threads(1)
    with (folder / f"output-{rank}").open("a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    if event is not None:
        guard.Guard.keep = _before(guard.Guard.keep, event[0], lambda: signal.raise_signal(event[1]))
    learn, rows = step.Step.learn, (folder / f"rows-{rank}").open("w", buffering=1)

    def written(self: step.Step, batch: Any) -> None:
        rows.write(json.dumps(batch.index.tolist()) + "\n")
        learn(self, batch)

    step.Step.learn = written
    cli.main(arguments, prog_name="sbtrain")


if __name__ == "__main__":  # under torchrun: RANK_DIES=rank,step kills that rank, before its first restart
    dying, before = map(int, os.environ["RANK_DIES"].split(","))
    mine = dying == int(os.environ["RANK"]) and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    event = (before, int(signal.SIGKILL)) if mine else None
    _child(sys.argv[2:], dict(os.environ), Path(sys.argv[1]), event)
