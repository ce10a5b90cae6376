"""Pickles of plain data, unpickled without running anything in them: what the batches of CIFAR need and no more."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbformat.errors import SourceError
from sbprep.sources.failures import raise_if_machine


def load_pickle(content: bytes, path: Path) -> Any:
    """Unpickle plain data: a dict of numbers, text, lists and uint8 arrays; nothing in it is ever run.

    Raises
    ------
    SourceError
        The pickle is malformed or wants anything else, or memory ran out; `path` is for the message.
    """
    try:
        return _plain(_PlainUnpickler(BytesIO(content), encoding="bytes").load())
    except _Refused as err:
        raise SourceError(
            f"{path}: refused: the pickle wants {str(err)[:200]}, expected a CIFAR batch of plain uint8 arrays; "
            "download it again or use the binary version"
        ) from err
    except Exception as err:  # a damaged pickle fails in any way at all
        raise_if_machine(err, path)
        raise SourceError(
            f"{path}: malformed pickle ({type(err).__name__}: {str(err)[:200]}), expected a CIFAR batch; "
            "download it again"
        ) from err


class _Refused(Exception):
    """What a pickle wanted and does not get."""


class _PlainUnpickler(pickle._Unpickler):
    """Unpickler whose globals are stand-ins, so that no pickle reaches numpy itself, let alone anything else.

    The one written in Python, for the one in C takes any amount of memory that a hostile pickle asks for.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise _Refused(f"{module}.{name}")
        return _StandIn(_STAND_INS[module, name])

    def get_extension(self, code: int) -> Any:  # would ask the process-wide registry, not find_class
        raise _Refused(f"extension {code}")


class _StandIn:
    """What a pickle gets in place of a global; it can be called and nothing else."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("to change a global")


class _Uint8:
    """Stands in for ``numpy.dtype('u1')``, the only one there is."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        """Ignore byte order and alignment: a byte has neither."""


class _Array:
    """Stands in for an array under construction; `array` is there once the pickle has given its state."""

    __slots__ = ("array",)
    array: NDArray[np.uint8]

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Uint8) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("array that is not of uint8 bytes")
        if any(type(n) is not int or n < 0 for n in shape) or math.prod(shape) != len(content):
            raise pickle.UnpicklingError(f"array of shape {shape} from {len(content)} bytes")
        self.array = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


def _make_array(*_: Any) -> _Array:
    return _Array()


def _make_dtype(code: Any, *_: Any) -> _Uint8:
    if text_of(code) not in ("u1", "|u1", "uint8"):
        raise _Refused(f"an array of dtype {text_of(code)!r}")
    return _Uint8()


def _make_bytes(text: str, encoding: Any) -> bytes:
    """Encode as Python 3 has it done when it pickles bytes for Python 2."""
    if not isinstance(text, str) or text_of(encoding) != "latin1":
        raise _Refused(f"_codecs.encode to {encoding!r}")
    return text.encode("latin1")


def _no_call(*_: Any) -> Any:
    raise _Refused("to call numpy.ndarray")


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _make_array,
    ("numpy._core.multiarray", "_reconstruct"): _make_array,
    ("numpy", "ndarray"): _no_call,  # an argument of _reconstruct
    ("numpy", "dtype"): _make_dtype,
    ("_codecs", "encode"): _make_bytes,
}


def _plain(found: Any) -> Any:
    """Turn the dict of a batch into text keys and arrays; numbers and lists stay."""
    if not isinstance(found, dict):
        raise pickle.UnpicklingError(f"a {type(found).__name__}, not a dict")
    items = {text_of(key): value for key, value in found.items()}
    return {key: value.array if isinstance(value, _Array) else value for key, value in items.items()}


def text_of(value: Any) -> str:
    """Return text that Python 2 may have pickled as bytes."""
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
