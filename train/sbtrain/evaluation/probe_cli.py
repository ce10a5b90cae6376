"""``sbtrain probe``: parse, one call, print."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from sbformat.errors import ConfigError
from sbtrain.evaluation.command import field_options, interruptible
from sbtrain.evaluation.finetune_config import samples_from_text
from sbtrain.evaluation.pretrained import Pretrained, hold_pretrained
from sbtrain.evaluation.probe import probe
from sbtrain.evaluation.probe_config import ProbeConfig
from sbtrain.evaluation.probe_result import ProbeFile, caption, comparison_table, table
from sbtrain.runtime import Runtime, set_up

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

EXAMPLE = """\b
Example:
  sbtrain probe --run runs/NAME --shards data_cache --layers conv3,conv4 --compare
"""


@click.command("probe", epilog=EXAMPLE)
@click.option("--run", "run_dir", type=click.Path(path_type=Path), required=True, help="Folder of a pretraining run.")
@click.option("--shards", type=click.Path(path_type=Path), default=Path("data_cache"), show_default=True)
@field_options(ProbeConfig, FIELD_HELP)
@click.option("--compare", is_flag=True, help="Pretrained beside new weights, with the gain, in one table.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
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
      75   SIGTERM, SIGUSR1 or SIGUSR2 came: run the same command again to go on
      130  Ctrl-C: the same
    """  # noqa: D301
    config = ProbeConfig(**{**options, **_lists(options["layers"], options["labels_per_class"])})
    configs = [replace(config, from_scratch=scratch) for scratch in (False, True)] if compare else [config]
    runtime = set_up(device, config.precision, "exact", config.seed)
    with interruptible("Stopped: what is finished is saved, the same command does the rest") as (say, interrupted):
        pretrained, results = _run(run_dir, shards, configs, runtime, say, interrupted)
    layers = [result.layers() for result in results]
    click.echo(comparison_table(*layers) if compare else table(layers[0]))
    about = pretrained.about(config, runtime)
    click.echo(f"\n{caption(config, about['eval_images'], about['classes'], layers[0][0].fits[0].images)}")


def _run(
    run_dir: Path,
    shards: Path,
    configs: list[ProbeConfig],
    runtime: Runtime,
    say: Callable[[str], None],
    interrupted: Callable[[], bool],
) -> tuple[Pretrained, list[ProbeFile]]:
    with hold_pretrained(run_dir, shards, configs[0].split, runtime, say) as pretrained:
        for remark in [] if configs[0].from_scratch else pretrained.seen(configs[0].eval_split):
            say(remark)
        results = []
        for config in configs:
            result = probe(pretrained, config, runtime, say, interrupted)
            say(f"{result.path}: all {config.draws * len(result.asked)} fits are there")
            results.append(result)
    return pretrained, results


def _lists(layers: str, labels: str) -> dict[str, Any]:
    samples = samples_from_text(labels)
    if len(samples) != 1:
        raise ConfigError(f"labels per class {labels!r}, expected one number from 1 on, or all")
    names = tuple(dict.fromkeys(name.strip() for name in layers.split(",") if name.strip()))
    return {"layers": names, "labels_per_class": samples[0]}
