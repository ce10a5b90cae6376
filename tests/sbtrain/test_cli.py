from click.testing import CliRunner

import sbformat
from sbtrain.cli import main


def test_the_trainer_says_its_version() -> None:
    result = CliRunner().invoke(main, ["--version"])

    assert result.exit_code == 0
    assert sbformat.__version__ in result.output


def test_short_help_works() -> None:
    assert CliRunner().invoke(main, ["-h"]).exit_code == 0
