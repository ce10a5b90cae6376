"""Sources of images: one module a kind of data set, all behind `base.Source`. This one chooses among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sbformat.absent import JOURNALS
from sbformat.errors import ConfigError, SourceError
from sbformat.manifest import COPY_NAME, MANIFEST_NAME
from sbformat.permutation import permute
from sbformat.schema import COLORSPACES, FORMAT_NAME
from sbprep.config import BuildConfig
from sbprep.sources import arrays, builtin, celeba, cifar, layout, stl10, webdataset
from sbprep.sources.archive import open_tree
from sbprep.sources.array_files import PackedRows
from sbprep.sources.base import SPLITS, Split
from sbprep.sources.tar import TarTree

__all__ = ["DATASETS", "open_splits"]


@dataclass(frozen=True)
class _Adapter:
    matches: Callable[[Path], bool]
    splits: Callable[[Path], dict[str, Split]]


def _tree_splits(path: Path) -> dict[str, Split]:
    return layout.splits_of_tree(*open_tree(path))


# In the order of detection: the particular before the general.
_ADAPTERS = {
    "stl10": _Adapter(stl10.matches, stl10.splits),
    "cifar": _Adapter(cifar.matches, cifar.splits),
    "celeba": _Adapter(celeba.matches, celeba.splits),
    "arrays": _Adapter(arrays.matches, arrays.splits),
    "webdataset": _Adapter(webdataset.is_webdataset, lambda path: webdataset.webdataset_splits((path,))),
    "archive": _Adapter(lambda path: path.is_file(), _tree_splits),
    "folder": _Adapter(lambda path: path.is_dir(), _tree_splits),
}

#: Values of ``--dataset``.
DATASETS = ("auto", *_ADAPTERS, "builtin")


def open_splits(config: BuildConfig) -> dict[str, Split]:
    """List every image that `config` asks for, in the order of SPLITS.

    Raises
    ------
    SourceError
        A path is missing, not readable by any adapter, broken, or holds no images.
    ConfigError
        Paths and ``--dataset`` contradict each other.
    """
    if not config.paths:
        if config.dataset not in ("auto", "builtin"):
            raise ConfigError(f"--dataset {config.dataset} needs --source PATH (or --train, --unlabeled, ...)")
        found = builtin.splits(image_size=config.image_size, seed=config.seed)
    elif config.dataset == "builtin":
        raise ConfigError("the built-in data set is generated and takes no path")
    else:
        found = _from_paths(config)
    found = layout.join_labels({name: found[name] for name in SPLITS if name in found})
    return {name: _limited(_with_scratch(split, config.out), config) for name, split in found.items()}


def _from_paths(config: BuildConfig) -> dict[str, Split]:
    found: dict[str, Split] = {}
    for name, path in config.paths.items():
        if not path.exists():
            raise SourceError(f"{path}: no such file or folder (given as --{name})")
        _refuse_prepared(path)
        splits = _whole(path, config.dataset) if name == "source" else {name: _one(path, config.dataset, name)}
        for split, content in splits.items():
            if split in found:
                raise ConfigError(f"split {split} is given twice: by --source, which has one, and by --{split}")
            found[split] = content
    return found


def _refuse_prepared(path: Path) -> None:
    """Raise `SourceError` for the output of a build: a data_cache folder, a color space's or a split's folder in it."""
    roots = [path, *(path / name for name in COLORSPACES), *([path.parent] if path.name in SPLITS else [])]
    ours = next((root for root in roots if _is_prepared(root)), None)
    if ours:
        raise SourceError(
            f"{path}: holds shards that sbprep build wrote ({ours}), expected images; "
            "give the images that they were made of, or look at them with `sbprep inspect`"
        )


def _is_prepared(root: Path) -> bool:
    # Journals are looked for by pattern, but not among a million images: under the names of color spaces only.
    journals = root.glob(JOURNALS) if root.name in COLORSPACES else ()
    return any(_is_ours(file) for file in (root / MANIFEST_NAME, root / COPY_NAME, *journals))


def _is_ours(file: Path) -> bool:
    try:
        with file.open("rb") as stream:  # a manifest.json may be anybody's
            return FORMAT_NAME.encode() in stream.read(256)
    except OSError:  # not there; or not readable, which the adapter reports
        return False


def _adapter_of(path: Path, dataset: str) -> str:
    if dataset != "auto":
        return dataset
    return next(name for name, adapter in _ADAPTERS.items() if adapter.matches(path))


def _whole(path: Path, dataset: str) -> dict[str, Split]:
    return _ADAPTERS[_adapter_of(path, dataset)].splits(path)


def _one(path: Path, dataset: str, split: str) -> Split:
    adapter = _adapter_of(path, dataset)
    if adapter in ("folder", "archive"):
        return layout.one_split_of_tree(*open_tree(path), split)
    splits = _ADAPTERS[adapter].splits(path)
    if split in splits:
        return splits[split]
    if len(splits) == 1:  # one unnamed set of images, such as an .npy file: it is what it is given as
        return next(iter(splits.values()))
    raise SourceError(f"{path}: {adapter} data with {', '.join(splits)}, no split {split}. Pass it as --source")


def _with_scratch(split: Split, folder: Path) -> Split:
    """Let passes over compressed files put images aside in `folder`."""
    if not isinstance(split.source, TarTree | PackedRows):
        return split
    return replace(split, source=replace(split.source, scratch=folder.absolute()))


def _limited(split: Split, config: BuildConfig) -> Split:
    total = len(split.listing)
    if config.limit is None or config.limit >= total:
        return split
    # Drawn from the whole listing, so that the few of a listing sorted by class still show every class.
    rows = np.sort(permute(np.arange(config.limit), total, config.seed))
    return replace(split, listing=split.listing.take(rows))
