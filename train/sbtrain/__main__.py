"""``python -m sbtrain``."""

from sbtrain.cli import main

main(prog_name="sbtrain")
