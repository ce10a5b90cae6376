"""``sbtrain export``: what is written gives the run's own features, wherever it is loaded."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result

from runs import command
from sbformat.errors import FormatError
from sbformat.manifest import open_manifest
from sbformat.shard import open_shard
from sbtrain.batch import Batch
from sbtrain.cli import main
from sbtrain.evaluation.pretrained import open_pretrained
from sbtrain.export import formats as exporting
from sbtrain.export.files import load_encoder
from sbtrain.tensor_files import load_tensors

SHORT = ("--epochs", "1", "--limit", "8")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def exported(run_dir: Path, shards: Path, out: Path, *more: object) -> dict[str, Any]:
    result = invoke("export", "--run", run_dir, "--shards", shards, "--out", out, *more)
    assert result.exit_code == 0, result.output
    card: dict[str, Any] = json.loads((out / "encoder.json").read_text())
    return card


def stored(shards: Path, space: str, count: int = 3) -> dict[str, np.ndarray]:
    manifest = open_manifest(shards, space)
    with open_shard(manifest, "unlabeled", manifest.splits["unlabeled"].shards[0]) as shard:
        return {name: shard.read(name, 0, count) for name in ("image", "image_range") if name in shard.datasets}


@pytest.fixture(scope="module")
def whole(undisturbed: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an export in all formats, up to conv3. Not to be changed."""
    out = tmp_path_factory.mktemp("export") / "encoder"
    exported(undisturbed, shards, out, "--layer", "conv3")
    return out


@pytest.fixture
def own_export(whole: Path, tmp_path: Path) -> Path:
    """Return a copy of the export that the test may change."""
    return shutil.copytree(whole, tmp_path / "encoder")


def features(run_dir: Path, shards: Path, rows: dict[str, np.ndarray], layer: str) -> torch.Tensor:
    """What the run itself makes of stored rows."""
    method = open_pretrained(run_dir, shards, "unlabeled", lambda _: None).method.eval()
    fields = {name: torch.from_numpy(values) for name, values in rows.items()}
    with torch.no_grad():
        return method.features(Batch(torch.zeros(1, dtype=torch.int64), fields), layer)


