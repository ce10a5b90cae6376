"""``sbtrain bench``: parse, one call, print."""

from __future__ import annotations

import click

from sbtrain.bench.peers import BATCH
from sbtrain.bench.run import Plan, run
from sbtrain.networks import HALVES
from sbtrain.options import device_option
from sbtrain.runtime import set_up

#: Measured by default: all networks on a GPU; on a CPU those whose step takes seconds, not minutes.
CPU_NETWORKS = ("simplenet", "resnet18")
CPU_IMAGES, CUDA_IMAGES = 8192, 65_536


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",")) if value else ()


def _numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    try:
        sizes = tuple(map(int, _names(ctx, param, value)))
    except ValueError:
        sizes = (0,)
    if min(sizes, default=1) < 1:
        raise click.BadParameter(f"{value!r}, expected whole numbers above 0 with commas between them", ctx, param)
    return sizes


@click.command("bench")
@click.option("--images", type=click.IntRange(1), help=f"To write and read: {CPU_IMAGES:,}, on a GPU {CUDA_IMAGES:,}.")
@click.option("--networks", callback=_names, metavar="A,B", help="To train: simplenet,resnet18, on a GPU all.")
@click.option("--batch-sizes", callback=_numbers, metavar="N,M", help="To train with: 64, on a GPU 64,512.")
@device_option
@click.option("--quick", is_flag=True, help="A third of the rounds, simplenet alone.")
def bench_command(
    images: int | None, networks: tuple[str, ...], batch_sizes: tuple[int, ...], device: str, quick: bool
) -> None:
    """Measure this machine: the loader beside others and memcpy, training steps, time to the first step.

    Writes its own shards into a temporary folder (226 MB; 1.8 GB for a GPU). Loaders to compare with are left out, and
    named, where they are not installed.

    \b
    Example:
        sbtrain bench --quick --images 1024
    """
    on_cuda = set_up(device, "auto", "exact", 0).device.type == "cuda"
    every = tuple(HALVES) if on_cuda else CPU_NETWORKS
    plan = Plan(
        images=images or (CUDA_IMAGES if on_cuda else CPU_IMAGES),
        networks=networks or (every[:1] if quick else every),
        batch_sizes=batch_sizes or ((BATCH, 512) if on_cuda else (BATCH,)),
        device=device,
        repeats=3 if quick else 7,
        seconds=0.1 if quick else 0.3,
    )
    for line in run(plan):
        click.echo(line)
