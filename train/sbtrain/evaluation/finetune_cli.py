"""``sbtrain finetune``: parse, one call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from sbformat.words import every
from sbtrain.evaluation.attribute_result import AttributeFile, attribute_caption, attribute_comparison, attribute_table
from sbtrain.evaluation.chosen import chosen_rows
from sbtrain.evaluation.command import judged
from sbtrain.evaluation.few_shot import ALL
from sbtrain.evaluation.finetune import finetune, remarks
from sbtrain.evaluation.finetune_config import FinetuneConfig, samples_from_text, samples_text
from sbtrain.evaluation.finetune_presets import PRESETS, preset_fields
from sbtrain.evaluation.finetune_result import ResultFile, caption, comparison_table, table
from sbtrain.evaluation.folds import FOLDS
from sbtrain.options import LAYER, Settings, device_option, field_options, run_option, shards_option

#: Field of `FinetuneConfig` -> help of its option: a test looks that each has one.
FIELD_HELP = {
    "samples_per_class": "Labeled images of each class; of images with attributes, in all.",
    "draws": "Subsets for each number of images; the interval is over them.",
    "protocol": "Exactly k of each class, or, as the report's code did, k x classes images of any class.",
    "from_scratch": "New weights instead of the run's: the control.",
    "freeze": "Train the classifier alone, on features computed once.",
    "layer": "Layer of both halves to classify by; by default the output maps.",
    "pool": "Average the layer to S x S cells, 1: globally; 0: as it is.",
    "standardize": "Features to mean 0 and variance 1 before the classifier.",
    "head": "Classifier to begin with: random, N(0, 0.01), or solved by ridge regression; with --freeze that is all.",
    "augmentation": "Learn from crops, mirrored or not, other ones in every pass.",
    "center": "Report on the central part of the images: 0.875 for 224 of 256 pixels.",
    "epochs": "Passes over the labeled images.",
    "min_steps": "More passes, where that would be fewer steps.",
    "batch_size": "Images of a step.",
    "optimizer": "",
    "lr": "Peak learning rate.",
    "weight_decay": "",
    "schedule": "Learning rate over the steps.",
    "decay": "epoch-decay: factor after every pass.",
    "hold_out": "Share of each class's k to stop early by; 0: a fixed number of steps.",
    "seed": "Of draws, weights and order.",
    "precision": "auto: bfloat16 where the device has instructions for it.",
    "split": "Images to learn from.",
    "eval_split": "Images to report; they choose nothing.",
    "eval_limit": "Report this many of them, always the same; 0: all.",
    "folds": "STL-10's fold_indices.txt: a fit on each of its ten subsets of --split.",
}
#: Settings of options that the fields do not say.
SPECIAL: Settings = {
    **LAYER,
    "samples_per_class": {"type": str, "default": ",".join(map(samples_text, FinetuneConfig.samples_per_class))},
    "folds": {"type": click.Path(path_type=Path, dir_okay=False), "metavar": "PATH"},
}

EXAMPLE = """\b
Example:
  sbtrain finetune --run runs/NAME --shards data_cache --samples-per-class 1,4,16 --draws 3 --compare
"""


@click.command("finetune", epilog=EXAMPLE)
@run_option
@shards_option
@click.option("--preset", metavar="NAME", help=f"Begin with a published protocol: {', '.join(PRESETS)}.")
@field_options(FinetuneConfig, FIELD_HELP, SPECIAL)
@click.option("--compare", is_flag=True, help="Pretrained and from scratch on the same draws, in one table.")
@device_option
@click.pass_context
def finetune_command(
    context: click.Context,
    /,
    run_dir: Path,
    shards: Path,
    preset: str | None,
    compare: bool,
    device: str,
    **options: Any,
) -> None:
    """Fine-tune a pretrained network on few labels a class, several times; print accuracies with their intervals.

    No image of the reported split chooses anything. Every classifier is written to results/ in the run's folder as soon
    as it is done: the same command goes on where it was stopped, and more numbers or draws are added to the same file.

    \b
    Exit codes:
      0    done
      1    failed; the message says what to do
      2    an option is wrong
      75   SIGTERM, SIGHUP, SIGUSR1 or SIGUSR2 came: run the same command again to go on
      130  Ctrl-C: the same
    """  # noqa: D301
    config = _config(context, preset, options)
    pretrained, results = judged(
        run_dir, shards, device, config, compare, finetune, remarks,
        lambda result: f"{every(sum(map(len, result.asked())), 'fit')} there",
        "Stopped: finished fits are saved, the same command does the others",
    )  # fmt: skip
    images = len(chosen_rows(pretrained.manifest.splits[config.eval_split].images, config.eval_limit))
    click.echo(_tables(results, config, images, len(pretrained.manifest.label_names)))


def _tables(results: list[ResultFile | AttributeFile], config: FinetuneConfig, images: int, classes: int) -> str:
    """Return the table of one result, or of a result and its control, and what its numbers are."""
    fits = [result.asked() for result in results if isinstance(result, AttributeFile)]
    if fits:
        shown = attribute_comparison(*fits) if len(fits) > 1 else attribute_table(fits[0])
        return f"{shown}\n\n{attribute_caption(config, images, fits[0][0])}"
    shots = [result.shots() for result in results if isinstance(result, ResultFile)]
    shown = comparison_table(*shots) if len(shots) > 1 else table(shots[0])
    return f"{shown}\n\n{caption(config, images, classes)}"


def _config(context: click.Context, preset: str | None, options: dict[str, Any]) -> FinetuneConfig:
    options = {**options, "samples_per_class": samples_from_text(options["samples_per_class"])}
    begin = {} if preset is None else preset_fields(preset)
    if options["folds"]:
        begin = {**begin, "samples_per_class": (ALL,), "draws": FOLDS}
    default = {name for name in begin if context.get_parameter_source(name) is ParameterSource.DEFAULT}
    return FinetuneConfig(**{**options, **{name: begin[name] for name in default}})
