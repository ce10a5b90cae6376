"""``python -m sbprep``, and the command ``sbprep``. Imports nothing itself: loading takes long enough to be interrupted."""

import sys

EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the command line; interrupted while it loads, it says one line."""
    try:
        from sbprep.cli import main as command

        command(prog_name="sbprep")
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
