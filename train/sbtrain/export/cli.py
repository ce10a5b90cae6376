"""``sbtrain export``: parse, one call, print."""

from __future__ import annotations

from pathlib import Path

import click

from sbformat.errors import ConfigError
from sbtrain.evaluation.pretrained import open_pretrained
from sbtrain.export.files import export
from sbtrain.export.formats import FORMATS, Format
from sbtrain.options import run_option
from sbtrain.progress import ProgressPrinter, bytes_text
from sbtrain.run_folder import read_config
from sbtrain.runtime import set_up

EXAMPLE = """\b
Example:
  sbtrain export --run runs/NAME --shards data_cache --out encoder
"""


@click.command("export", epilog=EXAMPLE)
@run_option
@click.option(
    "--shards", type=click.Path(path_type=Path), default=Path("data_cache"), show_default=True,
    help="The run's own: their statistics normalize its inputs.",
)  # fmt: skip
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder to write to; made if need be.",
)
@click.option("--layer", metavar="NAME", help="Last layer of the encoder; by default the run's last.")
@click.option(
    "--pool", type=int, metavar="S", default=0, show_default=True, help="Average it to S x S cells; 0: as it is."
)
@click.option("--format", "formats", default=",".join(FORMATS), show_default=True, help="Any of these.")
def export_command(run_dir: Path, shards: Path, out: Path, layer: str | None, pool: int, formats: str) -> None:
    """Write the encoder of a run for use without this project: safetensors with a JSON card, ONNX, torch.export.

    It takes images as the shards store them, uint8 (N, 3, S, S), and gives one layer of both halves; all beyond that
    layer is left out. Each file is loaded again and its output compared before it gets its name. The card,
    encoder.json, says what the encoder eats and how to load each file.

    \b
    Exit codes:
      0    done
      1    failed; the message says what to do
      2    an option is wrong
      130  Ctrl-C: nothing was left; run it again
    """
    chosen = _formats(formats)
    if pool < 0:
        raise ConfigError(f"pool {pool}, expected 0 or more")
    set_up("cpu", "float32", "exact", 0)
    with ProgressPrinter() as progress:
        pretrained = open_pretrained(run_dir, shards, read_config(run_dir).split, progress.say, option="--shards")
        card = export(pretrained, out, progress.say, layer, pool, chosen)
    shape = " x ".join(map(str, card["output"]["shape"]))
    click.echo(f"{out}: {card['network']} up to {card['layer']}, {card['parameters']:,} parameters, features {shape}")
    for kind, (name, file) in zip(chosen, card["files"].items(), strict=True):
        check = card["checks"][kind]
        within = "the same bits" if check["difference"] == 0 else f"within {check['difference']:.1g} of the largest"
        click.echo(f"  {name}: {bytes_text(file['bytes'])}, loaded again: {within}")


def _formats(text: str) -> tuple[Format, ...]:
    given = {part.strip() for part in text.split(",")}
    if not given <= set(FORMATS):
        raise ConfigError(f"format {text!r}, expected any of {', '.join(FORMATS)}, with commas between")
    return tuple(kind for kind in FORMATS if kind in given)
