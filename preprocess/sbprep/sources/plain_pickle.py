"""Pickles of plain data, unpickled without running anything in them: what the batches of CIFAR need and no more."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

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
        return _plain(_PlainUnpickler(content).load())
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

    stack: list[Any]

    def __init__(self, content: bytes) -> None:
        super().__init__(BytesIO(content), encoding="bytes")
        self._encodable = len(content)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _StandIn(self._encode)
        if (module, name) not in _STAND_INS:
            raise _Refused(f"{module}.{name}")
        return _StandIn(_STAND_INS[module, name])

    def get_extension(self, code: int) -> Any:  # would ask the process-wide registry, not find_class
        raise _Refused(f"extension {code}")

    def _encode(self, text: Any, encoding: Any) -> bytes:
        """Encode as Python 3 has it done when it pickles bytes for Python 2: each text once, so no more than there is."""
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise _Refused(f"_codecs.encode to {_shown(encoding)}")
        self._encodable -= len(text)
        if self._encodable < 0:
            raise _Refused("to encode more text than it holds")
        return text.encode("latin1")

    def _load_dict(self) -> None:
        _check_keys(self.stack[::2])
        pickle._Unpickler.load_dict(self)  # type: ignore[attr-defined]

    def _load_item(self) -> None:
        _check_keys(self.stack[-2:-1])
        pickle._Unpickler.load_setitem(self)  # type: ignore[attr-defined]

    def _load_items(self) -> None:
        _check_keys(self.stack[::2])
        pickle._Unpickler.load_setitems(self)  # type: ignore[attr-defined]

    def _refuse(self) -> None:
        raise _Refused("a set or bytearray")

    # A set hashes what it holds as a dict does its keys; BYTEARRAY8 takes memory before it looks for the bytes.
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.DICT[0]: _load_dict,
        pickle.SETITEM[0]: _load_item,
        pickle.SETITEMS[0]: _load_items,
        **dict.fromkeys((op[0] for op in (pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET)), _refuse),
        pickle.BYTEARRAY8[0]: _refuse,
    }


def _check_keys(keys: list[Any]) -> None:
    """Raise where a key is not text or a number: nested tuples that share their parts take forever to hash."""
    for key in keys:
        if type(key) not in (str, bytes, int):
            raise _Refused(f"a {type(key).__name__} as the key of a dict")


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
        # Checked before it is shown or multiplied: nested tuples, and numbers of a million digits, take forever.
        if type(shape) is not tuple or len(shape) > 2 or any(type(n) is not int or not 0 <= n < 1 << 32 for n in shape):
            raise pickle.UnpicklingError("array of another shape than a batch has")
        if math.prod(shape) != len(content):
            raise pickle.UnpicklingError(f"array of shape {shape} from {len(content)} bytes")
        self.array = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


def _make_array(*_: Any) -> _Array:
    return _Array()


def _make_dtype(code: Any, *_: Any) -> _Uint8:
    if not isinstance(code, str | bytes) or text_of(code) not in ("u1", "|u1", "uint8"):
        raise _Refused(f"an array of dtype {_shown(code)}")
    return _Uint8()


def _shown(value: Any) -> str:
    """Return text as it is, and of anything else the type: to show nested tuples that share parts takes forever."""
    return repr(text_of(value)) if isinstance(value, str | bytes) else type(value).__name__


def _no_call(*_: Any) -> Any:
    raise _Refused("to call numpy.ndarray")


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _make_array,
    ("numpy._core.multiarray", "_reconstruct"): _make_array,
    ("numpy", "ndarray"): _no_call,  # an argument of _reconstruct
    ("numpy", "dtype"): _make_dtype,
}


def _plain(found: Any) -> Any:
    """Turn the dict of a batch into text keys and arrays; numbers and lists stay."""
    if not isinstance(found, dict):
        raise pickle.UnpicklingError(f"a {type(found).__name__}, not a dict")
    items = {text_of(key): value for key, value in found.items()}
    return {key: value.array if isinstance(value, _Array) else value for key, value in items.items()}


def text_of(value: Any) -> str:
    """Return text that Python 2 may have pickled as bytes; UnpicklingError for anything else, which is not shown."""
    if not isinstance(value, str | bytes):
        raise pickle.UnpicklingError(f"a {type(value).__name__}, expected text")
    return value.decode("latin1") if isinstance(value, bytes) else value
