"""The command that makes shards like others, from the same images."""

from __future__ import annotations

import shlex
from pathlib import Path

from sbformat.manifest import Manifest
from sbformat.schema import TargetSpec


def build_command(base: Manifest, colorspace: str, image_size: int, target: TargetSpec, out: Path) -> str:
    """Return the ``sbprep build`` of the images of `base`, as they were built, but for what is given."""
    given = {split.source.get("option"): split.source.get("path") for split in base.splits.values()}
    named = ((option, str(path)) for option, path in given.items() if option is not None)
    parts = ["sbprep build", *(f"--{option} {shlex.quote(path)}" for option, path in named)]
    parts += [f"--colorspace {colorspace}", f"--out {shlex.quote(str(out))}"]
    parts += [f"--image-size {image_size}"] if image_size != 96 else []
    default = TargetSpec()
    for name, option in (
        ("size", "target-size"), ("bins", "bins"), ("single", "bins-single"), ("dual", "bins-dual"), ("rescale", "rescale"),
    ):  # fmt: skip
        if getattr(target, name) != getattr(default, name):
            parts.append(f"--{option} {getattr(target, name)}")
    for name, usual in (("resize", "crop"), ("images_per_shard", 4096), ("seed", 0), ("limit", None)):
        if base.recipe.get(name, usual) != usual:
            parts.append(f"--{name.replace('_', '-')} {base.recipe[name]}")
    return " ".join(parts)
