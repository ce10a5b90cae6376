"""Presets: TOML files of config fields.

``report/...``: what the reports' code did; ``paper/...``: the original papers; ``modern/...``: our own recipes.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

from sbformat.errors import ConfigError
from sbformat.schema import COLORSPACES
from sbtrain.config import FIELDS_OF, PretrainConfig, check_fields


@dataclass(frozen=True)
class Preset:
    """Fields of a config, and what goes with them."""

    name: str
    about: str
    """What it is, with the published number."""
    colorspace: str | None
    fields: dict[str, Any]

    @property
    def config(self) -> PretrainConfig:
        """The fields over the defaults."""
        return PretrainConfig.from_json(self.fields)

    @property
    def shown(self) -> dict[str, Any]:
        """Every field that its method has."""
        config = self.config
        return {
            name: v for name, v in config.to_json().items() if config.method in FIELDS_OF.get(name, (config.method,))
        }


def preset_names() -> list[str]:
    """Return the names that ``--preset`` takes, such as ``report/simplenet-lab``."""
    root = resources.files("sbtrain") / "presets"
    return sorted(
        f"{group.name}/{file.name.removesuffix('.toml')}"
        for group in root.iterdir()
        if group.is_dir()
        for file in group.iterdir()
        if file.name.endswith(".toml")
    )


def presets_of(method: str, network: str | None = None) -> list[str]:
    """Return the names of the presets of a method, or of a method and a network."""
    loaded = [load_preset(name) for name in preset_names()]
    return [
        preset.name
        for preset in loaded
        if preset.fields.get("method") == method and network in (None, preset.fields.get("network"))
    ]


def load_preset(name: str) -> Preset:
    """Read a preset by name, or one of your own by the path of its TOML file.

    Raises
    ------
    ConfigError
        There is no such preset, or it has a field or a value that does not exist.
    """
    if name.endswith(".toml"):
        text = _own_file(Path(name))
    elif name in preset_names():
        text = (resources.files("sbtrain") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    else:
        named = [each for each in preset_names() if name in each] or get_close_matches(name, preset_names(), 1)
        hint = f"did you mean {named[0]}? " if len(named) == 1 else f"there are {', '.join(named)}. " if named else ""
        raise ConfigError(f"no preset {name!r}: {hint}sbtrain presets lists them")
    try:
        data = tomllib.loads(text)
        about, colorspace = data.pop("about", ""), data.pop("colorspace", None)
        if colorspace not in (None, *COLORSPACES):
            raise ConfigError(f"colorspace {colorspace!r}, expected one of {', '.join(COLORSPACES)}")
        preset = Preset(name, about, colorspace, data)
        _ = preset.config
        check_fields(data, ())
    except (tomllib.TOMLDecodeError, ConfigError) as error:
        raise ConfigError(f"preset {name}: {error}") from error
    return preset


def resolve(preset: str | None, overrides: dict[str, Any]) -> tuple[PretrainConfig, Preset | None]:
    """Return the config of a preset, or of the defaults, with some fields set otherwise."""
    chosen = None if preset is None else load_preset(preset)
    given = {**(chosen.fields if chosen else {}), **overrides}
    config = PretrainConfig.from_json(given)
    check_fields(given, overrides)
    return config, chosen


def _own_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"preset {path}: no such file. sbtrain presets lists those that come along") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"preset {path}: cannot be read ({error})") from error
