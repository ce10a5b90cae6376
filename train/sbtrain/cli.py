"""Command line of the trainer: parse, one call, print. Library errors become messages here, nowhere else."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

import sbformat
from sbformat.errors import ConfigError, SplitbrainError, suggestion
from sbtrain.__main__ import EXIT_INTERRUPTED

#: Command -> (module, its click command, help in the list). Loaded when called: torch takes a second or two.
COMMANDS = {
    "pretrain": ("sbtrain.pretrain_cli", "pretrain_command", "Pretrain a network on shards."),
    "finetune": (
        "sbtrain.evaluation.finetune_cli",
        "finetune_command",
        "Few-shot classifiers on a pretrained network.",
    ),
    "reconstruct": (
        "sbtrain.pictures.reconstruct_cli",
        "reconstruct_command",
        "Draw what a pretrained network predicts.",
    ),
    "reproduce": ("sbtrain.reproduce.cli", "reproduce_command", "Run a published table from presets."),
    "cluster": (
        "sbtrain.evaluation.cluster_cli",
        "cluster_command",
        "Clusters beside classes: NMI, AMI, ARI, accuracy.",
    ),
    "probe": ("sbtrain.evaluation.probe_cli", "probe_command", "Judge each layer of a pretrained network as it is."),
    "report": ("sbtrain.report.cli", "report_command", "One page from runs, beside what is published."),
    "features": ("sbtrain.evaluation.features_cli", "features_command", "Write features of a split to an HDF5 file."),
    "bins": ("sbtrain.pictures.bins_cli", "bins_command", "Draw which colors the bins hold, and how many are used."),
    "export": ("sbtrain.export.cli", "export_command", "Write an encoder as safetensors, ONNX and torch.export."),
    "bench": ("sbtrain.bench.cli", "bench_command", "Measure loader and training steps on this machine."),
    "presets": ("sbtrain.pretrain_cli", "presets_command", "List presets, or print every field of one."),
}


class _Commands(click.Group):
    """Loads commands when they are called, and turns the errors of the library into a message and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        if cmd_name != "pretrain" and os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ:
            raise click.UsageError(f"{cmd_name} is the work of one process. Start it without torchrun")
        module, name, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"no command {args[0]!r}{suggestion(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

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
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not loaded here
                raise
            raise click.ClickException(
                f"{str(error).partition('. GPU ')[0]}. Use a smaller --batch-size, in pretraining with another "
                f"--run-dir, or there --accumulate 2 or more with the same --batch-size, or see with nvidia-smi what "
                f"else is on the GPU"
            ) from error
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
