"""CUDA graphs: refused where a step cannot be one. That they replay the same step needs a GPU, and skips without one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from runs import CPU, command, outcome, small_parts
from sbformat.errors import ConfigError
from sbformat.manifest import Manifest
from sbtrain.cli import main
from sbtrain.config import PretrainConfig
from sbtrain.graphs import GraphedStep, refuse
from sbtrain.runtime import Runtime
from sbtrain.step import Step

CUDA = Runtime(torch.device("cuda"), torch.float32)


@pytest.mark.parametrize(
    ("config", "runtime", "reason"),
    [
        (PretrainConfig(), CPU, "the device is cpu: only CUDA has them"),
        (PretrainConfig(method="denoising", network="autoencoder"), CUDA, "the noise depends on the epoch"),
        (PretrainConfig(compile=True), CUDA, "have not been tried"),
    ],
    ids=["cpu", "denoising", "compile"],
)
def test_a_step_that_cannot_be_a_graph_is_refused(config: PretrainConfig, runtime: Runtime, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        refuse(config, runtime)


def test_a_split_brain_step_on_cuda_is_not_refused() -> None:
    refuse(PretrainConfig(), CUDA)


@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["run", "dry-run"])
def test_graphs_on_a_cpu_are_refused_before_anything_is_written(
    more: tuple[str, ...], shards: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(main, command(shards / "lab", tmp_path / "run", "--graphs", *more))

    assert result.exit_code == 2
    assert "only CUDA has them. Leave --graphs out" in result.output
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graph_takes_the_same_steps(lab: Manifest) -> None:
    runtime = Runtime(torch.device("cuda", torch.cuda.current_device()), torch.float32)
    found = []
    for graphed in (False, True):
        config, method, loader = small_parts(lab)
        step = GraphedStep(config, method, runtime, pytest.fail) if graphed else Step(config, method, runtime)
        method.train()
        for number, batch in enumerate(loader.batches(0, 12)):
            there = {name: rows.to(runtime.device) for name, rows in batch.fields.items()}
            step(replace(batch, index=batch.index.to(runtime.device), fields=there), 1e-3 / (number + 1))
            if number == 7:
                step.reset()
        found.append((method.state_dict(), step.totals.read()))

    (weights, sums), (graphed_weights, graphed_sums) = found
    assert graphed_sums == pytest.approx(sums, rel=1e-5)
    for name, tensor in weights.items():
        torch.testing.assert_close(graphed_weights[name], tensor)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graphed_run_that_stopped_goes_on_to_the_same_bits(shards: Path, tmp_path: Path) -> None:
    options = ("--device", "cuda", "--graphs")
    for name, stops in (("whole", ()), ("parts", ("5",))):
        for stop in (*((("--stop-after", s)) for s in stops), ()):
            assert CliRunner().invoke(main, command(shards / "lab", tmp_path / name, *options, *stop)).exit_code == 0

    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
