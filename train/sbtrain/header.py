"""What a run says of itself before its first step, in a few lines."""

from __future__ import annotations

from collections.abc import Collection

from sbformat.words import counted
from sbtrain.config import AUGMENTATION, PretrainConfig
from sbtrain.data import Loader
from sbtrain.methods.views import Views
from sbtrain.networks import parameter_count
from sbtrain.optim import learning_rate
from sbtrain.prepare import Parts, Request
from sbtrain.presets import presets_of
from sbtrain.progress import bytes_text

#: Presets that are named.
_SHOWN = 4


def describe(request: Request, parts: Parts, loader: Loader) -> str:
    """Return what will be done, how and where: a line each."""
    config, manifest, method, steps = request.config, parts.manifest, parts.method, loader.steps_per_epoch
    row = sum(manifest.datasets(config.split)[name].row_bytes for name in method.datasets)
    lines = [
        f"{config.method} with {config.network} ({parameter_count(method):,} parameters) on {manifest.colorspace}, "
        f"split {config.split}: {counted(loader.order.rows, 'image')}, {counted(config.epochs, 'epoch')} of "
        f"{counted(steps, 'step')}",
        f"  {_learning(config)}",
        *([f"  {_views(method.inputs)}"] if isinstance(method.inputs, Views) else []),
        f"  {parts.runtime.describe()}, mode {config.mode}",
        f"  images wait in {loader.residence.name} ({bytes_text(loader.residence.rows * row)}), order {config.shuffle}, "
        f"seed {config.seed}",
        *(f"  {remark}" for remark in (*parts.weights, *request.remarks, *_never_at_peak(config, steps))),
    ]
    return "\n".join(lines)


def unchosen(config: PretrainConfig, preset: str | None, given: Collection[str]) -> tuple[str, ...]:
    """Return a remark where a method of views would learn by the defaults, which are those of another method.

    Parameters
    ----------
    config : PretrainConfig
    preset : str, optional
    given : collection of str
        Fields that an option set.
    """
    if config.method not in AUGMENTATION or preset is not None or not {"lr", "schedule"}.isdisjoint(given):
        return ()
    names = presets_of(config.method, config.network) or presets_of(config.method)
    shown = ", ".join(f"--preset {name}" for name in names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return (
        f"note: neither --preset nor --lr nor --schedule: {config.method} learns by split_brain's settings ({_rate(config)}), "
        f"so hardly after the first epoch. Made for it: {shown}",
    )


def _learning(config: PretrainConfig) -> str:
    parts = f" in {config.accumulate} micro-batches" if config.accumulate > 1 else ""
    rises = [
        *([counted(config.warmup, "step")] if config.warmup else []),
        *([counted(config.warmup_epochs, "epoch")] if config.warmup_epochs else []),
    ]
    rise = f" after a warm-up of {' and '.join(rises)}" if rises else ""
    return f"batches of {config.batch_size:,}{parts}, {_rate(config)}{rise}"


def _rate(config: PretrainConfig) -> str:
    decay = f" {config.decay:g}" if config.schedule in ("epoch-decay", "step-decay") else ""
    return f"{config.optimizer}, peak learning rate {config.lr:g}, {config.schedule}{decay}"


def _views(views: Views) -> str:
    sizes = " and ".join(f"{size} x {size}" for size in views.sizes)
    return f"{counted(views.count, 'view')} of an image by {views.augmentation}, {sizes} pixels"


def _never_at_peak(config: PretrainConfig, per_epoch: int) -> list[str]:
    steps, warmup = config.epochs * per_epoch, config.warmup + config.warmup_epochs * per_epoch
    if not 0 < steps < warmup:
        return []
    highest = learning_rate(
        steps - 1, steps, per_epoch, config.lr, config.schedule, warmup, config.decay, config.warmup_lr
    )
    options = " or ".join(
        f"--{name.replace('_', '-')}" for name in ("warmup_epochs", "warmup") if getattr(config, name)
    )
    return [
        f"note: the warm-up takes {counted(warmup, 'step')}, the run {counted(steps, 'step')}: its learning rate rises to "
        f"{highest:.3g}, never to {config.lr:g}. Lower {options}, or use more --epochs"
    ]
