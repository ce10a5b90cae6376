"""Options of commands: those of a config's fields, whose name, type and default are written once, and common ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click

from sbformat.errors import suggestion
from sbformat.schema import SPLITS

F = TypeVar("F", bound=Callable[..., Any])
Settings = dict[str, dict[str, Any]]

#: Fields that name a split, whatever their hint.
SPLIT_FIELDS = ("split", "eval_split", "learn_split", "queries")
#: Field of several configs -> settings of its option that its hint does not say.
LAYER: Settings = {"layer": {"metavar": "NAME"}, "pool": {"metavar": "S"}}

run_option = click.option(
    "--run", "run_dir", type=click.Path(path_type=Path), required=True, help="Folder of a pretraining run."
)
shards_option = click.option("--shards", type=click.Path(path_type=Path), default=Path("data_cache"), show_default=True)
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")


class Names(click.Choice):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.2
    """A choice that says which name was meant."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name, or fail with the nearest one."""
        if value not in self.choices:
            self.fail(f"{value!r}{suggestion(str(value), self.choices)}", param, ctx)
        return super().convert(value, param, ctx)


def field_options(
    config: type[Any],
    helps: Mapping[str, str],
    special: Settings | None = None,
    *,
    unset: bool = False,
    prefix: str = "",
) -> Callable[[F], F]:
    """Return a decorator that gives a command an option for each field of a config.

    Parameters
    ----------
    config : type
        A dataclass.
    helps : mapping
        Field -> help of its option. A field without one has no option.
    special : mapping
        Field -> settings of its option that its hint and default do not say.
    unset : bool
        An option that is not given is None, to tell it from one that is: a preset may say otherwise. The default stands in
        the help.
    prefix : str
        What the names of options and parameters begin with, such as ``monitor_``.
    """
    hints = get_type_hints(config)

    def decorate(function: F) -> F:
        for field in reversed([field for field in fields(config) if field.name in helps]):
            name, hint, text = prefix + field.name, hints[field.name], helps[field.name]
            flag, settings = "--" + name.replace("_", "-"), _settings(field.name, hint, field.default, unset)
            if hint is bool and (unset or field.default):
                flag = f"{flag}/--no-{flag[2:]}"
            if unset:
                text = f"{text}{_default_text(hint, field.default)}".strip()
            function = click.option(flag, name, help=text, **settings | (special or {}).get(field.name, {}))(function)
        return function

    return decorate


def _settings(name: str, hint: Any, default: Any, unset: bool) -> dict[str, Any]:
    of_default = {"default": None} if unset else {"default": default, "show_default": True}
    if hint is bool:
        return of_default if unset or default else {"is_flag": True}
    if NoneType in get_args(hint):
        hint, of_default = get_args(hint)[0], {}
    if name in SPLIT_FIELDS:
        return {"type": Names(SPLITS), **of_default}
    return {"type": Names(get_args(hint)) if get_origin(hint) is Literal else hint, **of_default}


def _default_text(hint: Any, default: Any) -> str:
    shown = ("on" if default else "off") if hint is bool else default
    return "" if shown in ("", None) else f"  [{shown}]"
