"""The processes of one run, one a GPU: ranks. Started by torchrun, or by whatever sets the variables that it sets.

Data parallel: every rank holds the whole network, reads its rows of every batch, and after the gradients of all ranks
are averaged takes the same step. One process is a world of one, in which nothing here does anything.

The groups of torch work by backend: tensors on a GPU go by NCCL, those on the host by gloo.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from sbformat.errors import ConfigError
from sbtrain.ranks.averages import Gathered, average
from sbtrain.ranks.meeting import RankError, meet
from sbtrain.ranks.talk import attempt, error_of, error_record, exchange
from sbtrain.ranks.watch import Watch, end_with_launcher
from sbtrain.tensor_files import load_tensors

T = TypeVar("T")


class World:
    """Which of how many processes this one is, and what they do together.

    Parameters
    ----------
    rank, size : int
        0 <= rank < size.
    local, local_size : int
        The same among the processes of this machine.
    """

    def __init__(self, rank: int = 0, size: int = 1, local: int = 0, local_size: int = 1) -> None:
        self.rank, self.size, self.local, self.local_size = rank, size, local, local_size
        self._asked: tuple[dist.Work, Tensor] | None = None
        self._shared_error: BaseException | None = None
        self._group: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """True for the one that writes and speaks."""
        return self.rank == 0

    @property
    def name(self) -> str:
        """``rank 1 of 4``."""
        return f"rank {self.rank} of {self.size}"

    # ------------------------------------------------------------------------------------------------- what is mine

    def places(self, batch_size: int, accumulate: int) -> NDArray[np.int64]:
        """Return the places (batch_size / size,) in every batch of the rows that this rank reads.

        A part of each micro-batch, so that BatchNorm over all ranks sees the micro-batches that one process sees.

        Raises
        ------
        ConfigError
            The batch cannot be shared evenly.
        """
        parts = self.size * accumulate
        if batch_size % parts:
            raise ConfigError(
                f"batch size {batch_size}, of all ranks together, does not divide by {self.size} ranks x {accumulate} "
                f"micro-batches. Use a multiple of {parts}"
            )
        return np.arange(batch_size).reshape(accumulate, self.size, -1)[:, self.rank].reshape(-1)

    def device(self, text: str) -> str:
        """Return the device of this rank where `text` was asked for: ``cuda`` and ``auto`` take a GPU each.

        Raises
        ------
        ConfigError
            One GPU for several ranks.
        """
        if self.size == 1 or text == "cpu" or not torch.cuda.is_available():
            return text
        if re.fullmatch(r"cuda:\d+", text) and self.local_size > 1:
            raise ConfigError(
                f"device {text} for {self.local_size} ranks. Use --device cuda: each takes a GPU of its own"
            )
        count = torch.cuda.device_count()
        if text in ("auto", "cuda"):  # a launcher may show each rank its own GPU alone
            return "cuda:0" if count == 1 else f"cuda:{self.local}"
        return text

    # --------------------------------------------------------------------------------------------- within one step

    def average(self, parameters: Iterable[torch.nn.Parameter], losses: Tensor) -> Tensor:
        """Replace every gradient by its mean over the ranks; return that of `losses` (n,). The same bits on every rank.

        One that is not finite on any rank is finite on none, so all take the step or none does.
        """
        if self.size == 1:
            return losses
        losses = losses.clone()
        average([losses, *(parameter.grad for parameter in parameters if parameter.grad is not None)], self.size)
        return losses

    def stopping(self, signal: int | None) -> int | None:
        """Return the signal that ends the run at this border of steps, the same on every rank; None: go on.

        `signal` is what this rank was sent.

        Several ranks learn at the next border what was asked for before this one: the hosts exchange a number while the
        step runs, so nobody waits for it and no host waits for a GPU.
        """
        if self.size == 1:
            return signal
        asked = self._answer()
        flag = torch.tensor([signal or 0])
        self._asked = (_work(dist.all_reduce(flag, dist.ReduceOp.MAX, async_op=True)), flag)
        return asked

    def _answer(self) -> int | None:
        if self._asked is None:
            return None
        work, flag = self._asked
        work.wait()
        self._asked = None
        return int(flag.item()) or None

    # -------------------------------------------------------------------------------------------- before and after

    def together(self, call: Callable[[], T]) -> T:
        """Return what `call` returns; where it fails on any rank, raise on all of them."""
        if self.size == 1:
            return call()
        result, error = attempt(call)
        told = exchange(error_record(error), self.size, self._group)
        for rank, record in enumerate(told):
            if record is not None:
                self._raise(error or error_of(record, f"rank {rank} of {self.size}: "))
        assert error is None, "it would have been told"
        return cast(T, result)

    def on_first(self, call: Callable[[], T]) -> T:
        """Return on every rank what `call`, a JSON value, returns on the first, or raise what it raises there."""
        if self.size == 1:
            return call()
        result, error = attempt(call) if self.first else (None, None)
        told = exchange({"error": error_record(error), "result": result}, self.size, self._group)[0]
        if told["error"] is not None:
            self._raise(error or error_of(told["error"], f"rank 0 of {self.size}: "))
        return cast(T, result if self.first else told["result"])

    def compare(self, record: Mapping[str, tuple[str, str]]) -> None:
        """Raise on every rank where ranks differ.

        Parameters
        ----------
        record : mapping
            What it is called -> (its value or digest, what to do where it differs).

        Raises
        ------
        RankError
            Naming the ranks and their values.
        """
        if self.size == 1:
            return
        told = exchange({name: value for name, (value, _) in record.items()}, self.size, self._group)
        lines = [
            f"{name}: rank {rank} of {self.size} has {told[rank][name]}, rank 0 has {told[0][name]}. {remedy}"
            for name, (_, remedy) in record.items()
            for rank in range(1, self.size)
            if told[rank][name] != told[0][name]
        ]
        if lines:
            self._raise(RankError("the ranks do not do the same:\n  " + "\n  ".join(lines)))

    def tensors(self, path: Path) -> dict[str, Tensor]:
        """Read a tensor file on the first rank, for all of them: only that one needs to see the folder."""
        if self.size == 1:
            return load_tensors(path)
        own = load_tensors(path) if self.first else {}
        about = {name: (str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in own.items()}
        listed = self.on_first(lambda: about)
        found = {n: own[n] if self.first else torch.empty(s, dtype=getattr(torch, d)) for n, (d, s) in listed.items()}
        self.share(found.values())
        return found

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank the first one's values, in place."""
        for tensor in tensors if self.size > 1 else ():
            plain = tensor.detach().clone(memory_format=torch.contiguous_format)
            dist.broadcast(plain.view(-1).view(torch.uint8), 0)
            tensor.detach().copy_(plain)

    def _raise(self, error: BaseException) -> None:
        self._shared_error = error
        raise error

    # ------------------------------------------------------------------------------------------------ as one job

    @contextmanager
    def joined(self, device: str) -> Iterator[None]:
        """Meet the other ranks, and leave together with them; a rank that dies meanwhile ends this one.

        Parameters
        ----------
        device : str
            As `device` returned it: decides whether GPUs speak to one another.

        Raises
        ------
        RankError
            They did not come.
        """
        if self.size == 1:
            yield
            return
        global _current
        on_cuda = device != "cpu" and torch.cuda.is_available()
        end_with_launcher()
        self._group = meet(self.rank, self.size, "cpu:gloo,cuda:nccl" if on_cuda else "gloo")
        watch = Watch(self.rank, self.size, lambda value: exchange(value, self.size, self._group)[0])
        _current = self
        try:
            yield
        except BaseException as error:
            if error is not self._shared_error:
                watch.fail(error)
                raise
            self._leave(watch)
            raise
        else:
            self._leave(watch)
        finally:
            _current = ALONE

    def _leave(self, watch: Watch) -> None:
        # Together: torchrun ends all others as soon as one has left with a code that is not 0, and the first rank may
        # still be writing.
        self._answer()
        exchange(None, self.size, self._group)
        watch.close()
        with suppress(RuntimeError):  # nothing depends on it any more
            dist.destroy_process_group()


ALONE = World()
_current = ALONE


def gather(rows: Tensor) -> Tensor:
    """Return the rows (B, ...) of every rank, in the order of the micro-batch: (ranks x B, ...). Gradients flow back.

    For losses that look at a whole batch. Whether each rank then computes the whole loss or its rows' share of the mean,
    the mean of gradients over ranks is the gradient of the whole. One rank: `rows` themselves.
    """
    return rows if _current.size == 1 else cast(Tensor, Gathered.apply(rows))


def _work(work: dist.Work | None) -> dist.Work:
    assert work is not None, "it was asked for"
    return work
