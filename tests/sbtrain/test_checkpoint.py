"""Checkpoints are whole or not there, and come back bit for bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sbformat.errors import SchemaVersionError
from sbtrain import checkpoint
from sbtrain.checkpoint import CheckpointError
from sbtrain.retention import prune


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


def change_state(path: Path, **fields: Any) -> None:
    """Write a checkpoint's state otherwise, as another sbtrain would have: whole."""
    state = json.loads((path / "state.json").read_text()) | fields
    (path / "state.json").write_text(json.dumps(state))
    files = json.loads((path / checkpoint.MANIFEST).read_text())
    files["state.json"] = checkpoint._digest(path / "state.json")
    (path / checkpoint.MANIFEST).write_text(json.dumps(files))


def test_a_newest_of_another_version_is_no_damage_to_pass_over(tmp_path: Path) -> None:
    """It names the version, and the sbtrain to go on with."""
    write(tmp_path, 1, 2)
    change_state(tmp_path / "step-00000002", version=99, sbtrain="7.5")

    with pytest.raises(
        SchemaVersionError, match=r"version 99, written by sbtrain 7\.5; this one, .* reads .* 1\. Go on"
    ):
        checkpoint.latest(tmp_path, print)


def test_another_version_may_have_other_files(tmp_path: Path) -> None:
    write(tmp_path, 1)
    path = tmp_path / "step-00000001"
    change_state(path, version=99)
    (path / "optim.safetensors").unlink()

    with pytest.raises(SchemaVersionError, match="version 99"):
        checkpoint.verify(path)


def test_a_checkpoint_of_the_first_version_loads() -> None:
    """Written once, never again: whoever changes the format breaks this, and has to raise its version or read both."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    found = checkpoint.latest(Path(__file__).with_name("old_checkpoint"), pytest.fail)
    assert found is not None
    found.load_model(model)
    found.load_optimizer(optimizer)

    torch.testing.assert_close(model.weight.data, torch.tensor([[0.375, -2.125]]))
    torch.testing.assert_close(model.bias.data, torch.tensor([0.125]))
    moments = optimizer.state[model.weight]
    assert moments["step"] == 1
    torch.testing.assert_close(moments["exp_avg"], torch.tensor([[0.1, 0.2]]))
    torch.testing.assert_close(moments["exp_avg_sq"], torch.tensor([[0.001, 0.004]]))
    assert found.state == {
        "format": "sbtrain-checkpoint", "version": 1, "step": 7, "loss": 2.5, "regular": True,
        "totals": {"names": ["loss"], "sums": [12.5, 6.0, 1.0], "line": [10.0, 5.0, 1.0], "save": []},
        "bad": 1, "shift": 4, "rollbacks": 1,
    }  # fmt: skip


def test_the_newest_are_kept_and_litter_is_removed(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3, 9)
    (tmp_path / ".step-00000004.123.tmp").mkdir()

    prune(tmp_path, newest=3, keep=2)

    assert steps(tmp_path) == [2, 3]  # 9 was damaged: the run went on before it
    assert list(tmp_path.glob(".*")) == []


def test_the_newest_regular_one_is_kept_whatever_signals_wrote_after_it(tmp_path: Path) -> None:
    model, optimizer = trained()
    for step, regular in ((4, True), (8, True), (9, False), (10, False)):
        checkpoint.save(tmp_path, step, model, optimizer, {"regular": regular})

    prune(tmp_path, newest=10, keep=1)

    assert steps(tmp_path) == [8, 10]


def test_the_best_is_kept_as_well(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3, 4, losses=(9.0, 5.0, None, 7.0))

    prune(tmp_path, newest=4, keep=1, keep_best=True)

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
