"""The prepared sets that a reproduction reads: found by their manifests, matched to what a run needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sbformat.absent import absent
from sbformat.errors import ManifestError
from sbformat.manifest import MANIFEST_NAME, Manifest
from sbformat.rebuild import build_command
from sbformat.schema import TargetSpec
from sbtrain.reproduce.cells import Cell
from sbtrain.reproduce.data import DATASETS, NOISE, choose


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
        alike = [each for each in self.manifests if (each.colorspace, each.target) == (colorspace, target)]
        for manifest in alike:
            if not _differences(self.base, manifest):
                return manifest
        for manifest in alike:
            raise MissingShards(
                f"{manifest.root}: other images than {self.base.root} ({'; '.join(_differences(self.base, manifest))}). "
                f"Build it from the same images: {self.build_command(colorspace, target)}"
            )
        what = colorspace if target == self.base.target else f"{colorspace} with {_described(target)}"
        raise MissingShards(f"no shards of {what}. Build them: {self.build_command(colorspace, target)}")

    def of(self, cell: Cell) -> Manifest:
        """Return the set that a cell pretrains on.

        Raises
        ------
        MissingShards
            There is none.
        """
        if cell.images is None:
            return self.find(cell.colorspace, cell.target)
        return self._named(cell.images.pretrained_on, cell)

    def judged(self, cell: Cell) -> Manifest:
        """Return the set that a cell is judged on.

        Raises
        ------
        MissingShards
            There is none, or it is not like the one that was pretrained on.
        """
        if cell.images is None or cell.images.judged_on == cell.images.pretrained_on:
            return self.of(cell)
        mine, judged = self.of(cell), self._named(cell.images.judged_on, cell)
        if mine.image_size != judged.image_size and not cell.config.view_size:
            raise MissingShards(
                f"{judged.root} and {mine.root} differ in image size, and the run has no --view-size of its own. Build both "
                f"with the same --image-size: {DATASETS[cell.images.pretrained_on].build}"
            )
        return judged

    def _named(self, name: str, cell: Cell) -> Manifest:
        assert cell.images is not None, "asked of cells that name their data set"
        found = choose(self.manifests, name, cell.images.stand_in, cell.config.split, cell.images.train)
        if found is None and cell.images.stand_in and (name == NOISE or DATASETS[name].attributes):
            raise MissingShards(f"skipped at this scale. No other images stand in for {DATASETS[name].shown}")
        if found is None:
            raise MissingShards(f"no shards of {DATASETS[name].shown}. Build them: {DATASETS[name].build}")
        return found

    def build_command(self, colorspace: str, target: TargetSpec) -> str:
        """Return the ``sbprep build`` that makes such a set beside the base's."""
        root, base = self.base.root.parent, self.base
        out = root
        if target != base.target:
            out = root / f"t{target.size}-{target.single}-{target.dual}x{target.dual}"
        return build_command(base, colorspace, base.image_size, target, out)


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


def _described(target: TargetSpec) -> str:
    return f"{target.size} x {target.size} cells, {target.single} and {target.dual} x {target.dual} bins"
