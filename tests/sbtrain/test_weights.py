"""Weights that somebody else trained: they give the features they gave there, or a message says why not."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from runs import small_shards
from sbformat.errors import ConfigError
from sbtrain.cli import main
from sbtrain.config import PretrainConfig
from sbtrain.networks.backbones import TIMM, build_backbone
from sbtrain.networks.weights import load_weights

VIT = "vit_tiny_patch16_224"


def trained(model: nn.Module) -> nn.Module:
    """Return `model` in the state that training leaves: its averages are no longer those of a new one."""
    model.train()
    with torch.no_grad():
        model(torch.randn(4, 3, 96, 96))
    return model.eval()


def torchvision(name: str) -> nn.Module:
    return trained(getattr(pytest.importorskip("torchvision.models"), name)())


def timm(name: str, **options: int) -> nn.Module:
    model: nn.Module = pytest.importorskip("timm").create_model(name, **options)
    return model.eval()


def as_pth(state: dict[str, Tensor], folder: Path) -> Path:
    torch.save(state, folder / "weights.pth")
    return folder / "weights.pth"


def as_training_left_it(state: dict[str, Tensor], folder: Path) -> Path:
    wrapped = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 90, "state_dict": wrapped}, folder / "weights.pth.tar")
    return folder / "weights.pth.tar"


def as_safetensors(state: dict[str, Tensor], folder: Path) -> Path:
    save_file(state, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def features(name: str, path: Path, x: Tensor) -> Tensor:
    backbone = build_backbone(name, (x.shape[-1],))
    load_weights(backbone, path)
    with torch.no_grad():
        found: Tensor = backbone.eval()(x)
    return found


@pytest.mark.parametrize("write", [as_pth, as_training_left_it, as_safetensors])
def test_torchvisions_resnet_gives_its_features(write: Callable[..., Path], tmp_path: Path) -> None:
    theirs, x = torchvision("resnet18"), torch.randn(2, 3, 96, 96)
    path = write(theirs.state_dict(), tmp_path)
    theirs.fc = nn.Identity()

    torch.testing.assert_close(features("resnet18", path, x), theirs(x))


def test_torchvisions_alexnet_gives_its_outputs(tmp_path: Path) -> None:
    theirs, x = torchvision("alexnet"), torch.randn(2, 3, 96, 96)

    torch.testing.assert_close(features("alexnet", as_pth(theirs.state_dict(), tmp_path), x), theirs(x))


@pytest.mark.parametrize("name", ["efficientnet_b0", "pit_ti", f"timm:{VIT}"])
def test_timms_networks_give_their_features(name: str, tmp_path: Path) -> None:
    theirs = timm({"pit_ti": "pit_ti_224"}.get(name, name.removeprefix("timm:")))
    path, x = as_pth(theirs.state_dict(), tmp_path), torch.randn(1, 3, 224, 224)
    theirs.reset_classifier(0)  # type: ignore[operator]

    torch.testing.assert_close(features(name, path, x), theirs(x))


def test_position_embeddings_are_brought_to_the_size_of_the_images(tmp_path: Path) -> None:
    path, x = as_pth(timm(VIT).state_dict(), tmp_path), torch.randn(2, 3, 96, 96)
    theirs = timm(VIT, img_size=96, num_classes=0)
    state = torch.load(path, weights_only=True)
    from timm.models.vision_transformer import checkpoint_filter_fn

    theirs.load_state_dict(checkpoint_filter_fn(state, theirs), strict=False)

    torch.testing.assert_close(features(f"timm:{VIT}", path, x), theirs(x))


def attention_of_2021(qkv: Tensor, projection: nn.Module, x: Tensor, scale: float) -> Tensor:
    """Return what 8 heads of 96 make of tokens (N, 768), by weights (3 * 768, 768)."""
    q, k, v = ((x @ part.T).view(-1, 8, 96).transpose(0, 1) for part in qkv.chunk(3))
    heads = torch.softmax(q @ k.mT * scale, -1) @ v
    out: Tensor = projection(heads.transpose(0, 1).reshape(-1, 768))
    return out


@pytest.mark.parametrize(
    ("prefix", "scale"),
    [("", 768**-0.5), ("module.", 768**-0.5), ("body.", 96**-0.5), ("module.body.", 96**-0.5)],
    ids=["timm's", "timm's of DistributedDataParallel", "ours", "ours of DistributedDataParallel"],
)
def test_attention_of_2021_has_the_scale_that_the_weights_were_trained_with(
    prefix: str, scale: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    model, changes = TIMM["vit_small_2021"]
    monkeypatch.setitem(TIMM, "vit_small_2021", (model, changes | {"depth": 2}))
    first, backbone = (build_backbone("vit_small_2021", (32,)) for _ in range(2))
    state = {name: 4 * value for name, value in first.body.state_dict().items()}

    load_weights(backbone, as_pth({prefix + name: value for name, value in state.items()}, tmp_path))

    x = torch.randn(5, 768)
    attention = backbone.body.get_submodule("blocks.1.attn")
    wanted = attention_of_2021(state["blocks.1.attn.qkv.weight"], attention.get_submodule("proj"), x, scale)
    torch.testing.assert_close(attention(x[None])[0], wanted)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("resnet18-cifar", r"1 of another shape \(stem\.0\.weight \(64, 3, 7, 7\) for \(64, 3, 3, 3\)\)"),
        ("alexnet", r"16 missing \(conv1\.0\.0\.weight, .+, …\), 120 unknown"),
    ],
)
def test_weights_of_another_network_are_named(network: str, message: str, tmp_path: Path) -> None:
    path = as_pth(torchvision("resnet18").state_dict(), tmp_path)

    with pytest.raises(ConfigError, match=f"are those of another network than {network}: {message}"):
        load_weights(build_backbone(network, (96,)), path)


class Surprise:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return print, ("it ran",)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "cannot be read as tensors"),
        (lambda path: path.write_bytes(b""), "cannot be read as tensors"),
        (lambda path: path.write_text("<html>404</html>"), "cannot be read as tensors"),
        (lambda path: torch.save(Surprise(), path), "cannot be read as tensors"),
        (lambda path: torch.save([1, 2], path), "no state dict"),
        (lambda path: torch.save({"epoch": 3}, path), "no state dict"),
    ],
)
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_file_without_weights_is_refused_and_nothing_of_it_is_run(
    write: Callable[[Path], object], message: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    write(path)
    expected = message if path.suffix == ".pth" or message == "no such file" else "cannot be read as tensors"

    with pytest.raises(ConfigError, match=f"weights {re.escape(str(path))}: {expected}"):
        load_weights(build_backbone("resnet18", (32,)), path)
    assert "it ran" not in capsys.readouterr().out


def test_a_damaged_file_is_not_answered_with_how_to_run_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"\x80\x02damaged")

    with pytest.raises(ConfigError) as raised:
        load_weights(build_backbone("resnet18", (32,)), path)

    assert "weights_only" not in str(raised.value)
    assert "torch.save(model.state_dict(), PATH)" in str(raised.value)


def test_what_was_taken_is_said_and_what_was_left_out(tmp_path: Path) -> None:
    path = as_pth(torchvision("resnet18").state_dict(), tmp_path)

    said = load_weights(build_backbone("resnet18", (32,)), path)

    assert said == f"weights {path}: 120 tensors taken, 2 left out (of fc)"


def test_no_epochs_are_for_given_weights_alone() -> None:
    assert PretrainConfig(method="simsiam", network="resnet18", weights="w.pth", epochs=0).epochs == 0
    with pytest.raises(ConfigError, match="epochs 0: nothing would be learned"):
        PretrainConfig(epochs=0)


# ------------------------------------------------------------------------------------------------------ whole runs


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_shards(tmp_path_factory.mktemp("shards"))


def call(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def begin(shards: Path, run_dir: Path, *more: object) -> str:
    options = ("--colorspace", "rgb", "--method", "simsiam", "--network", "resnet18", "--batch-size", 4, "--limit", 8)
    return call("pretrain", "--shards", shards, "--run-dir", run_dir, *options, *more)


def test_a_run_of_no_steps_holds_the_weights_and_is_judged_like_any_other(shards: Path, tmp_path: Path) -> None:
    theirs, run_dir = torchvision("resnet18"), tmp_path / "run"
    path = as_pth(theirs.state_dict(), tmp_path)
    begin(shards, run_dir, "--weights", path, "--epochs", 0)
    call("features", "--run", run_dir, "--shards", shards, "--split", "val")

    result = json.loads((run_dir / "results" / "pretrain.json").read_bytes())
    assert (result["steps"], result["images"]) == (0, 0)
    again = build_backbone("resnet18", (96,))
    load_weights(again, run_dir / "checkpoints" / result["checkpoint"] / "model.safetensors")
    assert torch.equal(again.body.state_dict()["stem.0.weight"], theirs.conv1.weight)


def test_a_run_goes_on_from_its_checkpoint_and_not_from_the_weights(shards: Path, tmp_path: Path) -> None:
    path = as_pth(torchvision("resnet18").state_dict(), tmp_path)
    more = ("--weights", path, "--epochs", 2)
    begin(shards, tmp_path / "whole", *more)
    begin(shards, tmp_path / "twice", *more, "--stop-after", 2)
    begin(shards, tmp_path / "twice", *more)

    found = [
        json.loads((tmp_path / name / "results" / "pretrain.json").read_bytes())["model_sha256"]
        for name in ("whole", "twice")
    ]
    assert found[0] == found[1]


def first_weights(run_dir: Path) -> Tensor:
    return load_file(run_dir / "checkpoints" / "step-00000000" / "model.safetensors")["backbone.body.stem.0.weight"]


@pytest.mark.parametrize("given", ["run", "encoder", "encoder/encoder.safetensors"])
def test_a_run_begins_with_the_weights_of_another_one_or_of_its_export(
    given: str, shards: Path, tmp_path: Path
) -> None:
    begin(shards, tmp_path / "run", "--stop-after", 0)
    export = ("--run", tmp_path / "run", "--shards", shards, "--out", tmp_path / "encoder", "--format", "safetensors")
    call("export", *export)

    said = begin(shards, tmp_path / "next", "--weights", tmp_path / given, "--stop-after", 0, "--seed", 1)

    assert torch.equal(first_weights(tmp_path / "next"), first_weights(tmp_path / "run"))
    left = "24 left out (of predictor, projector)" if given == "run" else "none left out"
    assert re.search(rf"weights {tmp_path}/{given}.*: 120 tensors taken, {re.escape(left)}", said)


def test_a_folder_that_holds_no_weights_is_refused(shards: Path, tmp_path: Path) -> None:
    options = ("--shards", str(shards), "--colorspace", "rgb", "--method", "simsiam", "--network", "resnet18")
    result = CliRunner().invoke(main, ["pretrain", *options, "--weights", str(tmp_path)])

    assert result.exit_code == 2
    assert f"weights {tmp_path}: a folder without a checkpoint or an export" in result.output


def test_a_method_of_its_own_networks_takes_no_weights(shards: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["pretrain", "--shards", str(shards), "--weights", "w.pth"])

    assert result.exit_code == 2
    assert "weights 'w.pth', but method split_brain has no such field" in result.output
