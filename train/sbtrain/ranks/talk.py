"""What ranks tell one another besides tensors: JSON values, and errors among them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from sbformat.errors import ConfigError, SplitbrainError
from sbtrain.ranks.meeting import RankError

T = TypeVar("T")


def exchange(value: Any, size: int, group: dist.ProcessGroup | None) -> list[Any]:
    """Return the JSON values that the `size` ranks of `group` brought, in their order; every rank has to call it."""
    content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(size)]
    dist.all_gather(sizes, torch.tensor([len(content)]), group)
    most = int(max(sizes))
    padded = torch.zeros(most, dtype=torch.uint8)
    padded[: len(content)] = content
    parts = [torch.empty_like(padded) for _ in range(size)]
    dist.all_gather(parts, padded, group)
    return [json.loads(bytes(part[: int(n)].tolist())) for part, n in zip(parts, sizes, strict=True)]


def attempt(call: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """Return what `call` returns or what it raises, of the errors that a person is told."""
    try:
        return call(), None
    except (SplitbrainError, OSError) as error:
        return None, error


def error_record(error: Exception | None) -> dict[str, Any] | None:
    """Return an error as JSON."""
    return None if error is None else {"config": isinstance(error, ConfigError), "text": str(error)}


def error_of(record: dict[str, Any], prefix: str) -> SplitbrainError:
    """Inverse of `error_record`, for another rank: it exits with the same code."""
    return (ConfigError if record["config"] else RankError)(prefix + record["text"])
