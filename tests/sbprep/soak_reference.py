"""Hold prepared shards against scikit-image, image by image. Not collected by pytest.

    python tests/sbprep/soak_reference.py data_cache --images photos/

Every stored value must lie within half a step and a thousandth of the float64 reference (in rescaled_lab, where a step
of a nearly gray image can be 1e-4 Lab units: within half a step and 2e-4 Lab units; scikit-image's rounded constants
0.008856 and 7.787 are worth 1.6e-4 in a), and every target bin must be the
reference's unless the mean of its cell lies within 1e-4 of a border between bins (in units of the color space).
Images are those of a folder, at the stored size already.
"""

from pathlib import Path

import click
import numpy as np
from PIL import Image
from skimage.color import rgb2lab

from sbformat.manifest import Manifest, open_manifest, prepared_colorspaces
from sbformat.schema import fixed_range
from sbformat.shard import open_shard

BORDER = 1e-4
ROUNDED = 2e-4
GRAY_SPAN = 0.02  # channels that span less are stored as constant


@click.command()
@click.argument("root", type=Path)
@click.option("--images", type=Path, required=True)
def main(root: Path, images: Path) -> None:
    for name in prepared_colorspaces(root):
        manifest = open_manifest(root, name)
        for split in manifest.splits:
            check(manifest, split, images)


def check(manifest: Manifest, split: str, images: Path) -> None:
    names = (manifest.root / split / "sources.txt").read_text().split("\n")
    count = wrong_values = wrong_bins = near = 0
    worst = 0.0
    for record in manifest.splits[split].shards:
        with open_shard(manifest, split, record) as shard:
            data = {dataset: shard.read(dataset, 0, record.count) for dataset in shard.datasets}
        for i in range(record.count):
            rgb = np.asarray(Image.open(images / names[data["source_index"][i]]).convert("RGB"))
            reference = (rgb.astype(float) if manifest.colorspace == "rgb" else rgb2lab(rgb)).transpose(2, 0, 1)
            error, scale = stored_error(manifest.colorspace, data, i, reference)
            excess = (error - 0.5) / np.maximum(1e-3, ROUNDED * scale * (manifest.colorspace == "rescaled_lab"))
            worst, wrong_values = max(worst, excess.max()), wrong_values + int((excess > 1).sum())
            wrong, close = wrong_targets(manifest, data, i, reference)
            wrong_bins, near, count = wrong_bins + wrong, near + close, count + 1
    click.echo(
        f"{manifest.root} {split}: {count} images; {wrong_values} values beyond half a step and the slack (the worst "
        f"uses {max(worst, 0):.0%} of the slack); "
        f"{wrong_bins} bins wrong, {near} more differ within {BORDER} of a border"
    )


def stored_error(colorspace: str, data: dict, i: int, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance from the stored values to the reference in steps of the stored code; steps in a unit of the space."""
    scale, offset = np.ones((3, 1, 1)), np.zeros((3, 1, 1))
    if colorspace == "lab":
        scale[0], offset[1:] = 2.55, 128
    elif colorspace == "rescaled_lab":
        low, high = reference.min(axis=(1, 2), keepdims=True), reference.max(axis=(1, 2), keepdims=True)
        constant = high - low < GRAY_SPAN
        scale = np.where(constant, 0, 255 / np.where(constant, 1, high - low))
        offset = -low * scale
    return np.abs(data["image"][i] - (reference * scale + offset)), scale


def wrong_targets(manifest: Manifest, data: dict, i: int, reference: np.ndarray) -> tuple[int, int]:
    """Count the bins that differ: (beyond doubt, within BORDER of a border)."""
    t, side = manifest.target.size, manifest.image_size
    means = reference.reshape(3, t, side // t, t, side // t).mean(axis=(2, 4))
    low, high = fixed_range(manifest.colorspace).astype(float).T
    if manifest.colorspace == "rescaled_lab":
        low, high = low.copy(), high.copy()
        low[1:], high[1:] = means[1:].min(axis=(1, 2)), means[1:].max(axis=(1, 2))
    counts = np.array([manifest.target.single, manifest.target.dual, manifest.target.dual])[:, None, None]
    span = np.maximum(high - low, GRAY_SPAN)[:, None, None]
    position = (means - low[:, None, None]) / span * counts
    bins = np.clip(np.floor(position), 0, counts - 1)
    bins[(high - low) < GRAY_SPAN] = 0
    joint = data["target_dual"][i].astype(int)
    found = np.stack([data["target_single"][i], joint // manifest.target.dual, joint % manifest.target.dual])
    differ = found != bins
    border = np.abs(position - np.round(position)) * span / counts < BORDER
    return int((differ & ~border).sum()), int((differ & border).sum())


if __name__ == "__main__":
    main()
