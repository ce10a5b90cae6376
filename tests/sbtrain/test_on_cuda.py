"""On CUDA a loss waits for no number and leaves no tensor on the host: shown on a machine without a GPU.

torch's fake tensors have a shape and a device, but no values: mixed devices raise, and so does whatever asks for a
value. Backward passes and updates need a real device, so they are not here.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from sbformat.manifest import Manifest
from sbtrain.batch import Batch
from sbtrain.bench.synthetic import write_synthetic
from sbtrain.build import build_method
from sbtrain.methods import Method
from sbtrain.metrics import Totals
from sbtrain.networks.backbones import TIMM
from sbtrain.presets import load_preset
from sbtrain.step import gradient_norm

pytestmark = pytest.mark.skipif(
    not torch.backends.cuda.is_built(), reason="builds of torch without CUDA know no such device"
)

CUDA = torch.device("cuda", 0)
#: Every method, and every kind of network and view among the presets.
PRESETS = (
    "modern/simplenet",
    "modern/fc-alexnet",
    "report/resnet18-rescaled_lab",
    "report/table2",
    "report/denoising",
    "modern/simsiam-cifar10",
    "paper/simsiam-imagenet",
    "report/simsiam-stl10-vit_small",
    "report/simsiam-celeba-pit_ti",
    "report/simsiam-stl10-efficientnet_b0",
    "modern/self-classifier-cifar10",
    "paper/self-classifier-cifar10",
    "paper/self-classifier-imagenet",
    "report/self-classifier-alexnet-2hl",
)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    root = tmp_path_factory.mktemp("on_cuda")
    return {
        colorspace: write_synthetic(root / colorspace, {"unlabeled": 8}, colorspace, 96)
        for colorspace in ("rgb", "lab", "rescaled_lab")
    }


@pytest.mark.parametrize("name", PRESETS)
def test_a_loss_stays_on_the_device_and_waits_for_nothing(name: str, manifests: dict[str, Manifest]) -> None:
    preset = load_preset(name)
    if preset.config.network in TIMM:
        pytest.importorskip("timm")
    views = preset.config.method in ("simsiam", "self_classifier")
    manifest = manifests[preset.colorspace or ("rgb" if views else "lab")]
    config = replace(preset.config, split="unlabeled")
    with torch.device("meta"):
        method = build_method(config, manifest)
    with FakeTensorMode():
        _move(method)
        for epoch in (1, torch.zeros((), dtype=torch.int64, device=CUDA)):  # the second is what a CUDA graph reads
            _loss_and_norm(method, _batch(manifest, method, config.batch_size, epoch))


def test_such_a_test_sees_a_wait_and_a_tensor_on_the_host() -> None:
    with FakeTensorMode():
        x = torch.ones(2, device=CUDA)
        with pytest.raises(DataDependentOutputException):
            x.sum().item()
        with pytest.raises(RuntimeError, match=r"same device|different devices"):
            _ = x + torch.ones(2)


def _loss_and_norm(method: Method, batch: Batch) -> None:
    loss, logs = method.loss(batch)
    learning = [parameter for parameter in method.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.grad = torch.zeros_like(parameter)
    finite = torch.isfinite(gradient_norm(learning, clip=1.0)) & torch.isfinite(loss)
    Totals(CUDA).add(["loss", *logs], torch.stack([loss.detach(), *logs.values()]), finite)

    assert loss.requires_grad
    assert {tensor.device for tensor in (loss, finite, *logs.values())} == {CUDA}
    assert method.features(batch).device == CUDA


def _batch(manifest: Manifest, method: Method, size: int, epoch: int | Tensor) -> Batch:
    specs = manifest.datasets("unlabeled")
    rows = {name: torch.zeros((size, *specs[name].row_shape), dtype=torch.uint8) for name in method.datasets}
    return Batch(torch.arange(size, device=CUDA), {name: row.to(CUDA) for name, row in rows.items()}, epoch)


def _move(module: nn.Module) -> None:
    """Put empty weights on the device: `Module.to` cannot swap fake tensors."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(_empty(parameter), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = _empty(buffer)


def _empty(like: Tensor) -> Tensor:
    return torch.empty(like.shape, dtype=like.dtype, device=CUDA)
