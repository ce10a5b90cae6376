"""What a GPU asks for beyond computing, as far as it can be seen without one."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from runs import command
from sbtrain import pretrain_cli, runtime
from sbtrain.batch import Batch
from sbtrain.cli import main
from sbtrain.data import Loader, Order, Residence, Rows
from sbtrain.methods.neighbor_queue import NeighborQueue
from sbtrain.networks.backbones import build_backbone
from sbtrain.ranks.synced_norm import synchronize
from sbtrain.runtime import set_up

FUSED = ("flash", "mem_efficient", "cudnn")


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Two GPUs that are not there; numbers of those that were made the current one."""
    numbers = [0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: numbers[-1])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch._C, "_cuda_setDevice", numbers.append, raising=False)
    monkeypatch.setenv("NCCL_ALGO", "")
    monkeypatch.delenv("NCCL_ALGO")
    deterministic, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    attention = {name: getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in FUSED}
    state = torch.random.get_rng_state()
    yield numbers
    torch.random.set_rng_state(state)
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = benchmark
    for name, enabled in attention.items():
        getattr(torch.backends.cuda, f"enable_{name}_sdp")(enabled)


@pytest.mark.parametrize(("text", "number"), [("auto", 0), ("cuda", 0), ("cuda:1", 1)])
def test_a_gpu_is_chosen_with_or_without_its_number(text: str, number: int, chosen: list[int]) -> None:
    made = set_up(text, "auto", "exact", 0)

    assert made.device == torch.device("cuda", number)
    assert chosen[-1] == number
    assert made.dtype == torch.bfloat16


def fused() -> list[bool]:
    return [getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in FUSED]


def test_exact_mode_leaves_out_sums_in_no_fixed_order(chosen: list[int]) -> None:
    """Gradients of fused attention, and sums within the switch between GPUs."""
    set_up("cuda", "auto", "exact", 0)

    assert fused() == [False] * 3
    assert os.environ.get("NCCL_ALGO") == "^NVLS,NVLSTree"


def test_fast_mode_puts_back_the_attention_that_torch_began_with(
    chosen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older torch begins without cuDNN's."""
    monkeypatch.setattr(runtime, "_FUSED_ATTENTION", {"flash": True, "mem_efficient": True, "cudnn": False})
    set_up("cuda", "auto", "exact", 0)
    monkeypatch.delenv("NCCL_ALGO")

    set_up("cuda", "auto", "fast", 0)

    assert fused() == [True, True, False]
    assert "NCCL_ALGO" not in os.environ


def test_without_a_gpu_attention_is_left_alone(chosen: list[int]) -> None:
    before = fused()

    set_up("cpu", "auto", "exact", 0)

    assert fused() == before


class Named(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Names of the operations that ran."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_the_queue_of_neighbors_never_asks_the_device_for_a_number() -> None:
    """Deterministic writing by index looks on the host whether the places exist."""
    queue = NeighborQueue(3, 2)

    with Named() as ran:
        queue.push(torch.ones(2, 2), torch.tensor([5, 6]))
        queue.nearest(torch.ones(2, 2), torch.tensor([5, 6]))

    assert [name for name in ran.names if "index_copy" in name or "index_put" in name or "local_scalar" in name] == []
    assert queue.index.tolist() == [5, 6, -1]


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="builds of torch without CUDA know no such device")
def test_in_exact_mode_the_queue_of_a_gpu_writes_nothing_by_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """There torch makes index_put of a scatter as well; its fake tensors have a device and no values."""
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    with FakeTensorMode(), torch.device("cuda", 0), Named() as ran:
        NeighborQueue(3, 2).push(torch.ones(2, 2), torch.arange(2))

    assert any("where" in name for name in ran.names)
    assert not any("scatter" in name or "index_put" in name for name in ran.names)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_norms_over_ranks_keep_the_activation_that_is_one_module_with_them(device: str) -> None:
    pytest.importorskip("timm")
    backbone = build_backbone("efficientnet_b0", (32,)).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = backbone(x)
        synchronize(backbone, torch.device(device))

        assert torch.equal(backbone(x), expected)


class OnSecondGpu(Residence):
    """Rows of a GPU that is not there."""

    def __init__(self) -> None:
        self.device, self.rows = torch.device("cuda", 1), 4

    def fetch(self, rows: Rows) -> Batch:
        return Batch(torch.from_numpy(rows), {})


def test_batches_are_prepared_with_the_runs_own_gpu_as_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread begins with the first GPU, on which each rank would then take half a gigabyte."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)

    assert [len(batch) for batch in Loader(OnSecondGpu(), Order(4, 0), 2).batches(0, 3)] == [2, 2, 2]
    assert chosen == [torch.device("cuda", 1)]


def test_a_full_gpu_is_a_message_and_not_a_traceback(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 1 GiB"
        )

    monkeypatch.setattr(pretrain_cli, "pretrain", fail)
    result = CliRunner().invoke(main, command(shards / "lab", tmp_path / "run"))

    assert result.exit_code == 1
    assert "Error: CUDA out of memory. Tried to allocate 20.00 MiB. Use a smaller --batch-size" in result.output
    assert "in pretraining with another --run-dir, or there --accumulate 2" in result.output
