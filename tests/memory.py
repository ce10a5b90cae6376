"""Memory of this process over the epochs of a run."""

import gc
from pathlib import Path

import numpy as np
import torch

from sbformat.manifest import Manifest
from sbtrain.build import build_loader, build_method, open_split
from sbtrain.config import PretrainConfig
from sbtrain.loop import Habits, train
from sbtrain.metrics import Line
from sbtrain.runtime import Runtime, StopRequest


class Epochs:
    """Notes the resident memory whenever the loop shows a line: once an epoch."""

    def __init__(self) -> None:
        self.megabytes: list[float] = []

    def due(self) -> bool:
        return False

    def show(self, line: Line) -> None:
        gc.collect()
        status = Path("/proc/self/status").read_text().splitlines()
        self.megabytes.append(next(int(text.split()[1]) for text in status if text.startswith("VmRSS")) * 1024 / 1e6)


def resident_by_epoch(manifest: Manifest, folder: Path, config: PretrainConfig, cache: str) -> list[float]:
    """Train, and return the resident memory in MB after every epoch; each saves a checkpoint and writes metrics."""
    torch.manual_seed(config.seed)
    runtime, epochs = Runtime(torch.device("cpu"), torch.float32), Epochs()
    method = build_method(config, manifest)
    reader = open_split(config, manifest, method)
    loader = build_loader(config, reader, runtime, cache)
    steps = loader.steps_per_epoch
    folder.mkdir(exist_ok=True)
    train(
        config, method, loader, folder, runtime, Habits(log_every=steps, checkpoint_every=steps), StopRequest(), print,
        epochs,
    )  # fmt: skip
    reader.close()
    return epochs.megabytes


def growth(megabytes: list[float]) -> float:
    """Return the slope in MB an epoch, without the first fifth: allocators and mapped files fill up."""
    rest = megabytes[len(megabytes) // 5 :]
    return float(np.polyfit(np.arange(len(rest)), rest, 1)[0])
