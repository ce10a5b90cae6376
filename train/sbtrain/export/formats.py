"""One file of an encoder: written, loaded again, compared; the only door to onnx and onnxruntime."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.jit._trace import TracerWarning

from sbformat.errors import ConfigError, FormatError, SplitbrainError
from sbtrain.config import PretrainConfig
from sbtrain.export.card import WEIGHTS
from sbtrain.export.encoder import ExportedEncoder, rebuild
from sbtrain.runtime import RunError
from sbtrain.tensor_files import load_tensors, save_tensors

Format = Literal["safetensors", "onnx", "torch"]
FORMATS: tuple[Format, ...] = get_args(Format)

FILES: dict[Format, str] = {"safetensors": WEIGHTS, "onnx": "encoder.onnx", "torch": "encoder.pt2"}
#: Largest difference of an output, as a share of the largest number of the reference. The first is the same arithmetic;
#: measured on SimpleNet, ResNet18 and the autoencoder: at most 1e-6 (onnx), 0 (torch).
TOLERANCES: dict[Format, float] = {"safetensors": 0.0, "onnx": 1e-4, "torch": 1e-5}
#: Images of the example that graphs are traced with, and of the one that they are checked with: another number.
TRACED, CHECKED = 2, 3


def check_libraries(formats: tuple[Format, ...]) -> None:
    """Refuse formats whose libraries are missing.

    Raises
    ------
    ConfigError
        With how to install them.
    """
    if "onnx" not in formats:
        return
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"format onnx needs onnx and onnxruntime ({error}). Install them: pip install 'splitbrain[export]', or leave it "
            f"out: --format safetensors,torch"
        ) from error


def written(kind: Format, encoder: ExportedEncoder, about: dict[str, Any], path: Path) -> dict[str, Any]:
    """Write one file, load it, compare; return what was compared.

    Raises
    ------
    RunError
        The file gives another output than the encoder.
    """
    write = {"safetensors": _write_weights, "onnx": _write_onnx, "torch": _write_program}[kind]
    run = {"safetensors": _run_weights, "onnx": _run_onnx, "torch": _run_program}[kind]
    example = encoder.example(CHECKED, seed=1)
    with torch.no_grad():
        wanted = encoder(*example)
        write(encoder, path)
        found = run(about, path, example)
    if found.shape != wanted.shape:
        raise RunError(f"{path.name}: output {tuple(found.shape)}, expected {tuple(wanted.shape)}: not written")
    largest = float(wanted.abs().max())
    difference = float((found - wanted).abs().max()) / max(largest, 1e-12)
    if not difference <= TOLERANCES[kind]:
        raise RunError(
            f"{path.name}: its output differs by {difference:.2g} of the largest, expected {TOLERANCES[kind]:g} or less: "
            f"not written. Leave it out with --format, and report it"
        )
    return {"images": CHECKED, "bytes": "random", "difference": difference, "tolerance": TOLERANCES[kind]}


def load_weights(about: dict[str, Any], weights: Path) -> ExportedEncoder:
    """Rebuild the encoder that a card is about, with its weights.

    Raises
    ------
    FormatError
        They do not fit.
    """
    try:
        encoder = rebuild(PretrainConfig.from_json(about["config"]), about["data"], about["layer"], about["pool"])
        encoder.load_state_dict(load_tensors(weights))
    except (KeyError, TypeError, RuntimeError, SplitbrainError) as error:
        raise FormatError(
            f"{weights}: does not fit this version of sbtrain ({error}). Export the encoder again"
        ) from error
    return encoder


def _write_weights(encoder: ExportedEncoder, path: Path) -> None:
    save_tensors(path, encoder.state_dict())


def _run_weights(about: dict[str, Any], path: Path, example: tuple[Tensor, ...]) -> Tensor:
    result: Tensor = load_weights(about, path)(*example)
    return result


def _program(encoder: ExportedEncoder) -> torch.export.ExportedProgram:
    # Not strict: Python runs as it is, with the batch and its fields, which the tracer of torch 2.4 cannot follow.
    program = torch.export.export(encoder, encoder.example(TRACED), dynamic_shapes=_free(encoder), strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def _free(encoder: ExportedEncoder) -> dict[str, Any]:
    images = torch.export.Dim("images")
    return {name: {0: images} for name in encoder.inputs}


def _write_program(encoder: ExportedEncoder, path: Path) -> None:
    torch.export.save(_program(encoder), path)


def _run_program(about: dict[str, Any], path: Path, example: tuple[Tensor, ...]) -> Tensor:
    result: Tensor = torch.export.load(path).module()(*example)
    return result


def _write_onnx(encoder: ExportedEncoder, path: Path) -> None:
    import onnx

    names = list(encoder.inputs)
    options: dict[str, Any] = {"input_names": names, "output_names": ["features"], "verbose": False}
    if _has_onnxscript():
        options |= {"dynamo": True, "dynamic_shapes": _free(encoder), "external_data": False}
    else:
        options |= {"dynamic_axes": {name: {0: "images"} for name in [*names, "features"]}}
        if "dynamo" in signature(torch.onnx.export).parameters:
            options["dynamo"] = False
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # it prints how far it is
        # The older exporter says that it is older, and that it takes the sizes of maps for constants, which they are.
        warnings.filterwarnings("ignore", category=TracerWarning)
        # The newer one, that images and their ranges are as many, as they are meant to be.
        warnings.filterwarnings("ignore", "# The axis name: images will not be used", UserWarning)
        warnings.filterwarnings("ignore", "You are using the legacy TorchScript", DeprecationWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.onnx")
        torch.onnx.export(encoder, encoder.example(TRACED), str(path), **options)
    model = onnx.load(path)
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.functions):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):  # since onnx 1.16; where in the code of this machine each node comes from
            del part.metadata_props[:]
    onnx.save(model, path)


def _run_onnx(about: dict[str, Any], path: Path, example: tuple[Tensor, ...]) -> Tensor:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: it warns of devices that it does not need
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (features,) = session.run(None, {name: x.numpy() for name, x in zip(about["input"], example, strict=True)})
    return torch.from_numpy(features)


def _has_onnxscript() -> bool:
    """Return whether torch can export by its newer way: it needs this library, and torch 2.6."""
    return find_spec("onnxscript") is not None and "external_data" in signature(torch.onnx.export).parameters
