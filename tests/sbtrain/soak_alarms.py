"""Train one epoch of healthy and of broken runs, many seeds, and say which alarms came.

    python tests/sbtrain/soak_alarms.py [--seeds 0,1,2,3,4,5,6,7,8,9] [--shards c32 --split train] [--settings simsiam,...]

Broken: SimSiam without the stop-gradient, Self-Classifier without the prior. Not a test: a run takes 5 to 15 s. Exit
status 0 if no healthy run raised an alarm for a collapse and every broken one did.
"""

import json
import sys
import tempfile
from pathlib import Path

import click
import torch
from click.testing import CliRunner

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("preprocess", "train", "tests")]  # from a checkout, not installed

from builds import small_config  # noqa: E402
from sbformat.schema import TargetSpec  # noqa: E402
from sbprep.pipeline import build  # noqa: E402
from sbtrain.cli import main as sbtrain  # noqa: E402

#: The first of many epochs, of 64 steps on the built-in set.
COMMON = ("--network", "half:simplenet", "--augmentation", "simsiam_cifar", "--limit", "4096", "--batch-size", "64",
          "--epochs", "100", "--stop-after", "64", "--cache", "host", "--device", "cpu")  # fmt: skip
_SGD = ("--optimizer", "sgd", "--lr", "0.03", "--weight-decay", "5e-4", "--schedule", "cosine")
_BREAK = {"simsiam": ("--no-stop-gradient",), "self_classifier": ("--prior", "none")}
#: Name -> method and options.
SETTINGS = {
    "simsiam": ("simsiam", (*_SGD, "--view-size", "52", "--projector", "two-layer")),
    "simsiam-report": ("simsiam", (*_SGD, "--view-size", "64", "--projector", "report")),
    "simsiam-adamw": ("simsiam", ("--optimizer", "adamw", "--lr", "1e-3", "--schedule", "one-cycle", "--view-size", "52",
                                  "--projector", "two-layer", "--epochs", "4")),
    "self-classifier": ("self_classifier", ("--view-size", "52", "--optimizer", "adamw", "--lr", "1e-3", "--schedule",
                                            "cosine", "--head", "official")),
}  # fmt: skip


@click.command()
@click.option("--seeds", default="0,1,2,3,4,5,6,7,8,9", show_default=True)
@click.option("--settings", default=",".join(SETTINGS), show_default=True)
@click.option("--shards", type=click.Path(path_type=Path, exists=True), help="RGB shards; none: the built-in images.")
@click.option("--split", default="unlabeled", show_default=True)
def main(seeds: str, settings: str, shards: Path | None, split: str) -> None:
    """Train and print a verdict."""
    torch.set_num_threads(1)
    right = True
    with tempfile.TemporaryDirectory() as folder:
        if shards is None:
            shards = Path(folder) / "shards"
            target = TargetSpec(size=4)
            build(small_config(None, shards, "rgb", image_size=32, target=target, images_per_shard=4096, limit=4096))
        for setting in settings.split(","):
            method, options = SETTINGS[setting]
            for broken in (False, True):
                extra = _BREAK[method] if broken else ()
                found = {
                    seed: run(Path(folder) / f"{setting}-{broken}-{seed}", shards, split, method, *options, *extra,
                              "--seed", seed)
                    for seed in seeds.split(",")
                }  # fmt: skip
                wrong = [seed for seed, text in found.items() if bool(text) != broken]
                right = right and not wrong
                for seed, text in found.items():
                    click.echo(f"{setting}{' broken' if broken else ''}, seed {seed}: {text or 'no alarm'}")
                click.echo(
                    f"{setting}{' broken' if broken else ''}: {len(found) - len(wrong)} of {len(found)} as it should be"
                )
    sys.exit(not right)


def run(folder: Path, shards: Path, split: str, method: str, *options: str) -> str:
    """Return the alarms of a run: steps and kinds."""
    arguments = ["pretrain", "--shards", str(shards), "--split", split, "--run-dir", str(folder), "--method", method]
    result = CliRunner().invoke(sbtrain, [*arguments, *COMMON, *options])
    assert result.exit_code == 0, result.output
    lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    return ", ".join(
        f"{alarm['kind']} at step {line['step']}"
        for line in lines
        for alarm in line["alarms"]
        if alarm["kind"] != "nan"
    )


if __name__ == "__main__":
    main()
