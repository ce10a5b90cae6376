"""Is what a folder was begun with what is asked for now? If not: a message that says what differs and what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sbformat.absent import PARTITION
from sbformat.errors import ManifestError, SourceError
from sbformat.manifest import MANIFEST_NAME

Entry = dict[str, Any]  # one split in a header's "sources"


def check_same(found: dict[str, Any], asked: dict[str, Any], path: Path) -> None:
    """Raise unless the header `found` in `path` says what this build says, naming every field that differs.

    Raises
    ------
    SourceError
        Other images. The path to them may be spelled otherwise.
    ManifestError
        Other options or software.
    """
    root, sources, now = path.parent, found.get("sources", {}), asked["sources"]
    if {name: _resolved(entry) for name, entry in sources.items()} != {n: _resolved(e) for n, e in now.items()}:
        raise SourceError(
            _changed_text(path, sources, now)
            if _origins(sources) == _origins(now) and [*sources] == [*now]
            else _other_text(path, sources, now)
        )
    for part in ("recipe", "provenance"):
        differ = _differences(found.get(part, {}), asked[part])
        if differ:
            raise ManifestError(
                f"{root} holds a build with other {'options' if part == 'recipe' else 'software'}: "
                f"{'; '.join(differ)}. Use the same, another --out, or discard it {discard_advice(path)}"
            )
    if found.get("label_names") != asked["label_names"]:
        raise ManifestError(
            f"{root} holds a build with other class names. Use another --out, or discard it {discard_advice(path)}"
        )


def discard_advice(path: Path) -> str:
    """Say how to discard what `path` belongs to: partitions cannot be overwritten one by one."""
    return f"by removing {path.parent}" if PARTITION.fullmatch(path.name) else "with --overwrite"


def _other_text(path: Path, sources: dict[str, Entry], now: dict[str, Entry]) -> str:
    text = (
        f"{path.parent} holds another image set: {_set_text(sources)} there, {_set_text(now)} asked for. "
        f"Give this one a folder of its own with --out, or discard that one {discard_advice(path)}"
    )
    counts = [sum(entry["listed"] for entry in entries.values()) for entries in (sources, now)]
    if counts[0] == counts[1] and None not in {option for option, _ in _origins(sources) | _origins(now)}:
        names = " ".join(dict.fromkeys(f"--{entry['option']} {entry['path']}" for entry in sources.values()))
        text += f". If the images are the same, name them as then: {names}"
    return text


def _changed_text(path: Path, sources: dict[str, Entry], now: dict[str, Entry]) -> str:
    split = next(name for name in now if _resolved(sources[name]) != _resolved(now[name]))
    before, after = sources[split], now[split]
    if before["listed"] != after["listed"]:
        what = f"{before['listed']:,} then, {after['listed']:,} now; --limit counts too"
    elif before.get("fingerprint") != after.get("fingerprint"):
        what = f"{before['listed']:,} then as now, with other names, sizes or labels"
    elif before.get("dates") != after.get("dates"):
        what = f"{before['listed']:,} then as now, files written anew since"
    else:
        what = f"read as {before.get('kind')} then, as {after.get('kind')} now"
    complete = path.name == MANIFEST_NAME
    return (
        f"{path.parent}: the images of split {split} have changed since this was {'built' if complete else 'begun'} "
        f"({_origin(after)}: {what}). A prepared set stays with the images it was listed from: prepare what is there "
        f"now with another --out, discard this {discard_advice(path)}"
        + (", or bring the images back" if complete else ", or bring the images back and run the command again")
    )


def _resolved(entry: Entry) -> Entry:
    path = entry.get("path")
    return {**entry, "path": None if path is None else os.path.realpath(path)}


def _origins(sources: dict[str, Entry]) -> set[tuple[str | None, str | None]]:
    return {(entry.get("option"), _resolved(entry)["path"]) for entry in sources.values()}


def _origin(entry: Entry) -> str:
    return "the built-in set" if entry["option"] is None else f"--{entry['option']} {entry['path']}"


def _set_text(sources: dict[str, Entry]) -> str:
    """Return for example ``2,000 images of --source photos (train, val)``."""
    by_origin: dict[str, list[str]] = {}
    for name, entry in sources.items():
        by_origin.setdefault(_origin(entry), []).append(name)
    parts = [
        f"{sum(sources[name]['listed'] for name in names):,} images of {origin} ({', '.join(names)})"
        for origin, names in by_origin.items()
    ]
    return " and ".join(parts) or "none"


def _differences(found: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for name in {**found, **asked}:
        before, after = found.get(name), asked.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += _differences(before, after, f"{name}.")
        elif before != after:
            lines.append(f"{prefix}{name} {before!r} there, {after!r} asked for")
    return lines
