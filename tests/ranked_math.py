"""What two ranks compute together, in processes of their own: work that a test names, and its results as tensors."""

import os
import socket
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.queues import Queue
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ranked import rank_environment
from sbtrain.ranks import meeting
from sbtrain.ranks import world as ranks
from sbtrain.ranks.launch import from_environment
from sbtrain.ranks.synced_norm import SyncedBatchNorm, synchronize
from sbtrain.ranks.world import World

ROWS = {"flat": (8, 3), "maps": (8, 3, 5, 4)}


def rows_of(shape: str) -> Tensor:
    return torch.randn(ROWS[shape], generator=torch.Generator().manual_seed(1)) * 3 + 100


def norm_of(shape: str, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    norm = (nn.BatchNorm1d if shape == "flat" else nn.BatchNorm2d)(3, **settings)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


def learned(norm: nn.Module, rows: Tensor, world: World | None = None) -> dict[str, Tensor]:
    """Return outputs, gradients and statistics after one step of a loss that is a mean over rows."""
    rows = rows.clone().requires_grad_()
    weight = torch.linspace(-1, 1, rows[0].numel(), dtype=rows.dtype).view(rows[0].shape)
    y = norm(rows)
    ((y * weight) ** 2 + y * weight).sum(tuple(range(1, y.dim()))).mean().backward()
    if world is not None:
        world.average(norm.parameters(), torch.zeros(1))
    found = {"y": y.detach(), "x.grad": rows.grad, **norm.state_dict()}
    found |= {f"{name}.grad": parameter.grad for name, parameter in norm.named_parameters()}
    return {name: tensor.clone() for name, tensor in found.items()}


def norm_on(world: World, shape: str, settings: dict[str, Any]) -> dict[str, Tensor]:
    norm = norm_of(shape, **settings)
    model = nn.Sequential(norm)
    synchronize(model, torch.device("cpu"))
    assert isinstance(model[0], SyncedBatchNorm)
    return learned(model[0], rows_of(shape)[world.places(8, 1)], world)


def gathered_on(world: World, whole: bool) -> dict[str, Tensor]:
    """A softmax over the rows of a batch: every rank computes all of the loss, or its own rows' share of the mean."""
    layer = linear()
    logits = layer(rows_of("flat")[world.places(8, 1)])
    everyone = ranks.gather(logits)
    loss = (everyone if whole else logits) - torch.logsumexp(everyone, 0)
    (loss**2).mean().backward()
    return {"loss": world.average(layer.parameters(), (loss**2).mean().detach()[None]), **gradients(layer)}


def guarded_on(world: World) -> dict[str, Tensor]:
    """One rank's loss is no number."""
    layer = linear()
    loss = layer(rows_of("flat")).sum() * (torch.nan if world.rank == 1 else 1.0)
    loss.backward()
    mean = world.average(layer.parameters(), loss.detach()[None])
    return {"finite": torch.isfinite(mean), **{k: torch.isfinite(v).any() for k, v in gradients(layer).items()}}


def late_on(world: World) -> dict[str, Tensor]:
    """The first rank is longer at something than steps may take."""

    def slow() -> int:
        time.sleep(2.0)
        return 1

    return {"waited": torch.tensor(world.on_first(slow))}


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 4)


def gradients(layer: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in layer.named_parameters() if parameter.grad is not None}


def on_two(work: Callable[..., dict[str, Tensor]], *arguments: Any) -> list[dict[str, Tensor]]:
    """Return what `work(world, *arguments)` returns on each of two ranks."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    context = get_context("forkserver")
    context.set_forkserver_preload(["runs", "ranked"])
    told: list[Queue[Any]] = [context.Queue() for _ in range(2)]
    children = [context.Process(target=_work, args=(rank, port, told[rank], work, arguments)) for rank in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        for child in children:
            child.start()
    found = [queue.get(timeout=30) for queue in told]
    for child in children:
        child.join(60)
    return [{name: torch.tensor(value) for name, value in each.items()} for each in found]


def _work(rank: int, port: int, told: "Queue[Any]", work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(rank_environment(rank, 2, port))
    torch.set_num_threads(1)
    world = from_environment()
    if work is late_on:
        meeting.PATIENCE = timedelta(seconds=1)
    with world.joined("cpu"):
        told.put({name: value.tolist() for name, value in work(world, *arguments).items()})
