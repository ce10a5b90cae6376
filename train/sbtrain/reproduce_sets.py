"""The prepared sets that a reproduction reads: found by their manifests, matched to what a run needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sbformat.absent import absent
from sbformat.errors import ManifestError
from sbformat.manifest import MANIFEST_NAME, Manifest
from sbformat.schema import TargetSpec


class MissingShards(ManifestError):
    """No prepared set is what a run needs; says how to build it."""


@dataclass(frozen=True)
class Sets:
    """Prepared sets of the same images; the first is the one that everything else is compared with."""

    manifests: tuple[Manifest, ...]

    @property
    def base(self) -> Manifest:
        """The first: its target maps are those of every run that asks for none of its own."""
        return self.manifests[0]

    def find(self, colorspace: str, target: TargetSpec) -> Manifest:
        """Return the set of `colorspace` with target maps like `target`.

        Raises
        ------
        MissingShards
            There is none, or it is of other images.
        """
        for manifest in self.manifests:
            if (manifest.colorspace, manifest.target) == (colorspace, target):
                lines = _differences(self.base, manifest)
                if lines:
                    raise MissingShards(
                        f"{manifest.root}: other images than {self.base.root} ({'; '.join(lines)}). Build it from the "
                        f"same images: {self.build_command(colorspace, target)}"
                    )
                return manifest
        what = colorspace if target == self.base.target else f"{colorspace} with {_described(target)}"
        raise MissingShards(f"no shards of {what}. Build them: {self.build_command(colorspace, target)}")

    def build_command(self, colorspace: str, target: TargetSpec) -> str:
        """Return the ``sbprep build`` that makes such a set beside the base's."""
        root, base = self.base.root.parent, self.base
        out = root
        if target != base.target:
            out = root / f"t{target.size}-{target.single}-{target.dual}x{target.dual}"
        parts = ["sbprep build", *_sources(base), f"--colorspace {colorspace}", f"--out {out}"]
        parts += [f"--image-size {base.image_size}"] if base.image_size != 96 else []
        default = TargetSpec()
        for name, option in (("size", "target-size"), ("single", "bins-single"), ("dual", "bins-dual")):
            if getattr(target, name) != getattr(default, name):
                parts.append(f"--{option} {getattr(target, name)}")
        parts += [f"--rescale {target.rescale}"] if target.rescale != default.rescale else []
        for name, usual in (("resize", "crop"), ("images_per_shard", 4096), ("seed", 0), ("limit", None)):
            if base.recipe.get(name, usual) != usual:
                parts.append(f"--{name.replace('_', '-')} {base.recipe[name]}")
        return " ".join(parts)


def find_sets(roots: Sequence[Path]) -> Sets:
    """Read every manifest under `roots`: color spaces in a folder, in folders of it, or a color space's own folder.

    Raises
    ------
    ManifestError
        A root holds none, or one is damaged.
    """
    found: dict[Path, Manifest] = {}
    for root in roots:
        depths = (MANIFEST_NAME, f"*/{MANIFEST_NAME}", f"*/*/{MANIFEST_NAME}")
        paths = [path for pattern in depths for path in sorted(root.glob(pattern))] if root.is_dir() else []
        if not paths:
            raise absent(root, [])
        for path in paths:
            found.setdefault(path.parent.resolve(), Manifest.read(path.parent))
    return Sets(tuple(found.values()))


def _differences(base: Manifest, other: Manifest) -> list[str]:
    lines = []
    for name, split in base.splits.items():
        there = other.splits.get(name)
        if there is None or there.images != split.images:
            lines.append(f"split {name} has {there.images if there else 'no'} images, expected {split.images}")
        elif there.files.get("sources.txt") != split.files.get("sources.txt"):
            lines.append(f"split {name} lists other images")
    for name in ("image_size", "label_names"):
        if getattr(base, name) != getattr(other, name):
            lines.append(f"another {name.replace('_', ' ')}")
    return lines


def _sources(base: Manifest) -> list[str]:
    given = {split.source.get("option"): split.source.get("path") for split in base.splits.values()}
    return [f"--{option} {path}" for option, path in given.items() if option is not None]


def _described(target: TargetSpec) -> str:
    return f"{target.size} x {target.size} cells, {target.single} and {target.dual} x {target.dual} bins"
