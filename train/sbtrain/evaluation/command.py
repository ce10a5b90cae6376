"""What the evaluating commands share: options made from a config, and how a command ends that is stopped."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click

from sbformat.schema import SPLITS
from sbtrain.__main__ import EXIT_INTERRUPTED
from sbtrain.evaluation.finetune_config import samples_text
from sbtrain.evaluation.fitting import Interrupted
from sbtrain.progress import ProgressPrinter
from sbtrain.runtime import EXIT_REQUEUE, StopRequest

F = TypeVar("F", bound=Callable[..., Any])


@contextmanager
def interruptible(stopped: str) -> Iterator[tuple[Callable[[str], None], Callable[[], bool]]]:
    """Yield what says a sentence, and what tells whether a signal came.

    `stopped` is said where one did; the process ends with 130 after Ctrl-C, with 75 after the others.
    """
    stop = StopRequest()
    with stop.listening(), ProgressPrinter() as progress:
        try:
            yield progress.say, lambda: stop.signal is not None
        except (Interrupted, KeyboardInterrupt):
            progress.say(stopped)
            sys.exit(EXIT_INTERRUPTED if stop.signal == signal.SIGINT else EXIT_REQUEUE)


def field_options(config: type[Any], helps: dict[str, str]) -> Callable[[F], F]:
    """Return a decorator that gives a command an option for each field of a config, its help by the field's name."""

    def decorate(function: F) -> F:
        for field in reversed(fields(config)):
            flag, settings = _option(field.name, get_type_hints(config)[field.name], field.default)
            function = click.option(flag, field.name, help=helps[field.name], **settings)(function)
        return function

    return decorate


def _option(name: str, hint: Any, default: Any) -> tuple[str, dict[str, Any]]:
    flag = "--" + name.replace("_", "-")
    settings: dict[str, Any] = {"type": hint, "default": default, "show_default": True}
    if name == "samples_per_class":
        return flag, {"default": ",".join(map(samples_text, default)), "show_default": True}
    if name == "layers":
        return flag, {"default": ",".join(default), "metavar": "NAMES"}
    if name == "labels_per_class":
        return flag, {"default": samples_text(default), "show_default": True, "metavar": "N"}
    if name == "standardize":
        return f"{flag}/--no-standardize", {"default": True, "show_default": True}
    if hint is bool:
        return flag, {"is_flag": True}
    if name in ("split", "eval_split", "learn_split"):
        settings["type"] = click.Choice(SPLITS)
    elif get_origin(hint) is Literal:
        settings["type"] = click.Choice(get_args(hint))
    elif name == "layer":
        settings = {"metavar": "NAME"}
    elif name == "folds":
        settings = {"type": click.Path(path_type=Path, dir_okay=False), "metavar": "PATH"}
    elif name == "pool":
        settings["metavar"] = "S"
    return flag, settings
