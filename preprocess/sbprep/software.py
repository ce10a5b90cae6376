"""What decides the bytes of a shard besides the options: versions of libraries, and the code of this package."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
from contextlib import suppress
from functools import cache
from pathlib import Path

import sbformat
from sbformat.schema import SCHEMA_VERSION

#: Software that has a say in the bytes: decoding, HDF5 layout, compression.
_DISTRIBUTIONS = {
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
    "simplejpeg": ("simplejpeg",),
    "h5py": ("h5py",),
    "zstandard": ("zstandard",),
}


def versions() -> dict[str, str | None]:
    """Return the version of everything that has a say in the bytes; None where it is not installed."""
    return {"sbprep": sbformat.__version__, **{name: _version(names) for name, names in _DISTRIBUTIONS.items()}}


def facts() -> dict[str, str | None]:
    """Return `versions` with what computes, the schema and a digest of the code: alike on two machines, so are their shards."""
    computing = {name: _version((name,)) for name in ("numba", "numpy")}
    return {**versions(), **computing, "hdf5": _hdf5(), "schema": str(SCHEMA_VERSION), "code": code_digest()}


@cache
def code_digest() -> str:
    """Return 12 digits that change with any Python file of `sbformat` and `sbprep`, kernels included."""
    digest = hashlib.sha256()
    for package in (Path(sbformat.__file__).parent, Path(__file__).parent):
        for path in sorted(package.rglob("*.py")):
            digest.update(f"{package.name}/{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _hdf5() -> str | None:
    with suppress(ImportError, AttributeError):  # its own, whatever h5py was built for
        return str(importlib.import_module("h5py").version.hdf5_version)
    return None


def _version(distributions: tuple[str, ...]) -> str | None:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
