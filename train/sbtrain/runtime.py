"""The machine under a run: device, precision, determinism, signals, and one process a run folder."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from sbformat import locks
from sbformat.errors import ConfigError, SplitbrainError
from sbformat.words import counted
from sbtrain.ranks.world import ALONE, World

EXIT_REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: a job script takes it for "run me again"
#: SIGHUP is a terminal that was closed.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT)
STDERR = 2
LOCK_NAME = ".lock"
STOPPING = "Stopping after this step; press Ctrl-C again to end now"
#: Kernels of fused attention -> whether torch began with them.
_FUSED_ATTENTION = {
    name: getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in ("flash", "mem_efficient", "cudnn")
}
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h
_log = logging.getLogger(__name__)


class RunError(SplitbrainError):
    """A run cannot begin or go on."""


@dataclass(frozen=True)
class Runtime:
    """Where and how tensors are computed."""

    device: torch.device
    dtype: torch.dtype
    """Of autocast: bfloat16, or float32 for none."""
    world: World = ALONE
    """The ranks that learn together."""

    @property
    def fused(self) -> bool:
        """True where optimizers have a fused update."""
        return self.device.type in ("cuda", "cpu")

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    @property
    def name(self) -> str:
        """Name of the device."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"

    def place(self, module: torch.nn.Module) -> None:
        """Move a module to the device, its maps with channels last."""
        torch.nn.Module.to(module, self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def seed_step(self, seed: int, number: int) -> None:
        """Let what networks draw themselves in the step of a batch be a function of (seed, number of the batch, rank).

        Drop path and dropout of timm's networks come from torch's generators, which no checkpoint holds. Keyed by step and
        not by sample, unlike noise, augmentation and our own dropout: a resumed run draws the same, one on another number
        of ranks does not. 0.02 ms of the host, and it waits for no device; `torch.manual_seed` seeds every kind of device,
        and takes ten times as long.
        """
        drawn = int(np.random.SeedSequence((seed, number, self.world.rank)).generate_state(1, np.uint64)[0])
        torch.default_generator.manual_seed(drawn)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(drawn)

    def describe(self) -> str:
        """Return device and precision in words."""
        where = self.name if self.device.type == "cuda" else f"CPU, {counted(torch.get_num_threads(), 'thread')}"
        ranks = "" if self.world.size == 1 else f"{self.world.size} ranks, each on "
        return f"{ranks}{where}, {str(self.dtype).removeprefix('torch.')}"


def set_up(device: str, precision: str, mode: str, seed: int) -> Runtime:
    """Choose device and precision, seed torch and set its determinism.

    Raises
    ------
    ConfigError
        No such device, CUDA was asked for and is not there, or it has no bfloat16.
    """
    chosen = _device(device)
    exact = mode == "exact"
    if exact:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Switches of several GPUs add up in no fixed order. torch itself leaves them out where it knows in time, newer ones.
        os.environ.setdefault("NCCL_ALGO", "^NVLS,NVLSTree")
    torch.use_deterministic_algorithms(exact, warn_only=True)
    # Nothing here reads memory before writing it; filling each new tensor would cost a pass over it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined, unused-ignore]
    torch.backends.cudnn.benchmark = not exact
    torch.manual_seed(seed)
    # Not `is_bf16_supported`, which counts emulation: only since Ampere it is multiplied, elsewhere it is slower than float32.
    on_cuda = chosen.type == "cuda"
    if on_cuda:
        _attend_in_order(exact)
    else:
        _keep_freed_memory()
    bf16 = torch.cuda.get_device_capability(chosen) >= (8, 0) if on_cuda else _cpu_multiplies_bfloat16()
    if precision == "bfloat16" and on_cuda and not bf16:
        raise ConfigError(f"precision bfloat16, but {torch.cuda.get_device_name(chosen)} has none. Use float32")
    if precision == "auto":
        return Runtime(chosen, torch.bfloat16 if bf16 else torch.float32)
    return Runtime(chosen, getattr(torch, precision))


def _attend_in_order(exact: bool) -> None:
    """Let attention be plain products and a softmax in `exact` mode, what torch begins with otherwise.

    The gradients of the fused kernels add up in no fixed order: with ``warn_only`` torch does not ask them for another.
    Fast mode puts back what torch began with, and not all of them: its 2.4 leaves out cuDNN's.
    """
    for fused, found in _FUSED_ATTENTION.items():
        getattr(torch.backends.cuda, f"enable_{fused}_sdp")(found and not exact)


def _keep_freed_memory() -> None:
    """Let the C library keep the memory of freed tensors, where it is glibc.

    By default large blocks go back to the system, and every step takes its pages anew, each by a fault: 4 to 15 % of a
    training step and a fifth of augmentation on a CPU, against a tenth more memory (docs/benchmarks.md).
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, 64 << 20)):
            libc.mallopt(parameter, value)


def _cpu_multiplies_bfloat16() -> bool:
    """Return True where the processor has instructions for it: SimpleNet trains at 1.7 times the rate of float32 there."""
    try:
        return bool(re.search(r"\b(avx512_bf16|amx_bf16)\b", Path("/proc/cpuinfo").read_text()))
    except OSError:
        return False


def _device(text: str) -> torch.device:
    if text == "auto":
        text = "cuda" if torch.cuda.is_available() else "cpu"
    if re.fullmatch(r"cpu|cuda(:\d+)?", text) is None:
        raise ConfigError(f"device {text!r}, expected auto, cpu, cuda or cuda:N")
    device = torch.device(text)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= (device.index or 0):
            raise ConfigError(
                f"device {text}, but torch {torch.__version__} sees {count} CUDA devices. Use --device cpu"
            )
        # torch makes no device the current one that has no number.
        device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        torch.cuda.set_device(device)
    return device


class StopRequest:
    """Set by the first signal; the loop looks at a step's border. A second SIGINT stops at once, and the first says so."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Listen while a run lasts; afterwards signals do what they did before."""
        heard = [number for number in SIGNALS if number != signal.SIGHUP or not _under_nohup()]
        before = {number: signal.signal(number, self._handle) for number in heard}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.signal = number
        if number == signal.SIGINT and os.environ.get("RANK", "0") == "0":
            # Not by sys.stderr: the signal may have come while that was being written to.
            live = "\n" if os.isatty(STDERR) else ""
            with contextlib.suppress(OSError):
                os.write(STDERR, f"{live}{STOPPING}\n".encode())


def _under_nohup() -> bool:
    return signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@contextlib.contextmanager
def only_one(run_dir: Path) -> Iterator[None]:
    """Hold the run folder for this process.

    Raises
    ------
    RunError
        Another process trains there, or the folder cannot be made or written.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = (run_dir / LOCK_NAME).open("a+")
    except OSError as error:
        raise RunError(
            f"{run_dir}: cannot be the folder of a run ({error}). Choose one that can be made and written"
        ) from error
    with lock as file:
        try:
            if not locks.lock(file.fileno(), run_dir):
                _log.warning("%s: this file system has no locks: see that no other process trains there", run_dir)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "?"
            raise RunError(
                f"{run_dir}: process {holder} is training there. Wait for it or end it, or use another --run-dir"
            ) from None
        except OSError as error:
            raise RunError(f"{run_dir}: cannot be locked ({error.strerror}). Use another --run-dir") from error
        # The lock ends with its process, however that ends; the text is for people only.
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
