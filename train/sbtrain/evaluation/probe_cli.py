"""``sbtrain probe``: parse, one call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sbformat.errors import ConfigError
from sbformat.words import every
from sbtrain.evaluation.chosen import chosen_rows
from sbtrain.evaluation.command import judged
from sbtrain.evaluation.finetune_config import samples_from_text, samples_text
from sbtrain.evaluation.probe import probe
from sbtrain.evaluation.probe_config import ProbeConfig
from sbtrain.evaluation.probe_result import caption, comparison_table, table
from sbtrain.options import Settings, device_option, field_options, run_option, shards_option

#: Field of `ProbeConfig` -> help of its option: a test looks that each has one.
FIELD_HELP = {
    "layers": "Layers to look at, such as conv3,conv4; by default every one.",
    "draws": "Classifiers for each layer, each with its own weights, order and labels.",
    "labels_per_class": "Labeled images of each class, or all.",
    "from_scratch": "New weights instead of the run's: the control.",
    "dimensions": "Maps are resized to this many numbers or fewer.",
    "epochs": "Passes over the labeled images.",
    "min_steps": "More passes, where that would be fewer steps.",
    "batch_size": "Images of a step.",
    "lr": "Learning rate of SGD, a tenth after 2, 4 and 6 sevenths of the steps.",
    "weight_decay": "",
    "seed": "Of draws, weights and order.",
    "precision": "auto: bfloat16 where the device has instructions for it.",
    "split": "Images to learn from.",
    "eval_split": "Images to report; they choose nothing.",
    "eval_limit": "Report this many of them, always the same; 0: all.",
}
#: Settings of options that the fields do not say.
SPECIAL: Settings = {
    "layers": {"type": str, "default": ",".join(ProbeConfig.layers), "show_default": False, "metavar": "NAMES"},
    "labels_per_class": {"type": str, "default": samples_text(ProbeConfig.labels_per_class), "metavar": "N"},
}

EXAMPLE = """\b
Example:
  sbtrain probe --run runs/NAME --shards data_cache --layers conv3,conv4 --compare
"""


@click.command("probe", epilog=EXAMPLE)
@run_option
@shards_option
@field_options(ProbeConfig, FIELD_HELP, SPECIAL)
@click.option("--compare", is_flag=True, help="Pretrained beside new weights, with the gain, in one table.")
@device_option
def probe_command(run_dir: Path, shards: Path, compare: bool, device: str, **options: Any) -> None:
    """Judge each layer of a pretrained network as it is, by a linear classifier and by nearest neighbors.

    Nothing of the network is trained, and no image of the reported split chooses anything. Every layer is written to
    results/ in the run's folder as soon as it is done: the same command goes on where it was stopped, and more layers or
    draws are added to the same file.

    \b
    Exit codes:
      0    done
      1    failed; the message says what to do
      2    an option is wrong
      75   SIGTERM, SIGHUP, SIGUSR1 or SIGUSR2 came: run the same command again to go on
      130  Ctrl-C: the same
    """  # noqa: D301
    config = ProbeConfig(**{**options, **_lists(options["layers"], options["labels_per_class"])})
    pretrained, results = judged(
        run_dir, shards, device, config, compare, probe,
        lambda pretrained, config: [] if config.from_scratch else pretrained.seen(config.eval_split),
        lambda result: f"{every(len(result.keys()), 'fit')} there",
        "Stopped: what is finished is saved, the same command does the rest",
    )  # fmt: skip
    layers = [result.layers() for result in results]
    images = len(chosen_rows(pretrained.manifest.splits[config.eval_split].images, config.eval_limit))
    labeled, classes = layers[0][0].fits[0].images, len(pretrained.manifest.label_names)
    click.echo(comparison_table(layers[0], layers[1], labeled / classes) if compare else table(layers[0]))
    click.echo(f"\n{caption(config, images, classes, labeled)}")


def _lists(layers: str, labels: str) -> dict[str, Any]:
    samples = samples_from_text(labels)
    if len(samples) != 1:
        raise ConfigError(f"labels per class {labels!r}, expected one number from 1 on, or all")
    names = tuple(dict.fromkeys(name.strip() for name in layers.split(",") if name.strip()))
    return {"layers": names, "labels_per_class": samples[0]}
