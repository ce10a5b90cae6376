"""``sbtrain pretrain`` and ``sbtrain presets``: parse, one call, print."""

from __future__ import annotations

import signal
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click

from sbformat.errors import ConfigError
from sbformat.schema import COLORSPACES
from sbformat.words import every
from sbtrain.__main__ import EXIT_INTERRUPTED
from sbtrain.alarms import Mode as AlarmMode
from sbtrain.config import PretrainConfig
from sbtrain.data import Cache
from sbtrain.dry_run import dry_run, sentences
from sbtrain.header import unchosen
from sbtrain.loop import Ended, Habits
from sbtrain.monitor import Kind, MonitorConfig
from sbtrain.options import device_option, field_options, shards_option
from sbtrain.prepare import Request, with_default_split
from sbtrain.presets import load_preset, preset_names, resolve
from sbtrain.pretrain import pretrain
from sbtrain.progress import ProgressPrinter
from sbtrain.ranks.launch import from_environment
from sbtrain.runtime import EXIT_REQUEUE, StopRequest

#: Field of `PretrainConfig` -> help of its option. A field without a line here has no option: a test looks.
FIELD_HELP = {
    "method": "Predict the other channels' bins, denoise, or compare augmented views.",
    "network": "simplenet, resnet18, resnet18-head, fc-alexnet, split-alexnet; denoising: autoencoder, autoencoder-5, "
    "either with -bn; simsiam and self_classifier: resnet18, resnet18-cifar, resnet18-report, alexnet, efficientnet_b0, "
    "vit_small, vit_small_2021, pit_ti, timm:NAME, half:NAME.",
    "split": "Images to learn from; by default unlabeled, or else train.",
    "input": "Show the network the stored levels, or those decoded back to Lab.",
    "normalize": "Inputs to [0, 1] by the fixed range, or to mean 0 and deviation 1 over the split.",
    "loss": "split_brain: classify each cell's bin, or regress its mean.",
    "noise": "denoising: kind of noise.",
    "noise_level": "denoising: share of values, or the standard deviation.",
    "reconstruction": "denoising: Bernoulli cross-entropy or squared error.",
    "augmentation": "simsiam, self_classifier: recipe of the views; empty: the method's own on ImageNet.",
    "view_size": "Pixels of a side of the global views; 0: of the stored images.",
    "zero_init": "ResNets: residual blocks begin as identities.",
    "weights": "simsiam, self_classifier: trained weights that the backbone begins with: a file, or a run's folder.",
    "projector": "simsiam: as published for ImageNet, for CIFAR-10, or in the report's code.",
    "stop_gradient": "simsiam: without it every image ends in one point.",
    "constant_predictor_lr": "simsiam: the predictor keeps the peak learning rate.",
    "head": "self_classifier: 1hl, 2hl, official, v1, or widths of linear layers such as 4096-4096-128.",
    "classes": "self_classifier: 10; 1000,2000 for two classifiers; 30x30 for 30 of 30 classes.",
    "classifier": "self_classifier: trained rows, or fixed orthonormal ones.",
    "prior": "self_classifier: where classes are taken to be used alike; none: collapses.",
    "tau_row": "self_classifier: temperature of the softmax over classes.",
    "tau_col": "self_classifier: temperature of the softmax over the batch.",
    "eps": "self_classifier: least sum, and what is added before the logarithm.",
    "queue": "self_classifier: embeddings that wait as nearest neighbors; 0: none.",
    "queue_replace": "self_classifier: learn from the neighbors in place of first views.",
    "epochs": "Passes over the split; 0: none, of given --weights.",
    "batch_size": "Images of a step.",
    "accumulate": "Micro-batches of a step, for less memory.",
    "optimizer": "larc: sgd with each gradient scaled to its weights' norm.",
    "lr": "Peak learning rate.",
    "weight_decay": "",
    "momentum": "sgd and larc alone.",
    "schedule": "Learning rate over the steps.",
    "decay": "epoch-decay: factor after every epoch.",
    "final_lr": "cosine: learning rate at the end.",
    "warmup": "Steps of linear rise before the schedule.",
    "warmup_epochs": "Epochs of it, beside those steps.",
    "warmup_lr": "Learning rate that the rise begins above.",
    "clip": "Largest norm of the gradient; 0: any.",
    "shuffle": "exact, or window=K: neighbors K at a time, for disks on which random reads are slow.",
    "seed": "Of weights, order and noise.",
    "precision": "auto: bfloat16 where the device has instructions for it.",
    "mode": "exact: the same bits again on the same machine; fast: kernels chosen by timing.",
    "compile": "Compile the networks with torch.compile.",
    "limit": "Use this many images; 0: all.",
    "bad_steps": "Non-finite steps in a row after which the run goes back to its newest checkpoint.",
    "rollbacks": "Times to go back to the same checkpoint before giving up.",
}


#: Field of `MonitorConfig` but its kind -> help of its option.
MONITOR_HELP = {
    "every": "Epochs between two looks.",
    "split": "Labeled images to look at.",
    "queries": "Images to classify by them; by default some of the same split, kept apart.",
    "images": "How many to look at, a fifth of them classified.",
    "layer": "Of the network; by default the last before its output maps.",
}


#: The config knows what to say of a method that is not here.
SPECIAL = {"method": {"type": str, "metavar": f"[{'|'.join(get_args(get_type_hints(PretrainConfig)['method']))}]"}}


