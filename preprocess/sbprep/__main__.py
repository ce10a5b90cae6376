"""``python -m sbprep``."""

from sbprep.cli import main

main(prog_name="sbprep")
