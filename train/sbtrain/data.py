"""Shards to batches: rows of a split in a keyed order, uint8 until they are on the device.

The whole state of a loader is the number of samples already seen. Where the rows wait (`sbtrain.residence`: device
memory, pinned host memory, a memory map) changes neither their order nor a bit of a batch.

Axes: B images of a batch.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from queue import SimpleQueue

import numpy as np
import torch

from sbformat.errors import ConfigError
from sbformat.permutation import permute
from sbtrain.batch import Batch
from sbtrain.reader import Rows, SplitReader
from sbtrain.residence import Cache, DeviceResidence, HostResidence, MappedResidence, Residence, reside

__all__ = [
    "Batch",
    "Cache",
    "DeviceResidence",
    "HostResidence",
    "Loader",
    "MappedResidence",
    "Order",
    "Residence",
    "Rows",
    "SplitReader",
    "Waiting",
    "order_from_text",
    "reside",
]

#: Samples whose places are worked out at once: 12 rounds of the permutation cost 0.2 us a sample in bulk, and 100 us
#: for a batch of any size below a few hundred.
ORDER_BLOCK = 8192
PREFETCH = 2


@dataclass(frozen=True)
class Order:
    """Which row comes at which place of which epoch: a pure function of (seed, epoch, place).

    ``window`` rows at a time come from neighboring rows, for disks on which random reads are slow; 0: from anywhere.
    """

    rows: int
    seed: int
    window: int = 0

    def at(self, epoch: int, places: Rows) -> Rows:
        """Return the rows at `places` (B,) of `epoch`."""
        if not self.window:
            return permute(places, self.rows, self.seed, epoch)
        visit, inside = np.divmod(places, self.window)
        full = self.rows // self.window
        result = np.empty_like(places)
        for k in np.unique(visit):
            mine = visit == k
            # The last, shorter window keeps its place at the end.
            window = permute(int(k), full, self.seed, epoch, 1) if k < full else int(k)
            size = min(self.window, self.rows - window * self.window)
            result[mine] = window * self.window + permute(inside[mine], size, self.seed, epoch, 2 + window)
        return result


def order_from_text(text: str, rows: int, seed: int) -> Order:
    """Parse ``exact`` or ``window=K``.

    Raises
    ------
    ConfigError
        It is neither.
    """
    if text == "exact":
        return Order(rows, seed)
    match = re.fullmatch(r"window=([1-9]\d*)", text)
    if match is None:
        raise ConfigError(f"shuffle {text!r}, expected exact or window=K, K images at a time")
    return Order(rows, seed, min(int(match[1]), rows))


@dataclass
class Waiting:
    """How long the consumer waited for batches, in seconds."""

    seconds: float = 0.0
    batches: int = 0


class Loader:
    """Batches of any stretch of a training run.

    Parameters
    ----------
    residence : Residence
    order : Order
    batch_size : int
        Every batch has this size; the remainder of an epoch is left out, another one in each epoch.
    mine : int64 (n,), optional
        Places in a batch of the rows that this process reads, where several share it; by default all.

    Raises
    ------
    ConfigError
        The split holds fewer rows than a batch.
    """

    def __init__(self, residence: Residence, order: Order, batch_size: int, mine: Rows | None = None) -> None:
        if batch_size > order.rows:
            raise ConfigError(f"batch size {batch_size}, the split has {order.rows} images. Use a smaller --batch-size")
        self.residence, self.order, self.batch_size = residence, order, batch_size
        self.steps_per_epoch = order.rows // batch_size
        self._mine = np.arange(batch_size) if mine is None else mine
        self.waiting = Waiting()

    def rows_of(self, step: int) -> Rows:
        """Return the row numbers (B,) of global step `step`, of all processes: all that a resumed run needs to know."""
        epoch, inside = divmod(step, self.steps_per_epoch)
        places = np.arange(inside * self.batch_size, (inside + 1) * self.batch_size)
        return self.order.at(epoch, places)

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """Yield the batches of steps [start, stop), prepared one or two ahead.

        A generator that is left early stops its thread.
        """
        if isinstance(self.residence, DeviceResidence):
            for epoch, rows in self._rows(start, stop):
                yield replace(self.residence.fetch(rows), epoch=epoch)
            return
        ready: SimpleQueue[Batch | BaseException | None] = SimpleQueue()
        room: SimpleQueue[None] = SimpleQueue()  # an entry for each batch that may be prepared
        stopping = threading.Event()
        worker = threading.Thread(target=self._prefetch, args=(start, stop, ready, room, stopping), daemon=True)
        for _ in range(PREFETCH):
            room.put(None)
        worker.start()
        try:
            while (batch := self._wait_for(ready)) is not None:
                room.put(None)
                yield batch.arrived()
        finally:
            stopping.set()
            room.put(None)
            worker.join()

    def _wait_for(self, ready: SimpleQueue[Batch | BaseException | None]) -> Batch | None:
        begun = time.perf_counter()
        batch = ready.get()
        self.waiting.seconds += time.perf_counter() - begun
        self.waiting.batches += 1
        if isinstance(batch, BaseException):
            raise batch
        return batch

    def _prefetch(
        self,
        start: int,
        stop: int,
        ready: SimpleQueue[Batch | BaseException | None],
        room: SimpleQueue[None],
        stopping: threading.Event,
    ) -> None:
        try:
            if self.residence.device.type == "cuda":
                # A thread begins with the first GPU, and would take half a gigabyte there.
                torch.cuda.set_device(self.residence.device)
            for epoch, rows in self._rows(start, stop):
                room.get()
                if stopping.is_set():
                    return
                ready.put(replace(self.residence.fetch(rows), epoch=epoch))
            ready.put(None)
        except BaseException as error:  # the consumer raises it where it waits
            ready.put(error)

    def _rows(self, start: int, stop: int) -> Iterator[tuple[int, Rows]]:
        step = start
        while step < stop:
            epoch, inside = divmod(step, self.steps_per_epoch)
            steps = min(stop - step, self.steps_per_epoch - inside, max(1, ORDER_BLOCK // self.batch_size))
            places = (np.arange(inside, inside + steps)[:, None] * self.batch_size + self._mine).reshape(-1)
            for rows in self.order.at(epoch, places).reshape(steps, -1):
                yield epoch, rows
            step += steps
