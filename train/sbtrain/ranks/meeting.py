"""How the ranks of a run find one another, also after a restart by torchrun, whose store still holds what the last ones said."""

from __future__ import annotations

import os
import secrets
import time
from datetime import timedelta
from typing import cast

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from sbformat.errors import SplitbrainError

#: Time for all ranks to find one another.
MEETING = timedelta(minutes=5)
#: Time for the slowest rank to come to where the others wait within steps, of which each takes seconds at most. One that
#: died is noticed by `Watch`, in a moment; this is for one that hangs.
PATIENCE = timedelta(minutes=30)
#: The same where ranks talk, before and after the steps: verifying, staging or reading terabytes takes hours.
LONG_PATIENCE = timedelta(hours=12)
_PAUSE = 0.02  # seconds between looks


class RankError(SplitbrainError):
    """The ranks of a run cannot work together, or another one failed."""


def meet(rank: int, size: int, backend: str) -> dist.ProcessGroup:
    """Make the group of all ranks; return another one of them, to talk in.

    Raises
    ------
    RankError
        They did not come.
    """
    try:
        store, *_ = next(iter(rendezvous("env://", timeout=MEETING)))
        fresh = PrefixStore(_round(store, rank, size), store)
        dist.init_process_group(backend, store=fresh, rank=rank, world_size=size, timeout=PATIENCE)
        return cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=LONG_PATIENCE))
    except (RuntimeError, ValueError, OSError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise RankError(
            f"rank {rank} of {size}: the ranks did not meet at {where} ({error}). Are all of them started, and may they "
            f"reach one another? GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME choose the network"
        ) from error


def _round(store: Store, rank: int, size: int) -> str:
    """Return a name that these ranks share and no earlier ones had.

    Without it gloo connects to the addresses of processes that are dead. torchrun's count of restarts is no such name: a
    machine on which nothing failed does not count. So the first rank draws a name and answers who calls by it.
    """
    deadline = time.monotonic() + MEETING.total_seconds()
    if rank == 0:
        name = secrets.token_hex(8)
        store.set("sbtrain", name)
        for other in range(1, size):
            store.set(f"{name}/answer-{other}", _wait(store, f"{name}/call-{other}", deadline))
        return name
    call = secrets.token_hex(8)
    while True:
        name = _wait(store, "sbtrain", deadline)  # may be that of an earlier first rank, which answers nobody
        store.set(f"{name}/call-{rank}", call)
        answer = f"{name}/answer-{rank}"
        if store.check([answer]) and _text(store.get(answer)) == call:
            return name
        _sleep(deadline, "the first rank does not answer")


def _wait(store: Store, key: str, deadline: float) -> str:
    while not store.check([key]):
        _sleep(deadline, "not all ranks are there")
    return _text(store.get(key))


def _sleep(deadline: float, text: str) -> None:
    if time.monotonic() > deadline:
        raise RuntimeError(f"{text} after {MEETING.seconds} s")
    time.sleep(_PAUSE)


def _text(content: object) -> str:
    return cast(bytes, content).decode()
