"""Options come from the fields of a config: names, defaults, what is given and what is not."""

from dataclasses import dataclass
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner, Result

from sbtrain.options import field_options


@dataclass(frozen=True, kw_only=True)
class Baked:
    """A config of every kind of field."""

    oven: Literal["gas", "wood"] = "gas"
    minutes: int = 20
    door_open: bool = False
    steam: bool = True
    split: str = "train"
    rack: int | None = None


HELPS = {
    "oven": "Kind.",
    "minutes": "Time.",
    "door_open": "Open.",
    "steam": "",
    "split": "Loaves.",
    "rack": "From below.",
}


def bake(*arguments: str, **how: Any) -> tuple[Result, dict[str, Any]]:
    given: dict[str, Any] = {}

    @click.command()
    @field_options(Baked, HELPS, **how)
    def command(**options: Any) -> None:
        given.update(options)

    return CliRunner().invoke(command, list(arguments)), given


def test_options_that_are_not_given_have_the_defaults_of_the_fields() -> None:
    assert Baked(**bake()[1]) == Baked()


def test_a_preset_sees_which_options_were_given() -> None:
    _, given = bake("--minutes", "20", "--no-door-open", unset=True)

    assert {name: value for name, value in given.items() if value is not None} == {"minutes": 20, "door_open": False}


def test_the_help_of_a_preset_s_option_names_the_default() -> None:
    said = bake("--help", unset=True)[0].output

    assert [text in said for text in ("Kind.  [gas]", "Time.  [20]", "Open.  [off]", "[on]", "From below.\n")] == [
        True
    ] * 5


def test_a_prefix_goes_before_option_and_parameter() -> None:
    assert bake("--my-minutes", "7", prefix="my_")[1]["my_minutes"] == 7


def test_a_field_without_a_help_has_no_option() -> None:
    @click.command()
    @field_options(Baked, {"minutes": ""})
    def command(minutes: int) -> None:
        """Do nothing."""

    assert [parameter.name for parameter in command.params] == ["minutes"]


@pytest.mark.parametrize(
    ("option", "given", "message"),
    [("--oven", "wod", "did you mean wood? There are gas, wood"), ("--split", "tran", "did you mean train?")],
)
def test_a_mistyped_name_is_told_the_nearest_one(option: str, given: str, message: str) -> None:
    result, _ = bake(option, given)

    assert result.exit_code == 2
    assert message in result.output
