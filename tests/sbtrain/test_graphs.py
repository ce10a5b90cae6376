"""CUDA graphs: refused where a step cannot be one. That they replay the same step needs a GPU, and skips without one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from click.testing import CliRunner

from runs import CPU, command, outcome, small_parts
from sbformat.errors import ConfigError
from sbformat.manifest import Manifest
from sbtrain.cli import main
from sbtrain.config import PretrainConfig
from sbtrain.corrupt import Noise, corrupt
from sbtrain.data import Batch
from sbtrain.graphs import WARM_UP, GraphedStep, refuse
from sbtrain.runtime import RunError, Runtime, set_up
from sbtrain.step import Step

CUDA = Runtime(torch.device("cuda"), torch.float32)
DENOISING = PretrainConfig(method="denoising", network="autoencoder")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize(
    ("config", "runtime", "reason"),
    [
        (PretrainConfig(), CPU, "the device is cpu: only CUDA has them"),
        (PretrainConfig(compile=True), CUDA, "have not been tried"),
    ],
    ids=["cpu", "compile"],
)
def test_a_step_that_cannot_be_a_graph_is_refused(config: PretrainConfig, runtime: Runtime, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        refuse(config, runtime)


@pytest.mark.parametrize("config", [PretrainConfig(), DENOISING], ids=["split-brain", "denoising"])
def test_a_step_on_cuda_is_not_refused(config: PretrainConfig) -> None:
    refuse(config, CUDA)


@pytest.mark.parametrize("noise", get_args(Noise))
def test_noise_of_an_epoch_that_a_graph_reads_is_the_same_to_the_bit(noise: Noise) -> None:
    """A graph knows addresses, not values: the epoch lies in a tensor that every step fills."""
    x, index, epoch = torch.rand(4, 3, 8, 8), torch.arange(4), torch.zeros((), dtype=torch.int64)

    for number in (0, 1, 300):
        epoch.fill_(number)
        assert torch.equal(corrupt(x, index, noise, 0.3, 0, epoch), corrupt(x, index, noise, 0.3, 0, number))


def test_a_denoising_step_learns_from_a_batch_with_such_an_epoch(lab: Manifest) -> None:
    config, method, loader = small_parts(lab, method="denoising", network="autoencoder", accumulate=2)
    batch = next(loader.batches(6, 7))
    step = Step(config, method, CPU)

    step(batch, 0.0)
    first = step.totals.read()[0]
    step(replace(batch, epoch=torch.tensor(batch.epoch)), 0.0)

    assert batch.epoch == 1
    assert step.totals.read()[0] == 2 * first


@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["run", "dry-run"])
def test_graphs_on_a_cpu_are_refused_before_anything_is_written(
    more: tuple[str, ...], shards: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(main, command(shards / "lab", tmp_path / "run", "--graphs", *more))

    assert result.exit_code == 2
    assert "only CUDA has them. Leave --graphs out" in result.output
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.fixture
def exact() -> Iterator[Runtime]:
    """A GPU in mode exact: one order of sums, one choice of kernels, so that bits can be compared."""
    deterministic, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    yield set_up("cuda", "float32", "exact", 0)
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = benchmark


def on_device(batch: Batch, device: torch.device) -> Batch:
    there = {name: rows.to(device) for name, rows in batch.fields.items()}
    return replace(batch, index=batch.index.to(device), fields=there)


@NEEDS_GPU
@pytest.mark.parametrize("fields", [{}, {"method": "denoising", "network": "autoencoder"}, {"optimizer": "sgd"}])
def test_a_graph_takes_the_same_steps_to_the_bit(fields: dict[str, Any], lab: Manifest, exact: Runtime) -> None:
    found = []
    for kind in (Step, GraphedStep):
        config, method, loader = small_parts(lab, **fields)
        step = kind(config, method, exact)
        method.train()
        for number, batch in enumerate(loader.batches(0, 12)):
            step(on_device(batch, exact.device), 1e-3 / (number + 1))
            if number == 7:
                step.reset()
        found.append(({name: tensor.cpu() for name, tensor in method.state_dict().items()}, step.totals.read()))

    (weights, sums), (graphed_weights, graphed_sums) = found
    assert graphed_sums == sums
    assert [name for name, tensor in weights.items() if not torch.equal(graphed_weights[name], tensor)] == []


@NEEDS_GPU
def test_a_step_that_breaks_its_capture_ends_the_run_with_a_way_out(lab: Manifest, exact: Runtime) -> None:
    config, method, loader = small_parts(lab)
    step, clean = GraphedStep(config, method, exact), method.loss

    def asking(batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss, logs = clean(batch)
        loss.item()  # waits for the device, which a capture cannot
        return loss, logs

    method.loss = asking  # type: ignore[method-assign]
    batch = on_device(next(loader.batches(0, 1)), exact.device)
    for _ in range(WARM_UP):
        step(batch, 1e-3)
    with pytest.raises(RunError, match="Leave --graphs out: the run goes on"):
        step(batch, 1e-3)


@NEEDS_GPU
def test_a_run_in_graphs_stopped_or_not_leaves_the_bits_of_one_without(shards: Path, tmp_path: Path) -> None:
    for name, *more in (
        ("plain",),
        ("whole", "--graphs"),
        ("parts", "--graphs", "--stop-after", "5"),
        ("parts", "--graphs"),
    ):
        arguments = command(shards / "lab", tmp_path / name, "--device", "cuda", "--mode", "exact", *more)
        assert CliRunner().invoke(main, arguments).exit_code == 0

    assert outcome(tmp_path / "whole") == outcome(tmp_path / "parts") == outcome(tmp_path / "plain")
