"""Train for 50 epochs, each with a checkpoint, and say by how much the process grew.

    python tests/sbtrain/soak_memory.py [--shards data_cache --colorspace lab] [--epochs 50] [--cache mmap]

Not a test: it takes minutes. Exit status 0 if memory grew by less than 1 MB an epoch.
"""

import sys
import tempfile
from pathlib import Path

import click
import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("preprocess", "train", "tests")]  # from a checkout, not installed

from memory import growth, resident_by_epoch  # noqa: E402
from sbformat.manifest import open_manifest  # noqa: E402
from sbtrain.bench.synthetic import write_synthetic  # noqa: E402
from sbtrain.config import PretrainConfig  # noqa: E402


@click.command()
@click.option("--shards", type=click.Path(path_type=Path, exists=True), help="Prepared shards; none: random bytes.")
@click.option("--colorspace", default="lab", show_default=True)
@click.option("--epochs", default=50, show_default=True)
@click.option("--limit", default=512, show_default=True, help="Images of an epoch.")
@click.option("--cache", type=click.Choice(["host", "mmap"]), default="mmap", show_default=True)
@click.option("--network", default="simplenet", show_default=True)
def main(shards: Path | None, colorspace: str, epochs: int, limit: int, cache: str, network: str) -> None:
    """Train and print a verdict."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if shards is None:
            shards = Path(folder)
            write_synthetic(shards / colorspace, {"unlabeled": limit})
        config = PretrainConfig(network=network, epochs=epochs, limit=limit, schedule="constant", batch_size=16)
        found = resident_by_epoch(open_manifest(shards, colorspace), Path(folder) / "run", config, cache)
    print("resident memory in MB after each epoch:", " ".join(f"{value:.0f}" for value in found))
    slope = growth(found)
    print(f"{slope:+.3f} MB an epoch, {epochs} epochs of {limit} images from {cache}")
    sys.exit(slope >= 1)


if __name__ == "__main__":
    main()
