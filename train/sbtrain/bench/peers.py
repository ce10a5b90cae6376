"""Loaders that others use, kept to be measured against; nothing else uses them.

Each yields the sizes of batches of the same images for ever, shuffled, in one process and one thread. A peer that cannot
be imported is left out, with the reason.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sbformat.manifest import Manifest
from sbtrain.data import SplitReader

BATCH = 64
#: What split-brain training reads.
DATASETS = ("image", "target_single", "target_dual")
#: Files, and samples of other formats, that are written: enough for the time that a slow loader is given.
REPORT_FILES, STREAMING_SAMPLES = 512, 4096
CELLS, BINS_SINGLE, BINS_DUAL = 12, 100, 10


@dataclass(frozen=True)
class Peer:
    """One loader."""

    name: str
    needs: dict[str, str]
    """Module -> what to install for it."""
    make: Callable[[Manifest, str, Path], Iterator[int]]
    """(manifest, split, folder for files) -> the sizes of batches, as they come."""

    def lacking(self) -> list[str]:
        """Return why it cannot run, a clause for each module that cannot be imported; empty where it can."""
        return [
            reason
            for module, distribution in self.needs.items()
            if (reason := _trouble(module, distribution)) is not None
        ]


def _trouble(module: str, distribution: str) -> str | None:
    try:
        imported_streaming() if module == "streaming" else importlib.import_module(module)
    except ModuleNotFoundError:
        return f"pip install {distribution}"
    except Exception as error:  # a broken installation of someone else's package must not end the benchmark
        return f"{distribution} cannot be imported ({error})"
    return None


# ------------------------------------------------------------------------------------------------------ naive HDF5


class RowsOfHDF5(Dataset[tuple[Tensor, ...]]):
    """One row of each dataset by `d[i]`, through libhdf5: what most HDF5 loaders do."""

    def __init__(self, manifest: Manifest, split: str, names: tuple[str, ...]) -> None:
        records = manifest.splits[split].shards
        self._files = [h5py.File(manifest.shard_path(split, record), "r", locking=False) for record in records]
        self._starts = np.cumsum([0, *(record.count for record in records)])
        self._names = names

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = index - int(self._starts[shard])
        return tuple(torch.as_tensor(self._files[shard][name][row]) for name in self._names)

    def close(self) -> None:
        """Close every file."""
        for file in self._files:
            file.close()


def hdf5_batches(manifest: Manifest, split: str, folder: Path) -> Iterator[int]:
    """Yield batch sizes of the naive HDF5 loader."""
    with contextlib.closing(RowsOfHDF5(manifest, split, DATASETS)) as dataset:
        yield from _endless(DataLoader(dataset, BATCH, shuffle=True, num_workers=0))


# ------------------------------------------------------------------------------------------------------- the report


class ReportImages(Dataset[tuple[Tensor, ...]]):
    """The report's loader: Pillow, rgb2lab in float64, a resize and np.digitize for every image in every epoch.

    Its "re-scaled Lab": bins of L over a fixed range, of a and b over the range of the image's own 12 x 12 map. That it
    made its tensors on the GPU one by one, and copied them back, is left out: the comparison errs in its favor.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._pil = importlib.import_module("PIL.Image")
        self._color = importlib.import_module("skimage.color")
        self._transform = importlib.import_module("skimage.transform")

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        with self._pil.open(self._paths[index]) as file:
            lab = self._color.rgb2lab(np.asarray(file.convert("RGB")))
        small = self._transform.resize(lab, (CELLS, CELLS), mode="constant", anti_aliasing=True, preserve_range=True)
        L, a, b = np.moveaxis(small, -1, 0)
        single = _digitized(L, 0, 101, BINS_SINGLE)
        dual = _digitized(a, a.min(), a.max() + 1, BINS_DUAL) * BINS_DUAL
        dual = dual + _digitized(b, b.min(), b.max() + 1, BINS_DUAL)
        x = (lab + np.array([0, 87, 108])) / np.array([100, 186, 203])
        return torch.from_numpy(x).permute(2, 0, 1).float(), torch.from_numpy(single), torch.from_numpy(dual)


