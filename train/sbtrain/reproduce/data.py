"""The data sets of SimSiam's and Self-Classifier's reports: how a prepared set is known for one, and how it is built.

The split-brain report is of one data set, and runs on any other are set beside it. These two are of three and of noise, so
each cell names its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sbformat.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set, in color."""

    shown: str
    kind: str
    """That `sbprep` writes into the manifest of each split that it has read from the official files."""
    build: str
    """Commands that prepare it."""
    labels: tuple[str, ...] = ()
    """Names by which it is known where it was read from a folder of pictures."""
    image_size: int = 0
    """Of its shards; 0: any."""
    attributes: bool = False
    """Its images have attributes instead of a class."""


_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_STL10 = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
NOISE = "noise"
#: Pixels of a side of its images, at least: those of CIFAR-10, on which it is judged.
NOISE_SIZE = 32
#: Yes-or-no labels of each of its images.
CELEBA_ATTRIBUTES = 40
DATASETS = {
    "cifar10": DataSet(
        shown="CIFAR-10 at 32 x 32", kind="cifar10", labels=_CIFAR10, image_size=32,
        build="sbprep build --source cifar-10-binary.tar.gz --colorspace rgb --image-size 32 --target-size 4 --out cifar10",
    ),
    "stl10": DataSet(
        shown="STL-10", kind="stl10", labels=_STL10, image_size=96,
        build="sbprep build --source stl10_binary.tar.gz --colorspace rgb --out stl10",
    ),
    "celeba": DataSet(
        shown="CelebA", kind="celeba", attributes=True,
        build="sbprep build --source celeba --colorspace rgb --image-size 178 --out celeba",
    ),
    # Views of 32 x 32 pixels are crops of 224 x 224, as in the report's code, so they average noise away. 15 GB.
    NOISE: DataSet(
        shown="noise", kind="noise",
        build='python -c "import numpy as np; r = np.random.default_rng(0); a = np.lib.format.open_memmap(\'noise.npy\', '
        "'w+', np.uint8, (100_000, 224, 224, 3)); [np.copyto(x, r.integers(0, 256, x.shape, np.uint8)) for x in a]\" && "
        "sbprep build --unlabeled noise.npy --colorspace rgb --image-size 224 --target-size 4 --out noise",
    ),
}  # fmt: skip


def is_set(manifest: Manifest, name: str) -> bool:
    """Return whether a prepared set is the data set of that name; noise is known by its file, ``noise.npy``."""
    wanted, sources = DATASETS[name], [split.source for split in manifest.splits.values()]
    if manifest.colorspace != "rgb" or wanted.image_size not in (0, manifest.image_size):
        return False
    if name == NOISE:
        named = all("noise" in str(source.get("path")) for source in sources)
        return named and not manifest.label_names and manifest.image_size >= NOISE_SIZE
    same_labels = bool(wanted.labels) and set(manifest.label_names) == set(wanted.labels)
    attributes = wanted.attributes and stands_in(manifest, name) and len(manifest.label_names) == CELEBA_ATTRIBUTES
    return same_labels or attributes or any(source.get("kind") == wanted.kind for source in sources)


def stands_in(manifest: Manifest, name: str) -> bool:
    """Return whether a prepared set can show that everything runs: of color images, labeled as the data set is."""
    train = manifest.splits.get("train")
    kind = "attribute" if DATASETS[name].attributes else "class"
    return manifest.colorspace == "rgb" and name != NOISE and train is not None and train.label_kind == kind


def choose(manifests: Sequence[Manifest], name: str, stand_in: bool, split: str, images: int) -> Manifest | None:
    """Return the prepared set for a cell, None where there is none.

    Parameters
    ----------
    manifests : sequence of Manifest
    name : str
        One of `DATASETS`.
    stand_in : bool
        Where it is missing, take another one that can show that everything runs.
    split : str
        That a stand-in has to have.
    images : int
        Of train, in the report: a set with as many is preferred.
    """
    exact = [each for each in manifests if is_set(each, name)]
    others = [each for each in manifests if stand_in and stands_in(each, name) and split in each.splits]
    alike = [each for each in exact if "train" in each.splits and each.splits["train"].images == images]
    return next(iter([*alike, *exact, *others]), None)