@click.command("pretrain")
@shards_option
@click.option("--colorspace", type=click.Choice(COLORSPACES), help="Which one, where the folder holds several.")
@click.option("--preset", help="Begin with these values (sbtrain presets lists them), or with those of a TOML file.")
@field_options(PretrainConfig, FIELD_HELP, SPECIAL, unset=True)
@click.option("--run-dir", type=click.Path(path_type=Path), help="Folder of the run; by default runs/NAME.")
@device_option
@click.option(
    "--cache",
    type=click.Choice(get_args(Cache)),
    default="auto",
    show_default=True,
    help="Where images wait: device memory, host memory, or their files. The batches are the same.",
)
@click.option(
    "--stage",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Copy the shards to this local disk while the first epoch runs, and read them there from then on.",
)
@click.option("--verify", is_flag=True, help="Compare every byte with the manifest's checksums before the first step.")
@click.option("--checkpoint-every", type=click.IntRange(1), default=1000, show_default=True, metavar="STEPS")
@click.option("--keep-last", type=click.IntRange(1), default=2, show_default=True, help="Newest checkpoints to keep.")
@click.option("--keep-best", is_flag=True, help="Keep the one of lowest mean training loss as well.")
@click.option("--log-every", type=click.IntRange(1), default=50, show_default=True, metavar="STEPS")
@click.option(
    "--stop-after", type=click.IntRange(0), metavar="STEPS", help="End here; without it, or with more, the run goes on."
)
@click.option("--graphs", is_flag=True, help="Replay steps as CUDA graphs; not yet tried on a GPU.")
@click.option(
    "--alarm",
    type=click.Choice(get_args(AlarmMode)),
    default="warn",
    show_default=True,
    help="Where features collapse: say it, or end the run as well. Steps that are not finite are only said.",
)
@click.option("--monitor", type=click.Choice(get_args(Kind)), help="Look at the features while learning, by labels.")
@field_options(MonitorConfig, MONITOR_HELP, unset=True, prefix="monitor_")
@click.option("--dry-run", "dry", is_flag=True, help="One step, one save, one resume in a temporary folder; estimates.")
def pretrain_command(dry: bool, **options: Any) -> None:
    """Pretrain a network on shards; the same command goes on where an earlier one stopped.

    \b
    Exit codes:
      0    done, or stopped where --stop-after says
      1    failed; the message says what to do
      2    an option is wrong
      75   SIGTERM, SIGHUP, SIGUSR1 or SIGUSR2 came: saved, run the same command again
      130  Ctrl-C: saved; a second one ends at once without saving

    \b
    Example:
        sbtrain pretrain --shards data_cache --preset modern/simplenet --colorspace lab
    """  # noqa: D301
    request = _request(options)
    stop = StopRequest()
    world = from_environment()
    if dry and world.size > 1:
        raise ConfigError(f"dry-run with {world.size} ranks: its estimates are of one. Start it without torchrun")
    if dry:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # nothing is to be saved: end at once, tidily
        with ProgressPrinter() as progress:
            lines = sentences(request, dry_run(request, stop, progress.say))
        click.echo("\n".join(lines))
        return
    with stop.listening(), ProgressPrinter() as progress:
        try:
            run_dir, ended = pretrain(request, stop, progress.say, progress)
        except KeyboardInterrupt:
            progress.say(
                "Interrupted at once: steps since the last checkpoint are lost, the same command does them again"
            )
            sys.exit(EXIT_INTERRUPTED)
    if world.first:
        _conclude(run_dir, ended)
    if not ended.complete and ended.signal is not None:
        sys.exit(EXIT_INTERRUPTED if ended.signal == signal.SIGINT else EXIT_REQUEUE)


def _conclude(run_dir: Path, ended: Ended) -> None:
    if ended.complete:
        click.echo(f"{run_dir}: {every(ended.steps, 'step')} done")
        return
    how = "Run the same command again to go on" if ended.signal else "To go on: without --stop-after, or with more"
    click.echo(f"{run_dir}: step {ended.step:,} of {ended.steps:,} is saved. {how}")


def _request(options: dict[str, Any]) -> Request:
    options_given = {field.name: options.pop(field.name) for field in fields(PretrainConfig)}
    given = {name: value for name, value in options_given.items() if value is not None}
    config, preset = resolve(options["preset"], given)
    options["monitor"] = _monitor({name: options.pop(f"monitor_{name}") for name in MONITOR_HELP}, options["monitor"])
    habits = Habits(**{field.name: options.pop(field.name) for field in fields(Habits)})
    options["colorspace"] = options["colorspace"] or (preset.colorspace if preset else None)
    request = Request(config=config, habits=habits, remarks=unchosen(config, options["preset"], given), **options)
    named = "split" in given or (preset is not None and "split" in preset.fields)
    return request if named else with_default_split(request)


def _monitor(given: dict[str, Any], kind: Kind | None) -> MonitorConfig | None:
    chosen = {name: value for name, value in given.items() if value is not None}
    if kind is None and chosen:
        raise ConfigError(f"--monitor-{next(iter(chosen))} without --monitor. Add --monitor knn")
    return MonitorConfig(kind=kind, **chosen) if kind else None


@click.command("presets")
@click.argument("name", required=False)
def presets_command(name: str | None) -> None:
    """List presets, or print every field of one.

    \b
    Example:
        sbtrain presets report/resnet18-rescaled_lab
    """  # noqa: D301
    if name is None:
        width = max(map(len, preset_names()))
        for each in preset_names():
            click.echo(f"{each:{width}}  {load_preset(each).about}")
        return
    preset = load_preset(name)
    click.echo(f"# {preset.about}")
    if preset.colorspace:
        click.echo(f'colorspace = "{preset.colorspace}"')
    for field, value in preset.shown.items():
        click.echo(f"{field} = {_toml(value)}")


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
