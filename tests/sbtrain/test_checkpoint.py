"""Checkpoints are whole or not there, and come back bit for bit."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from sbtrain import checkpoint
from sbtrain.checkpoint import CheckpointError


def net(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, width, 3), nn.BatchNorm2d(width)).to(memory_format=torch.channels_last)


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    model(torch.randn(2, 2, 8, 8)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def write(folder: Path, *steps: int, losses: tuple[float | None, ...] = ()) -> None:
    model, optimizer = trained()
    for step, loss in zip(steps, losses or [None] * len(steps), strict=True):
        checkpoint.save(folder, step, model, optimizer, {"loss": loss})


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in folder.glob("step-*"))


def test_weights_and_moments_come_back_with_their_memory_layout(tmp_path: Path) -> None:
    """A fused update walks over weight and moment in memory order: another order would mix them up silently."""
    model, optimizer = trained()
    saved = checkpoint.save(tmp_path, 7, model, optimizer, {"more": [1, 2]})
    other, fresh = net(), None
    fresh = torch.optim.Adam(other.parameters(), fused=True)

    found = checkpoint.verify(saved.path)
    found.load_model(other)
    found.load_optimizer(fresh)

    assert (found.step, found.state["more"]) == (7, [1, 2])
    for old, new in zip(model.parameters(), other.parameters(), strict=True):
        assert old.equal(new)
        for name, value in optimizer.state[old].items():
            assert value.equal(fresh.state[new][name])
            if value.dim():
                assert fresh.state[new][name].stride() == new.stride()


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 1)

    with pytest.raises(CheckpointError, match="does not fit this model"):
        checkpoint.verify(tmp_path / "step-00000001").load_model(net(5))


def test_the_newest_that_verifies_is_the_latest(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 10)
    (tmp_path / "step-00000010" / "state.json").write_text("{}")
    warnings: list[str] = []

    found = checkpoint.latest(tmp_path, warnings.append)

    assert found is not None
    assert found.step == 2
    assert len(warnings) == 1
    assert "step-00000010/state.json: damaged" in warnings[0]


def test_nothing_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "none", print) is None


def test_another_version_is_named(tmp_path: Path) -> None:
    write(tmp_path, 1)
    path = tmp_path / "step-00000001"
    state = json.loads((path / "state.json").read_text()) | {"version": 99}
    (path / "state.json").write_text(json.dumps(state))
    files = json.loads((path / checkpoint.MANIFEST).read_text())
    files["state.json"] = checkpoint._digest(path / "state.json")
    (path / checkpoint.MANIFEST).write_text(json.dumps(files))

    with pytest.raises(CheckpointError, match="version 99, this version reads sbtrain-checkpoint 1"):
        checkpoint.verify(path)


def test_the_newest_are_kept_and_litter_is_removed(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3, 9)
    (tmp_path / ".step-00000004.123.tmp").mkdir()

    checkpoint.prune(tmp_path, newest=3, keep=2)

    assert steps(tmp_path) == [2, 3]  # 9 was damaged: the run went on before it
    assert list(tmp_path.glob(".*")) == []


def test_the_best_is_kept_as_well(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3, 4, losses=(9.0, 5.0, None, 7.0))

    checkpoint.prune(tmp_path, newest=4, keep=1, keep_best=True)

    assert steps(tmp_path) == [2, 4]


def test_the_estimated_size_is_the_real_one(tmp_path: Path) -> None:
    model = nn.Sequential(*[nn.Conv2d(64, 64, 3) for _ in range(8)])
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    model(torch.randn(1, 64, 20, 20)).sum().backward()
    optimizer.step()
    checkpoint.save(tmp_path, 1, model, optimizer, {})

    real = checkpoint.folder_bytes(tmp_path)

    assert real <= checkpoint.estimate_bytes(model, 2) < 1.1 * real


def test_no_file_of_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    write(tmp_path, 1)

    names = {path.name for path in (tmp_path / "step-00000001").iterdir()}

    assert names == {"model.safetensors", "optim.safetensors", "state.json", "MANIFEST.json"}
