"""The built-in data set: the same bytes everywhere, balanced labels, colors that take recognizing to predict."""

import ast
import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from skimage.color import rgb2lab

from sbformat.errors import ConfigError
from sbprep.sources import builtin, builtin_drawing, builtin_noise
from sbprep.sources.builtin import LABEL_NAMES, MATERIALS, SHAPES, BuiltinSource, splits

#: numpy functions that are exactly rounded or move values about: the same bytes on every machine.
EXACT = set(
    "abs arange array ascontiguousarray float32 float64 floor full int32 int64 intp maximum minimum repeat sign sqrt"
    " take uint64 uint8 where zeros".split()
)


def images(split, numbers=None):
    """Draw these images of a split, (N, S, S, 3)."""
    listing = split.listing if numbers is None else split.listing.take(np.array(numbers))
    return np.stack(list(split.source.read(listing)))


def digest(size, seed, name, number):
    drawn = images(splits(size, seed, counts={name: number + 1})[name], [number])
    return hashlib.sha256(drawn.tobytes()).hexdigest()[:16]


def cells_of(lab):
    """Cut (N, 96, 96, 3) into (N, 12, 12, 8, 8, 3)."""
    return lab.reshape(-1, 12, 8, 12, 8, 3).transpose(0, 1, 3, 2, 4, 5)


def texture_of(cells):
    """Mean, contrast and fine contrast of each cell of L, with their products: (N, 12, 12, 9)."""
    mean, contrast = cells.mean(axis=(3, 4)), cells.std(axis=(3, 4))
    fine = sum(np.abs(np.diff(cells, axis=axis)).mean(axis=(3, 4)) for axis in (3, 4))
    products = (mean * mean, contrast * contrast, fine * fine, mean * contrast, mean * fine)
    return np.stack([np.ones_like(mean), mean, contrast, fine, *products], axis=-1)


@pytest.fixture(scope="module")
def train():
    return splits(32, counts={"train": 100})["train"]


@pytest.fixture(scope="module")
def pictures(train):
    return images(train)


def test_the_same_image_is_drawn_twice(train, pictures):
    assert np.array_equal(images(train), pictures)


def test_an_image_does_not_depend_on_what_is_read_before_it(train, pictures):
    rows = [99, 3, 50, 3]

    assert np.array_equal(images(train, rows), pictures[rows])


def test_a_pickled_source_draws_the_same_images(train, pictures):
    copy = pickle.loads(pickle.dumps(train.source))

    assert copy == train.source
    assert np.array_equal(np.stack(list(copy.read(train.listing))), pictures)


def test_more_images_leave_the_first_ones_as_they_are(pictures):
    longer = splits(32, counts={"train": 200})["train"]

    assert np.array_equal(images(longer, range(100)), pictures)


@pytest.mark.parametrize(
    ("size", "seed", "name", "number", "expected"),
    [
        (32, 0, "train", 0, "599ba77454e5b4da"),
        (32, 0, "unlabeled", 4095, "31eec2418af3365b"),
        (32, 7, "val", 13, "0317e90a94b7a294"),
        (96, 0, "train", 17, "c75ccc9ab4ef2a33"),
        (96, 7, "train", 17, "15c8d0dc471d8a42"),
        (96, 7, "unlabeled", 6, "747a53ed2e5e93dd"),
    ],
)
def test_the_bytes_never_change(size, seed, name, number, expected):
    """A change here changes every build of the built-in data set: it belongs in the changelog."""
    assert digest(size, seed, name, number) == expected


def test_every_class_has_its_bytes():
    """One image of each material and shape, over all three backgrounds."""
    drawn = images(splits(32, counts={"val": 60})["val"])

    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == "3943345fe6631798"


def test_only_exactly_rounded_operations_are_used():
    """Sines, powers, sums and matrix products differ in the last bit between machines and numpy versions."""
    modules = (builtin, builtin_drawing, builtin_noise)
    trees = [ast.parse(Path(module.__file__).read_text(encoding="utf-8")) for module in modules]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    used = {(n.value.id, n.attr) for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)}

    assert {name for module, name in used if module == "np"} <= EXACT
    assert {name for module, name in used if module == "math"} == {"sqrt"}
    assert not {"sum", "mean", "std", "var", "dot", "cumsum"} & {n.attr for n in nodes if isinstance(n, ast.Attribute)}
    assert not [n for n in nodes if isinstance(n, ast.Pow | ast.MatMult)]


def test_images_of_other_seeds_splits_and_numbers_differ():
    drawn = [digest(32, seed, name, number) for seed in (0, 1) for name in ("train", "val") for number in (0, 20)]

    assert len(set(drawn)) == 8


def test_large_seeds_are_as_good_as_small_ones():
    assert digest(32, 2**64 - 1, "train", 0) != digest(32, 0, "train", 0)


def test_default_counts_and_size():
    found = splits()

    assert {name: len(split.listing) for name, split in found.items()} == {"unlabeled": 4096, "train": 1280, "val": 640}
    assert images(found["val"], [0]).shape == (1, 96, 96, 3)


