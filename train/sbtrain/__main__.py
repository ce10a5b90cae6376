"""``python -m sbtrain``, and the command ``sbtrain``. Imports nothing itself: loading takes long enough to be interrupted."""

import sys

EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the command line; interrupted while it loads, it says one line."""
    try:
        from sbtrain.cli import main as command

        command(prog_name="sbtrain")
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
