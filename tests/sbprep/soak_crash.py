"""Kill a large build many times, half of the time its parent and half a worker, and compare with an undisturbed one.

    python tests/sbprep/soak_crash.py --kills 20 [--source PATH] [--limit N]

Not a test: it takes minutes. Exit status 0 if the result is byte for byte that of the undisturbed build.
"""

import random
import sys
import tempfile
import time
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "preprocess"), str(ROOT / "tests")]  # runs from a checkout that nobody installed

from builds import command, tree, unfinished  # noqa: E402
from crashes import Run, Victim, journaled, kill_again_and_again  # noqa: E402


@click.command()
@click.option("--kills", default=20, show_default=True, help="Half of them parents, half workers.")
@click.option("--source", type=click.Path(path_type=Path, exists=True), help="Images; none: the built-in set.")
@click.option("--limit", default=30_000, show_default=True, help="Images of each split.")
@click.option("--image-size", default=96, show_default=True)
@click.option("--images-per-shard", default=1024, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of victims and moments.")
def main(source: Path | None, kills: int, seed: int, **options: int) -> None:
    """Kill builds and print a verdict."""
    rng = random.Random(seed)
    victims: list[Victim] = ["parent", "worker"] * (kills // 2)
    rng.shuffle(victims)
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    arguments = ["build", "--colorspace=rgb", "--colorspace=rescaled_lab", *settings]
    arguments += [] if source is None else [f"--source={source}"]
    with tempfile.TemporaryDirectory() as folder:
        whole, out = Path(folder, "whole"), Path(folder, "killed")
        start = time.monotonic()
        check(Run(command(*arguments, f"--out={whole}")))
        shards = len(list(whole.rglob("*.h5")))
        print(f"undisturbed: {time.monotonic() - start:.1f} s, {shards} shards")

        def moment(run: Run, before: int) -> None:
            # One in four while it starts, the others anywhere between two commits, spread over the whole build.
            lines = before + 1 + rng.randrange(max(2, (shards - before) // (len(victims_to_come) + 1)))
            end = time.monotonic() + (rng.uniform(0, 2) if rng.random() < 0.25 else 600)
            while time.monotonic() < end and not run.ended and journaled(out) < lines:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.05))
            while victims_to_come[0] == "worker" and not run.workers() and not run.ended:
                time.sleep(0.001)
            victims_to_come.pop(0)

        victims_to_come = list(victims)
        for number, kill in enumerate(
            kill_again_and_again(command(*arguments, f"--out={out}"), out, victims, rng, moment)
        ):
            print(f"{number + 1:3} {kill.victim}: {kill.shards} lines journaled, gone after {kill.seconds:.2f} s")
        check(Run(command(*arguments, f"--out={out}")))
        same = tree(out) == tree(whole) and unfinished(out) == []
    print(f"{len(victims)} kills: {'every byte is that of the undisturbed build' if same else 'THE RESULTS DIFFER'}")
    sys.exit(0 if same else 1)


def check(run: Run) -> None:
    """Wait for a build that nobody kills."""
    status, _, err = run.end(3600)
    if status:
        sys.exit(err)


if __name__ == "__main__":
    main()
