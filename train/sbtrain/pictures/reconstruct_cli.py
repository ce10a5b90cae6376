"""``sbtrain reconstruct``: parse, one call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sbtrain.evaluation.pretrained import open_pretrained
from sbtrain.options import device_option, field_options, run_option, shards_option
from sbtrain.pictures.reconstruct import ReconstructConfig, reconstruct
from sbtrain.progress import ProgressPrinter
from sbtrain.runtime import set_up

#: Field of `ReconstructConfig` -> help of its option: a test looks that each has one.
FIELD_HELP = {
    "split": "Images to look at.",
    "images": "Rows of the picture.",
    "decode": "From probabilities to a color: the likeliest bin, or the mean of all of them.",
    "score_images": "Images that the numbers are of.",
    "seed": "Take images by this permutation of the split; by default the first in shard order, which is mixed already.",
}


EXAMPLE = """\b
Example:
  sbtrain reconstruct --run runs/NAME --shards data_cache
"""


@click.command("reconstruct", epilog=EXAMPLE)
@run_option
@shards_option
@field_options(ReconstructConfig, FIELD_HELP)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder to write to; by default the run's results/."
)
@device_option
def reconstruct_command(run_dir: Path, shards: Path, out: Path | None, device: str, **options: Any) -> None:
    """Draw what a pretrained network predicts beside the images themselves, and count how right it is.

    A row an image: original, downsized target, and both halves' predictions together as one picture (PNG); for a
    denoising run original, corrupted, reconstructed. A re-scaled run gets a second picture, decoded by the fixed range,
    as the report's Figure 5. The numbers are in reconstruct-SPLIT.json beside: shares of right bins, color errors.

    \b
    Exit codes:
      0    done
      1    failed; the message says what to do
      2    an option is wrong
      130  Ctrl-C: run it again
    """  # noqa: D301
    config = ReconstructConfig(**options)
    runtime = set_up(device, "float32", "exact", 0)
    with ProgressPrinter() as progress:
        pretrained = open_pretrained(run_dir, shards, config.split, progress.say)
        result = reconstruct(pretrained, config, runtime, out or run_dir / "results", progress.say)
    click.echo(scores_text(result["scores"]))


def scores_text(scores: dict[str, Any]) -> str:
    """Return the numbers in words, a line each."""
    lines = [f"{scores['images']:,} images, means ± 95 % interval over images"]
    for name, half in (("dual", "F1"), ("single", "F2")):
        if f"right_{name}" in scores:
            found = _text(scores[f"right_{name}"], 100)
            lines.append(
                f"  {name} bins right ({half}): {found} %, always the commonest {scores[f'commonest_{name}']:.2%}"
            )
    for name, value in scores.items():
        if name.startswith("delta_e_"):
            lines.append(f"  color error of {name.removeprefix('delta_e_')}: {_text(value)} (delta E 1976)")
    return "\n".join(lines)


def _text(value: dict[str, float | None], scale: float = 1) -> str:
    mean, half = value["mean"], value["ci95"]
    assert mean is not None, "every interval has a mean"
    return f"{mean * scale:.2f}" + ("" if half is None else f" ± {half * scale:.2f}")
