"""Command line of the trainer. It has no commands yet: they come with the methods (docs/architecture.md)."""

from __future__ import annotations

import click

import sbformat


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(sbformat.__version__, prog_name="sbtrain")
def main() -> None:
    """Pretrain, fine-tune and evaluate on shards that sbprep wrote.

    This version has no commands yet: it reserves the program's name and its place in the tree.
    """
