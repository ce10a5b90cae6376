"""``sbtrain features``: parse, one call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sbtrain.evaluation.command import interruptible
from sbtrain.evaluation.features import FeaturesConfig, write_features
from sbtrain.evaluation.pretrained import hold_pretrained
from sbtrain.options import LAYER, device_option, field_options, run_option, shards_option
from sbtrain.runtime import set_up

#: Field of `FeaturesConfig` -> help of its option: a test looks that each has one.
FIELD_HELP = {
    "split": "Images to write features of.",
    "layer": "Layer of the network; by default the last, of the halves their output maps.",
    "pool": "Average the layer to S x S cells, 1: globally; 0: as it is.",
    "limit": "Write this many images, always the same; 0: all.",
    "precision": "auto: bfloat16 where the device has instructions for it.",
}

EXAMPLE = """\b
Example:
  sbtrain features --run runs/NAME --shards data_cache --split val --layer conv4 --pool 1
"""


@click.command("features", epilog=EXAMPLE)
@run_option
@shards_option
@field_options(FeaturesConfig, FIELD_HELP, LAYER)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="By default RUN/features/SPLIT-LAYER.h5.")
@device_option
def features_command(run_dir: Path, shards: Path, out: Path | None, device: str, **options: Any) -> None:
    """Write a layer's features of a split's images to an HDF5 file, with their labels where there are any.

    \b
    Exit codes:
      0    done, or the file had these features already
      1    failed; the message says what to do
      2    an option is wrong
      75   SIGTERM, SIGHUP, SIGUSR1 or SIGUSR2 came: nothing was written
      130  Ctrl-C: the same
    """  # noqa: D301
    config = FeaturesConfig(**options)
    runtime = set_up(device, config.precision, "exact", 0)
    with interruptible("Stopped: nothing was written, run the same command again") as (progress, stop):
        with hold_pretrained(run_dir, shards, config.split, runtime, progress.say) as pretrained:
            write_features(pretrained, config, out, runtime, progress.say, lambda: stop.signal is not None)
