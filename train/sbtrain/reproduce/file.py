"""``reproduce.json`` as a file: its name, its version, and what an earlier call wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAME = "reproduce.json"
FORMAT = "sbtrain-reproduce"
VERSION = 1


def read_record(path: Path) -> dict[str, Any]:
    """Return the content; empty where it is missing, damaged or of another version: it can be made again."""
    try:
        record = json.loads(path.read_bytes())
        whole = (record["format"], record["version"]) == (FORMAT, VERSION)
        whole &= isinstance(record["tables"], dict) and isinstance(record["cells"], list)
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return dict(record) if whole else {}
