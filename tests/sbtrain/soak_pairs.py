"""Train every backbone by SimSiam and by Self-Classifier, stop, go on, and judge: which pair does not do what it should?

    python tests/sbtrain/soak_pairs.py [--network alexnet --network timm:swin_tiny_patch4_window7_224 ...]

Of each pair of method and backbone, on 12 of the built-in images: a run of three steps and one that is stopped after the
first have the same weights and moments to the bit; fine-tuning, probe and clusters have their numbers.

Not a test: it takes a quarter of an hour, and a checkpoint is up to 0.6 GB. Exit status 0 if all pairs did.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import torch
from click.testing import CliRunner

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("preprocess", "train", "tests")]  # from a checkout, not installed

from builds import small_config  # noqa: E402
from runs import outcome  # noqa: E402
from sbprep.pipeline import build  # noqa: E402
from sbtrain.cli import main as sbtrain  # noqa: E402
from sbtrain.networks.backbones import BACKBONES  # noqa: E402

#: A queue and LARC where the method has them: both have a state to go on from.
METHODS = {
    "simsiam": ("--projector", "report", "--optimizer", "sgd"),
    "self_classifier": (
        "--head", "16", "--classes", "4", "--queue", "4", "--queue-replace", "--optimizer", "larc",
    ),
}  # fmt: skip
SHORT = (
    "--augmentation", "simsiam_cifar", "--view-size", "64", "--lr", "0.05", "--batch-size", "4", "--limit", "12",
    "--epochs", "1", "--split", "train", "--precision", "float32", "--checkpoint-every", "99", "--keep-last", "1",
)  # fmt: skip
FITS = ("--draws", "1", "--epochs", "1", "--min-steps", "1", "--eval-split", "val", "--eval-limit", "16")
EVALUATIONS = {
    "finetune": ("--samples-per-class", "1", *FITS),
    "probe": ("--layers", "backbone", "--labels-per-class", "2", *FITS),
    "cluster": ("--split", "val", "--limit", "16"),
}


class Failure(Exception):
    """A command that ended with another exit code than 0."""


def invoke(*arguments: str) -> None:
    result = CliRunner().invoke(sbtrain, [*arguments, "--device", "cpu"])
    if result.exit_code:
        raise Failure(f"{arguments[0]} ended with {result.exit_code}: {result.output[-300:]} {result.exception}")


def troubles(network: str, method: str, shards: Path, folder: Path) -> Iterator[str]:
    """Yield what a pair does not do."""
    whole, parts = folder / "whole", folder / "parts"
    given = ("pretrain", "--shards", str(shards), "--method", method, "--network", network, *METHODS[method], *SHORT)
    try:
        invoke(*given, "--run-dir", str(whole))
        invoke(*given, "--run-dir", str(parts), "--stop-after", "1")
        invoke(*given, "--run-dir", str(parts))
    except Failure as error:
        yield str(error)
        return
    if outcome(whole) != outcome(parts):
        yield "other weights, moments or metrics after a stop"
    for name, options in EVALUATIONS.items():
        if name == "cluster" and method == "simsiam":
            options = (*options, "--method", "kmeans", "--learn-split", "train", "--draws", "1")
        try:
            invoke(name, "--run", str(whole), "--shards", str(shards), *options)
        except Failure as error:
            yield str(error)


@click.command()
@click.option("--network", "networks", multiple=True, help="Backbones; by default all that have a name of their own.")
def main(networks: tuple[str, ...]) -> None:
    """Train and judge every pair and print a line about each."""
    torch.set_num_threads(1)
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        shards = Path(name) / "shards"
        build(small_config(None, shards, "rgb", image_size=32))
        for network in networks or BACKBONES:
            for method in METHODS:
                begun = time.monotonic()
                with tempfile.TemporaryDirectory() as folder:
                    found = list(troubles(network, method, shards, Path(folder)))
                failed += bool(found)
                print(f"{network}, {method}: {'; '.join(found) or 'ok'}, {time.monotonic() - begun:.0f} s", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
