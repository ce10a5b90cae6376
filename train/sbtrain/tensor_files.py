"""Named tensors in a file, without pickle: the only door to safetensors."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write `tensors`, wherever they are, to the new file `path`.

    Raises
    ------
    OSError
        The disk is full or not writable.
    """
    try:
        save_file({name: _plain(tensor) for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        raise OSError(f"{path}: cannot be written ({error})") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read every tensor of `path` into host memory."""
    tensors: dict[str, Tensor] = load_file(path)
    return tensors


def _plain(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    # safetensors refuses tensors that share memory, as views of one flat tensor do.
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