def test_labels_are_balanced_and_named():
    train, val = (splits()[name] for name in ("train", "val"))

    assert train.listing.labels.dtype == np.int32
    assert np.bincount(train.listing.labels).tolist() == [64] * 20
    assert np.bincount(val.listing.labels).tolist() == [32] * 20
    assert train.label_names == val.label_names == LABEL_NAMES
    assert len(set(LABEL_NAMES)) == len(MATERIALS) * len(SHAPES) == 20
    assert LABEL_NAMES[:2] == ("marble-disc", "marble-ring")


def test_the_unlabeled_split_has_no_labels():
    unlabeled = splits()["unlabeled"]

    assert unlabeled.listing.labels is None
    assert unlabeled.label_names is None


def test_the_listing_tells_names_sizes_stamps_and_keys():
    listing = splits(image_size=33)["train"].listing

    assert listing.names[17] == "builtin/train#00017"
    assert len(set(listing.names)) == 1280
    assert set(listing.sizes.tolist()) == {33 * 33 * 3}
    assert not listing.stamps.any()
    assert np.array_equal(listing.keys, np.arange(1280))
    assert listing.keys.dtype == listing.sizes.dtype == listing.stamps.dtype == np.int64


def test_a_limit_keeps_the_first_images_of_each_split():
    found = splits(limit=40, counts={"train": 100, "val": 20})

    assert {name: len(split.listing) for name, split in found.items()} == {"train": 40, "val": 20}
    assert np.bincount(found["train"].listing.labels).tolist() == [2] * 20


def test_a_split_of_no_images_is_left_out():
    assert list(splits(counts={"unlabeled": 0, "test": 20, "train": 20})) == ["train", "test"]


@pytest.mark.parametrize("size", [8, 33, 200])
def test_any_size_is_drawn(size):
    drawn = images(splits(size, counts={"train": 20})["train"])

    assert drawn.shape == (20, size, size, 3)
    assert drawn.dtype == np.uint8
    assert drawn[0].std() > 10


def test_a_larger_image_shows_the_same_scene():
    small, large = (images(splits(size, counts={"train": 20})["train"]) for size in (32, 96))
    means = large.reshape(20, 32, 3, 32, 3, 3).mean(axis=(2, 4))

    assert np.abs(means - small).mean() < 12
    assert np.abs(means - small[::-1]).mean() > 35


def test_images_use_the_range_of_lightness_and_color(pictures):
    lab = rgb2lab(pictures)

    assert lab[..., 0].std() > 12
    assert 40 < lab[..., 0].mean() < 60
    assert np.hypot(lab[..., 1], lab[..., 2]).mean() > 15
    assert (pictures == 255).mean() < 0.03


def test_each_palette_serves_several_classes_and_no_material_or_shape_twice():
    table = np.array(builtin_drawing._PALETTE_OF)

    assert np.bincount(table.ravel()).tolist() == [4] * 5
    assert all(len(set(row)) == len(row) for row in (*table.tolist(), *table.T.tolist()))


def test_mean_color_does_not_tell_the_class():
    """1-nearest neighbor with 64 images a class stays below 20 %, where chance is 5 %."""
    known, asked = (splits(24)[name] for name in ("train", "val"))
    a, b = images(known).mean(axis=(1, 2)), images(asked).mean(axis=(1, 2))
    nearest = ((b[:, None] - a[None]) ** 2).sum(axis=2).argmin(axis=1)

    assert (known.listing.labels[nearest] == asked.listing.labels).mean() < 0.2


def test_color_of_a_region_follows_from_its_lightness_texture():
    """A quadratic fit of L statistics explains a tenth and more of a and b in 12 x 12 cells, on images not fitted."""
    cells = cells_of(rgb2lab(images(splits(96, counts={"unlabeled": 400})["unlabeled"])))
    seen, ab = texture_of(cells[..., 0]), cells[..., 1:].mean(axis=(3, 4))
    weights = np.linalg.lstsq(seen[:300].reshape(-1, 9), ab[:300].reshape(-1, 2), rcond=None)[0]
    missed = np.var(ab[300:] - seen[300:] @ weights, axis=(0, 1, 2))

    assert np.all(missed / np.var(ab[300:], axis=(0, 1, 2)) < 0.9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 7}, "image size 7"),
        ({"image_size": 1025}, "image size 1025"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**64}, "seed 18446744073709551616"),
        ({"limit": 0}, "limit 0"),
        ({"counts": {"train": -3}}, "-3 images for split train"),
        ({"counts": {"training": 20}}, "split 'training'"),
    ],
)
def test_impossible_requests_say_what_was_given(arguments, message):
    with pytest.raises(ConfigError, match=message):
        splits(**arguments)


def test_a_listing_without_numbers_is_refused(train):
    with pytest.raises(ConfigError, match="listing without keys"):
        next(iter(train.source.read(replace(train.listing, keys=None))))


def test_a_source_reads_any_part_at_once():
    assert BuiltinSource(96, 0, "train").sequential is False