def report_batches(manifest: Manifest, split: str, folder: Path) -> Iterator[int]:
    """Write some of the split's images as JPEG files, and yield batch sizes of the report's loader."""
    pil = importlib.import_module("PIL.Image")
    paths = []
    for number, rgb in enumerate(_smooth_images(manifest, split, REPORT_FILES)):
        paths.append(folder / f"{number:05d}.jpg")
        pil.fromarray(rgb).save(paths[-1], quality=90)
    yield from _endless(DataLoader(ReportImages(paths), min(BATCH, len(paths)), shuffle=True, num_workers=0))


def _digitized(channel: NDArray[Any], low: float, high: float, bins: int) -> NDArray[np.int64]:
    return np.asarray(np.digitize(channel, np.linspace(low, high, bins + 1)) - 1, np.int64)


def _smooth_images(manifest: Manifest, split: str, count: int) -> Iterator[NDArray[np.uint8]]:
    # JPEGs of random bytes are large and slow to decode: constant blocks of 8 x 8 are quick.
    for image in _rows(manifest, split, count)["image"]:
        small = image[:, ::8, ::8]
        smooth = np.repeat(np.repeat(small, 8, axis=1), 8, axis=2).transpose(1, 2, 0)
        yield np.ascontiguousarray(smooth)


# ------------------------------------------------------------------------------------------------ MosaicML Streaming


def streaming_batches(manifest: Manifest, split: str, folder: Path) -> Iterator[int]:
    """Write some of the split as MDS shards, and yield batch sizes of StreamingDataset."""
    streaming = imported_streaming()
    rows = _rows(manifest, split, STREAMING_SAMPLES)
    columns = {
        name: f"ndarray:{values.dtype.name}:{','.join(map(str, values.shape[1:]))}" for name, values in rows.items()
    }
    with streaming.MDSWriter(out=str(folder / "mds"), columns=columns) as writer:
        for i in range(len(rows["image"])):
            writer.write({name: rows[name][i] for name in DATASETS})
    dataset = streaming.StreamingDataset(local=str(folder / "mds"), shuffle=True, batch_size=BATCH)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        yield from _endless(DataLoader(dataset, BATCH, num_workers=0))


def imported_streaming() -> Any:
    """Import MosaicML Streaming, with an empty torchvision meanwhile where the real one cannot be imported.

    Streaming 0.13 imports it for data sets of its own, none of which is used here, and PyPI's wheels of it fit CUDA
    builds of torch alone ("operator torchvision::nms does not exist").
    """
    try:
        importlib.import_module("torchvision")
        return importlib.import_module("streaming")
    except Exception:
        contents: dict[str, dict[str, object]] = {"": {}, ".datasets": {"VisionDataset": object}, ".transforms": {}}
        contents[".transforms.functional"] = {"to_tensor": None}
        names = ["torchvision" + suffix for suffix in contents]
        before = {name: sys.modules[name] for name in names if name in sys.modules}
        for name, content in zip(names, contents.values(), strict=True):
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__dict__.update(content, __spec__=ModuleSpec(name, None))
        try:
            return importlib.import_module("streaming")
        finally:
            for name in names:
                del sys.modules[name]
            sys.modules.update(before)


PEERS = (
    Peer("the report's loader", {"PIL": "pillow", "skimage": "scikit-image"}, report_batches),
    Peer("h5py, d[i] per image", {}, hdf5_batches),
    Peer("MosaicML Streaming", {"streaming": "mosaicml-streaming"}, streaming_batches),
)


def _rows(manifest: Manifest, split: str, count: int) -> dict[str, NDArray[Any]]:
    reader = SplitReader(manifest, split, DATASETS)
    count = min(count, len(reader))
    out = {name: np.empty((count, *spec.row_shape), spec.dtype) for name, spec in reader.specs.items()}
    reader.gather(np.arange(count), out)
    reader.close()
    return out


def _endless(loader: Any) -> Iterator[int]:
    for _ in itertools.count():
        for batch in loader:
            first = batch["image"] if isinstance(batch, dict) else batch[0]
            yield len(first)
