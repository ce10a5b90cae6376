"""Command line of the trainer: parse, one call, print. Library errors become messages here, nowhere else."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

import sbformat
from sbformat.errors import ConfigError, SplitbrainError
from sbtrain.__main__ import EXIT_INTERRUPTED

#: Command -> (module, its click command, help in the list). Loaded when called: torch takes a second or two.
COMMANDS = {
    "pretrain": ("sbtrain.pretrain_cli", "pretrain_command", "Pretrain a network on shards."),
    "finetune": ("sbtrain.finetune_cli", "finetune_command", "Few-shot classifiers on a pretrained network."),
    "bench": ("sbtrain.bench_cli", "bench_command", "Measure loader and training steps on this machine."),
    "presets": ("sbtrain.pretrain_cli", "presets_command", "List presets, or print every field of one."),
}


class _Commands(click.Group):
    """Loads commands when they are called, and turns the errors of the library into a message and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, _, about) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            command = self.get_command(ctx, str(ctx.invoked_subcommand))
            assert command is not None, "it was just invoked"
            raise click.UsageError(str(error), click.Context(command, ctx, command.name)) from error
        except SplitbrainError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:  # while torch loads, which takes a second or two
            click.echo("Interrupted.", err=True)
            sys.exit(EXIT_INTERRUPTED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(sbformat.__version__, prog_name="sbtrain")
def main() -> None:
    """Pretrain, fine-tune and evaluate on shards that sbprep wrote.

    \b
    Example:
        sbtrain pretrain --shards data_cache --preset modern/simplenet --colorspace lab
    """
