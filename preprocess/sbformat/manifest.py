"""manifest.json: what a prepared color space holds, where every chunk lies and how to tell damage.

A shard exists only if the manifest says so (or, while a build runs, its journal). The manifest is written last, in
one atomic step, and carries a digest of itself; a hidden copy beside it is there to mend it from. It names no host, user, absolute time or process, so that the same
images and options give the same bytes anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbformat.absent import absent
from sbformat.durable import fsync_path, write_atomically
from sbformat.errors import ConfigError, ManifestError, SchemaVersionError
from sbformat.layout import laid_out, read_laid_out
from sbformat.records import CHECKSUM_HEX, ChunkTable, ShardRecord
from sbformat.schema import (
    COLORSPACES,
    FORMAT_NAME,
    SCHEMA_VERSION,
    SPLITS,
    Colorspace,
    DatasetSpec,
    TargetSpec,
    attribute_label,
    class_label,
    shard_datasets,
)

__all__ = [
    "CHECKSUM_HEX",
    "COPY_NAME",
    "MANIFEST_NAME",
    "REJECTS_NAME",
    "SOURCES_NAME",
    "ChunkTable",
    "Manifest",
    "ShardRecord",
    "SplitManifest",
    "check_schema",
    "fsync_path",
    "json_digest",
    "open_manifest",
    "prepared_colorspaces",
    "write_atomically",
]

MANIFEST_NAME = "manifest.json"
#: The same bytes, for `sbprep verify --repair` alone: nobody reads a set by it.
COPY_NAME = ".manifest.copy.json"
SOURCES_NAME = "sources.txt"
REJECTS_NAME = "rejects.jsonl"


@dataclass(frozen=True, kw_only=True)
class SplitManifest:
    """One split: how many images were listed, kept and rejected, its shards, files and statistics."""

    source: dict[str, Any]
    """Adapter and path as given on the command line."""
    listed: int
    rejected: dict[str, int]
    """Reason code -> images. listed = images + all of these."""
    label_kind: str | None
    """``class``, ``attribute`` or None."""
    files: dict[str, str]
    """sha256 of ``sources.txt`` and ``rejects.jsonl`` beside the shards."""
    statistics: dict[str, Any]
    shards: tuple[ShardRecord, ...]

    @property
    def images(self) -> int:
        """Number of images in all shards."""
        return sum(shard.count for shard in self.shards)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "source": self.source,
            "listed": self.listed,
            "images": self.images,
            "rejected": self.rejected,
            "label_kind": self.label_kind,
            "files": self.files,
            "statistics": self.statistics,
            "shards": [shard.to_json() for shard in self.shards],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SplitManifest:
        """Inverse of `to_json`."""
        return cls(
            source=data["source"],
            listed=data["listed"],
            rejected=data["rejected"],
            label_kind=data["label_kind"],
            files=data["files"],
            statistics=data["statistics"],
            shards=tuple(
                shard if isinstance(shard, ShardRecord) else ShardRecord.from_json(shard) for shard in data["shards"]
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One prepared color space; `root` is its folder, ``data_cache/<colorspace>``."""

    root: Path
    colorspace: Colorspace
    image_size: int
    target: TargetSpec
    label_names: tuple[str, ...]
    """Class names or attribute names; empty where no split is labeled."""
    recipe: dict[str, Any]
    """Every other option that decides the bytes (resize, seed, images per shard, compression, ...)."""
    provenance: dict[str, Any]
    """Color convention and versions of the software that wrote the shards."""
    splits: dict[str, SplitManifest]

    @property
    def compression(self) -> str:
        """``none`` or ``zstd``."""
        return str(self.recipe["compression"])

    def datasets(self, split: str) -> dict[str, DatasetSpec]:
        """Return the datasets in each shard of `split`, in file order."""
        kind = self.splits[split].label_kind
        label = {None: None, "class": class_label(), "attribute": attribute_label(len(self.label_names))}[kind]
        return shard_datasets(self.colorspace, self.image_size, self.target, label)

    def shard_path(self, split: str, shard: ShardRecord) -> Path:
        """Return the path of one shard file."""
        return self.root / split / shard.name

    def to_json(self) -> dict[str, Any]:
        """Return the whole manifest as JSON values, with its digest."""
        body = {
            "format": FORMAT_NAME,
            "schema": SCHEMA_VERSION,
            "colorspace": self.colorspace,
            "image_size": self.image_size,
            "target": self.target.to_json(),
            "label_names": list(self.label_names),
            "recipe": self.recipe,
            "provenance": self.provenance,
            "splits": {name: split.to_json() for name, split in self.splits.items()},
        }
        return {**body, "sha256": json_digest(body)}

    def write(self) -> None:
        """Put ``manifest.json`` into `root` in one atomic, durable step; before it its copy."""
        content = laid_out(self.to_json())
        for name in (COPY_NAME, MANIFEST_NAME):
            write_atomically(self.root / name, content)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read ``manifest.json`` at `path` (the file or its folder) and check its own digest.

        Raises
        ------
        ManifestError
            Missing, unreadable, damaged or not a manifest.
        SchemaVersionError
            Written under another schema version.
        """
        path = path / MANIFEST_NAME if path.is_dir() else path
        content = _read_bytes(path)
        data = read_laid_out(content)
        if data is None:
            data = _load_json(content, path)
            check_schema(data, path)
            expected, found = data.pop("sha256", None), json_digest(data)
            if expected != found:
                raise ManifestError(
                    f"{path}: its content has digest {found[:16]}…, the file says {str(expected)[:16]}…: damaged or "
                    f"edited. {_mend_text(path)}"
                )
        check_schema(data, path)
        if data.get("colorspace") not in COLORSPACES:
            raise ManifestError(
                f"{path}: colorspace {data.get('colorspace')!r}, expected one of {', '.join(COLORSPACES)}, which have three "
                f"channels each. Build it again: sbprep build --colorspace rgb"
            )
        try:
            return cls(
                root=path.parent,
                colorspace=data["colorspace"],
                image_size=data["image_size"],
                target=TargetSpec.from_json(data["target"]),
                label_names=tuple(data["label_names"]),
                recipe=data["recipe"],
                provenance=data["provenance"],
                splits={name: SplitManifest.from_json(split) for name, split in _in_order(data["splits"].items())},
            )
        except (KeyError, TypeError, AttributeError, ConfigError) as error:
            raise ManifestError(
                f"{path}: not a manifest of schema {SCHEMA_VERSION} ({error!r}). {_mend_text(path)}"
            ) from error


def open_manifest(root: Path, colorspace: str | None = None) -> Manifest:
    """Find and read the manifest under `root`, a ``data_cache`` folder or one color space's folder in it.

    Raises
    ------
    ManifestError
        None there, several and no `colorspace` to choose by, or the one asked for is missing.
    """
    if (root / MANIFEST_NAME).is_file():
        manifest = Manifest.read(root)
        if colorspace not in (None, manifest.colorspace):
            raise absent(root, [manifest.colorspace], colorspace)
        return manifest
    found = prepared_colorspaces(root)
    if colorspace is None and len(found) > 1:
        raise ManifestError(f"{root} holds {', '.join(found)}: choose one with --colorspace")
    if not found or colorspace not in (None, *found):
        raise absent(root, found, colorspace)
    return Manifest.read(root / (colorspace or found[0]))


def prepared_colorspaces(root: Path) -> list[Colorspace]:
    """Return the color spaces that have a manifest under `root`."""
    return [name for name in COLORSPACES if (root / name / MANIFEST_NAME).is_file()]


def json_digest(data: dict[str, Any]) -> str:
    """sha256 of the canonical JSON text of `data` (sorted keys, no spaces, ASCII)."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def check_schema(data: dict[str, Any], path: Path) -> None:
    """Raise unless `data` says that it is of this format and schema version."""
    if data.get("format") != FORMAT_NAME:
        raise ManifestError(f"{path}: format {data.get('format')!r}, expected {FORMAT_NAME!r}: not written by sbprep")
    if data.get("schema") != SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{path}: schema {data.get('schema')}, this version reads {SCHEMA_VERSION}. "
            f"Install the version that wrote it, or build again with --overwrite"
        )


def _in_order(splits: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return sorted(splits, key=lambda item: SPLITS.index(item[0]) if item[0] in SPLITS else len(SPLITS))


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ManifestError(f"{path}: missing. Build it: sbprep build, or sbprep merge after partitions") from None
    except OSError as error:  # says nothing about what the file holds
        raise ManifestError(
            f"{path}: cannot be read ({error.strerror}). Permit reading it, or look after the disk"
        ) from error


def _load_json(content: bytes, path: Path) -> dict[str, Any]:
    try:
        data = json.loads(content)
    except ValueError as error:
        raise ManifestError(f"{path}: not readable as JSON ({error}). {_mend_text(path)}") from error
    if not isinstance(data, dict):
        raise ManifestError(f"{path}: holds {type(data).__name__}, expected a JSON object. {_mend_text(path)}")
    return data


def _mend_text(path: Path) -> str:
    return f"Restore it from its copy: sbprep verify {path.parent} --repair"