def test_every_file_gives_the_features_of_the_run(whole: Path, undisturbed: Path, shards: Path) -> None:
    rows = stored(shards, "lab", 5)
    wanted = features(undisturbed, shards, rows, "conv3")
    image = torch.from_numpy(rows["image"])

    with torch.no_grad():
        rebuilt = load_encoder(whole)(image)
        program = torch.export.load(whole / "encoder.pt2").module()(image)
    session = onnxruntime.InferenceSession(whole / "encoder.onnx", providers=["CPUExecutionProvider"])
    (graph,) = session.run(None, {"image": rows["image"]})

    assert torch.equal(rebuilt, wanted)
    assert torch.allclose(program, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    assert np.abs(graph - wanted.numpy()).max() < 1e-4 * float(wanted.abs().max())


def test_layers_beyond_the_chosen_one_are_left_out(whole: Path, undisturbed: Path) -> None:
    checkpoint = sorted((undisturbed / "checkpoints").glob("step-*"))[-1]
    every = load_tensors(checkpoint / "model.safetensors")

    kept = load_tensors(whole / "encoder.safetensors")

    wanted = {f"method.{name}" for name in every if re.search(r"conv[123]\.", name)}
    assert set(kept) == wanted
    assert all(torch.equal(kept[f"method.{name}"], every[name]) for name in every if f"method.{name}" in wanted)


def test_the_card_says_what_the_encoder_eats(whole: Path) -> None:
    card = json.loads((whole / "encoder.json").read_text())

    assert (card["format"], card["version"], card["layer"]) == ("sbtrain-encoder", 1, "conv3")
    assert card["input"]["image"]["shape"] == ["N", 3, 64, 64]
    assert card["input"]["image"]["colorspace"] == "lab"
    assert card["output"]["shape"] == ["N", 96, 12, 12]
    assert card["parameters"] == sum(p.numel() for p in load_encoder(whole).parameters())
    assert {"config", "data", "license", "load", "method", "network", "normalization", "run", "versions"} <= set(card)
    assert set(card["checks"]) == {"safetensors", "onnx", "torch"}
    x = np.array([0, 128, 255]) * card["normalization"]["scale"] + card["normalization"]["shift"]
    assert x[0] == 0
    assert 0 < x[1] < 1


def test_a_rescaled_run_that_sees_lab_takes_ranges_too(shards: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    arguments = command(shards, run_dir, "--colorspace", "rescaled_lab", "--input", "lab", *SHORT)
    assert invoke(*arguments).exit_code == 0

    card = exported(run_dir, shards, tmp_path / "out", "--pool", "1", "--format", "onnx")

    rows = stored(shards, "rescaled_lab")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "encoder.onnx", providers=["CPUExecutionProvider"])
    (graph,) = session.run(None, rows)
    wanted = features(run_dir, shards, rows, "logits").mean((2, 3), keepdim=True)
    assert list(card["input"]) == ["image", "image_range"]
    assert np.abs(graph - wanted.numpy()).max() < 1e-4 * float(wanted.abs().max())


@pytest.mark.parametrize(
    "method",
    [
        ("--method", "denoising", "--network", "autoencoder"),
        ("--loss", "regression", "--normalize", "standard"),
        ("--method", "simsiam", "--network", "resnet18-cifar", "--view-size", "32"),  # half as large
    ],
)
def test_every_method_exports(shards: Path, tmp_path: Path, method: tuple[str, ...]) -> None:
    run_dir = tmp_path / "run"
    result = invoke(*command(shards, run_dir, "--colorspace", "rgb", *method, *SHORT))
    assert result.exit_code == 0, result.output

    exported(run_dir, shards, tmp_path / "out", "--format", "safetensors,torch")

    encoder, rows = load_encoder(tmp_path / "out"), stored(shards, "rgb")
    with torch.no_grad():
        found = encoder(torch.from_numpy(rows["image"]))
    wanted = features(run_dir, shards, rows, encoder.layer)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_a_missing_library_is_said_before_anything_is_written(
    name: str, undisturbed: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)

    result = invoke("export", "--run", undisturbed, "--shards", shards / "lab", "--out", tmp_path / "out")

    assert result.exit_code == 2
    assert f"format onnx needs onnx and onnxruntime (import of {name} halted" in result.output
    assert "pip install 'splitbrain[export]', or leave it out: --format safetensors,torch" in result.output
    assert "encoder.safetensors" not in result.output
    assert not (tmp_path / "out").exists()


def test_the_older_way_to_onnx_gives_the_same(
    undisturbed: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where onnxscript is missing, or torch is older than 2.6."""
    monkeypatch.setattr(exporting, "_has_onnxscript", lambda: False)

    card = exported(undisturbed, shards, tmp_path / "out", "--format", "onnx")

    assert card["checks"]["onnx"]["difference"] < 1e-4


def test_no_file_names_a_path_of_this_machine(whole: Path) -> None:
    here = str(Path(exporting.__file__).parent).encode()

    assert [path.name for path in whole.iterdir() if here in path.read_bytes()] == []
    model = onnx.load(whole / "encoder.onnx")
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_an_export_replaces_the_one_before(own_export: Path, undisturbed: Path, shards: Path) -> None:
    card = exported(undisturbed, shards, own_export, "--format", "safetensors", "--layer", "conv1")

    assert sorted(path.name for path in own_export.iterdir()) == ["encoder.json", "encoder.safetensors"]
    assert list(card["files"]) == ["encoder.safetensors"]
    assert load_encoder(own_export / "encoder.json").layer == "conv1"


def test_loading_draws_no_random_numbers(whole: Path) -> None:
    before = torch.random.get_rng_state()

    load_encoder(whole)

    assert torch.equal(before, torch.random.get_rng_state())


def test_the_example_of_the_help_is_a_command(undisturbed: Path, shards: Path, tmp_path: Path) -> None:
    example = re.search(r"Example:\n +sbtrain ([^\n]+)\n\Z", invoke("export", "-h").output)
    assert example is not None
    arguments = example[1].replace("runs/NAME", str(undisturbed)).replace("data_cache", str(shards))

    result = invoke(*arguments.replace("--out encoder", f"--out {tmp_path}").split(), "--format", "safetensors")

    assert result.exit_code == 0, result.output


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layer", "conv9"), "layer 'conv9', this run's network has conv1, conv2"),
        (("--pool", "20"), "has 4 x 4 cells"),
        (("--pool", "-1"), "expected 0 or more"),
        (("--format", "onxx"), "expected any of safetensors, onnx, torch"),
    ],
)
def test_an_option_that_cannot_be_is_refused(
    undisturbed: Path, shards: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    result = invoke("export", "--run", undisturbed, "--shards", shards, "--out", tmp_path / "out", *options)

    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_a_file_that_gives_another_output_gets_no_name(
    undisturbed: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tolerances = dict.fromkeys(exporting.FORMATS, -1.0)
    monkeypatch.setattr(exporting, "TOLERANCES", tolerances)

    result = invoke("export", "--run", undisturbed, "--shards", shards, "--out", tmp_path, "--format", "safetensors")

    assert result.exit_code == 1
    assert "differs by" in result.output
    assert list(tmp_path.iterdir()) == []


def test_other_images_cannot_normalize(shards: Path, tmp_path: Path) -> None:
    run_dir, other = tmp_path / "run", shutil.copytree(shards / "lab", tmp_path / "lab")
    invoke(*command(shards, run_dir, "--colorspace", "lab", "--normalize", "standard", *SHORT))
    manifest = open_manifest(other)
    manifest.recipe["seed"] = 9
    manifest.write()

    result = invoke("export", "--run", run_dir, "--shards", other, "--out", tmp_path / "out")

    assert result.exit_code == 1
    assert "other images than" in result.output


def test_damaged_weights_are_refused(own_export: Path) -> None:
    weights = bytearray((own_export / "encoder.safetensors").read_bytes())
    weights[-1] ^= 1
    (own_export / "encoder.safetensors").write_bytes(weights)

    with pytest.raises(FormatError, match="its card says"):
        load_encoder(own_export)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "sbtrain-encoder", "version": 2}', "{}"])
def test_what_is_no_card_is_refused(own_export: Path, content: str) -> None:
    (own_export / "encoder.json").write_text(content)

    with pytest.raises(FormatError, match=r"encoder\.json"):
        load_encoder(own_export)


def test_a_folder_without_an_export_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="sbtrain export --run RUN"):
        load_encoder(tmp_path)


def test_an_interrupted_export_leaves_nothing(
    undisturbed: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "_write_program", interrupted)

    result = invoke(
        "export", "--run", undisturbed, "--shards", shards, "--out", tmp_path, "--format", "safetensors,torch"
    )

    assert result.exit_code == 130
    assert list(tmp_path.iterdir()) == []
