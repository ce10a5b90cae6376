"""Which rank this process is, by the variables that torchrun sets, or whatever sets the same ones."""

from __future__ import annotations

import os
from collections.abc import Mapping

from sbformat.errors import ConfigError
from sbtrain.ranks.world import ALONE, World


def from_environment(environment: Mapping[str, str] = os.environ) -> World:
    """Return the world that torchrun, or a launcher like it, has started this process in.

    Raises
    ------
    ConfigError
        Its variables are missing or contradict one another.
    """
    size = _number(environment, "WORLD_SIZE", 1)
    if size == 1:
        return ALONE
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in environment]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {size}, but {', '.join(missing)} not set. Start with torchrun, or unset WORLD_SIZE"
        )
    rank, local = _number(environment, "RANK", 0), _number(environment, "LOCAL_RANK", 0)
    if not 0 <= rank < size:
        raise ConfigError(
            f"RANK is {rank}, WORLD_SIZE {size}: expected a rank from 0 to {size - 1}. Start with torchrun"
        )
    return World(rank, size, local, _number(environment, "LOCAL_WORLD_SIZE", 1))


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not text.isdecimal():
        raise ConfigError(f"{name} is {text!r}, expected a number. Start with torchrun, or unset WORLD_SIZE")
    return int(text)
