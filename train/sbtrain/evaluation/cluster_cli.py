"""``sbtrain cluster``: parse, one call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sbformat.words import every
from sbtrain.evaluation.chosen import chosen_rows
from sbtrain.evaluation.cluster import cluster
from sbtrain.evaluation.cluster_config import ClusterConfig
from sbtrain.evaluation.cluster_result import ClusterFile, cluster_caption, cluster_table
from sbtrain.evaluation.command import judged
from sbtrain.options import LAYER, device_option, field_options, run_option, shards_option

#: Field of `ClusterConfig` -> help of its option: a test looks that each has one.
FIELD_HELP = {
    "method": "Clusters by the run's own classifier or by k-means; auto: its own where it has one.",
    "classifier": "Which of Self-Classifier's, from 0 on.",
    "clusters": "k-means: how many; 0: as many as classes.",
    "layer": "k-means: layer of the network; by default the last.",
    "pool": "k-means: average the layer to S x S cells; 0: as it is.",
    "learn_split": "k-means: images that the centers are of.",
    "draws": "Starts of k-means, or new weights; the interval is over them.",
    "from_scratch": "New weights instead of the run's: the control.",
    "center": "See the central part of the images: 0.875 for 224 of 256 pixels.",
    "seed": "Of starts and new weights.",
    "precision": "auto: bfloat16 where the device has instructions for it.",
    "split": "Images to report; they choose nothing.",
    "limit": "Report this many of them, always the same; 0: all.",
}

EXAMPLE = """\b
Example:
  sbtrain cluster --run runs/NAME --shards data_cache --split test --compare
"""


@click.command("cluster", epilog=EXAMPLE)
@run_option
@shards_option
@field_options(ClusterConfig, FIELD_HELP, LAYER)
@click.option("--compare", is_flag=True, help="Pretrained beside new weights, in one table.")
@device_option
def cluster_command(run_dir: Path, shards: Path, compare: bool, device: str, **options: Any) -> None:
    """Compare clusters that a network makes of images with their classes: NMI, AMI, ARI, and the matched accuracy.

    Nothing of the network is trained, and labels count for the scores alone. Every assignment is written to results/ in
    the run's folder as soon as it is done: the same command goes on where it was stopped.

    \b
    Exit codes:
      0    done
      1    failed; the message says what to do
      2    an option is wrong
      75   SIGTERM, SIGHUP, SIGUSR1 or SIGUSR2 came: run the same command again to go on
      130  Ctrl-C: the same
    """  # noqa: D301
    config = ClusterConfig(**options)
    pretrained, results = judged(
        run_dir, shards, device, config, compare, cluster,
        lambda pretrained, config: [] if config.from_scratch else pretrained.seen(config.split),
        _done, "Stopped: what is finished is saved, the same command does the rest",
    )  # fmt: skip
    images = len(chosen_rows(pretrained.manifest.splits[config.split].images, config.limit))
    click.echo(cluster_table(results))
    click.echo(f"\n{cluster_caption(results[-1], images, len(pretrained.manifest.label_names))}")


def _done(result: ClusterFile) -> str:
    fits = result.fits()
    collapsed = any(fit.used == 1 for fit in fits) and not result.config.from_scratch
    remark = "\n  all images are in one cluster: the network has collapsed" if collapsed else ""
    return f"{every(len(fits), 'assignment')} there{remark}"
