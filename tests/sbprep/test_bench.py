"""The benchmark: its lines, the fairness of its clock, and the published preparation that it measures against."""

import math
import os
import re
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from sbformat.colorimetry import lab_from_rgb
from sbformat.errors import BuildError, ConfigError, SourceError
from sbprep import bench, published, stopwatch
from sbprep.config import BuildConfig
from sbprep.sources import builtin, open_splits
from sbprep.stopwatch import Bar, Crew, Ratio, Rounds

pytestmark = pytest.mark.jit

RATIO = re.compile(r" ([\d.,]+)x \(([\d.,]+) to ([\d.,]+)\) +([\d,]+) : ([\d,]+) images/s")


def run_in(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: object, **options: int) -> list[str]:
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return list(bench.run(*arguments, repeats=1, **options))


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def lines(temporary: Path) -> list[str]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return run_in(temporary, monkeypatch, None, 64, 2, reds=4)


@pytest.fixture(scope="module")
def texture() -> np.ndarray:
    split = builtin.splits(counts={"unlabeled": 1})["unlabeled"]
    return next(split.source.read(split.listing))


# ------------------------------------------------------------------------------------------------- the whole command


@pytest.mark.parametrize(
    "expected",
    [
        r"sbprep bench, \d{4}-\d\d-\d\d",
        r"  processor  .+, \d+ cores?, 2 of them used",
        r"  software   Python 3.+, OpenCV .+, numpy .+, numba .+, h5py .+, joblib .+, pillow .+, scikit-image .+",
        r"  images     64 JPEGs of 96 x 96, [\d,]+ bytes on average, generated",
        r"  numbers    ratio \(lowest to highest of 1 round\), .+",
        r"  rescaled_lab [\d,]+, lab [\d,]+, rgb [\d,]+ images/s",
        r"  rescaled_lab / scikit-image, Lab alone .+ bar 8: (ok|short), stretch 20: (ok|short)",
        r"  rescaled_lab / OpenCV, 8 bit, Lab alone .+ bar 1: (ok|short), stretch 2: (ok|short)",
        r"  rescaled_lab / OpenCV, float32, Lab alone .+ images/s",
        r"  lab / scikit-image, Lab alone .+ images/s",
        r"  worst error half a step [+-]\d\.\de[+-]\d\d   bar half a step \+1e-03: ok",
        r"  correctly rounded 99\.99\d\d %   stretch 99.99 %: ok",
        r"build, JPEG files to rescaled_lab, 1 process a side, shards of 64 images, start-up left out",
        r"build, JPEG files to rescaled_lab, 2 processes a side, shards of 64 images, start-up left out",
        r"  build / published preparation .+ bar 8: (ok|short), stretch 12: (ok|short)",
        r"  build / decode alone .+ bar 0.6: (ok|short), stretch 0.75: (ok|short)",
        r"  one image takes \d+ us: read \d+ \+ decode \d+ \+ convert \d+ \+ write, hash, fsync and all else -?\d+",
        r"  sbprep build as typed: 64 images by 2 workers in [\d.]+ s; [\d.]+ s at the rate above, .+",
        r"memory: \d+ MB at most in a process that builds a shard of 4,096 images   bar 600 MB: ok",
        r"  xxh3_64 [\d.]+, xxh3_128 [\d.]+, crc32 [\d.]+, sha256 [\d.]+, "
        r"find_damage, 1 thread [\d.]+, find_damage, 2 threads [\d.]+ GB/s",
        r"  Shard.read, all in order [\d,]+ images/s",
        r"  Shard.array\[rows\] / h5py, row by row .+ images/s",
        r"  Shard.array\[rows\] / h5py, sorted rows .+ images/s",
    ],
)
def test_every_number_has_its_line(lines: list[str], expected: str) -> None:
    assert any(re.fullmatch(expected, line) for line in lines)


def test_every_ratio_is_positive_and_within_its_extremes(lines: list[str]) -> None:
    found = [match for line in lines if (match := RATIO.search(line))]
    numbers = [[float(text.replace(",", "")) for text in match.groups()] for match in found]

    assert len(numbers) == 14
    assert all(0 < lowest <= middle <= highest for middle, lowest, highest, *_ in numbers)
    assert all(rate > 0 for _, _, _, *rates in numbers for rate in rates)


def test_nothing_is_left_in_the_temporary_folder(lines: list[str], temporary: Path) -> None:
    assert list(temporary.iterdir()) == []


def test_without_a_peer_its_lines_say_what_to_install_and_the_rest_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texture: np.ndarray
) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    for folder in ("source", "temporary"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"source/{number}.png"), texture[number:, :80])

    printed = run_in(tmp_path / "temporary", monkeypatch, tmp_path / "source", 2, 1, reds=1)

    lacking = [line.strip() for line in printed if line.endswith(" not measured: pip install scikit-image")]
    assert printed[3].endswith(f" bytes on average, from {tmp_path}/source")
    assert [re.split(",|  ", line)[0] for line in lacking] == [
        "rescaled_lab / scikit-image",
        "lab / scikit-image",
        "build / published preparation",
    ]
    assert sum(RATIO.search(line) is not None for line in printed) == 8


def test_no_image_at_all_is_an_error() -> None:
    with pytest.raises(ConfigError, match="0 images, expected 1 or more"):
        next(bench.run(None, 0, 1))


def test_a_source_without_a_sound_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")

    with pytest.raises(SourceError, match="none of its first 1 images can be decoded"):
        next(bench.run(tmp_path, 1, 1))


# ------------------------------------------------------------------------------------------------------ what is measured


def test_jpegs_of_96_pixels_are_measured_as_they_are_and_others_become_such(
    tmp_path: Path, texture: np.ndarray
) -> None:
    source, made = tmp_path / "source", tmp_path / "made"
    source.mkdir()
    made.mkdir()
    cv2.imwrite(str(source / "a.jpg"), texture, [cv2.IMWRITE_JPEG_QUALITY, 31])
    cv2.imwrite(str(source / "b.jpg"), texture[:50])
    (source / "c.jpg").write_bytes(b"not an image")
    split = open_splits(BuildConfig(colorspaces=("lab",), paths={"unlabeled": source}))["unlabeled"]

    bench.write_jpegs(split, np.arange(3), made)

    assert sorted(path.name for path in made.iterdir()) == ["0000000.jpg", "0000001.jpg"]
    assert (made / "0000000.jpg").read_bytes() == (source / "a.jpg").read_bytes()
    assert cv2.imread(str(made / "0000001.jpg")).shape == (96, 96, 3)


def test_color_errors_are_those_of_rounding() -> None:
    worst, wrong = bench.color_errors(np.array([0, 128], np.uint8))

    assert -1e-4 < worst < 1e-3
    assert wrong < 100


# ----------------------------------------------------------------------------------------- the published preparation


def naive_classes(small: np.ndarray) -> tuple[list[list[int]], list[list[int]]]:
    """Bins of equal width by arithmetic: L in [0, 101), a and b in [lowest, highest + 1) of this map."""
    bounds = [(small[..., c].min(), small[..., c].max() + 1) for c in (1, 2)]
    rows = range(len(small))
    single = [[math.floor(small[i, j, 0] / 101 * 100) for j in rows] for i in rows]
    dual = [
        [
            sum(
                math.floor((small[i, j, c] - low) / (high - low) * 10) * weight
                for c, (low, high), weight in zip((1, 2), bounds, (10, 1), strict=True)
            )
            for j in rows
        ]
        for i in rows
    ]
    return single, dual


def naive_small(lab: np.ndarray) -> np.ndarray:
    """Gaussian of sigma 3.5 cut at 14 pixels, zeros outside, then the mean of the two middle pixels of each cell."""
    kernel = np.exp(-(np.arange(-14, 15) ** 2) / (2 * 3.5**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        lab = np.apply_along_axis(np.convolve, axis, lab, kernel, "same")
        lab = (lab.take(range(3, 96, 8), axis) + lab.take(range(4, 96, 8), axis)) / 2
    return lab


def test_published_classes_of_a_known_map() -> None:
    small = np.zeros((2, 2, 3))
    small[..., 0] = [[0, 1.009], [1.011, 100]]  # bins are 1.01 wide
    small[..., 1] = [[-4, 5], [4.9, 0]]  # -4 ... 6: bins of 1
    small[..., 2] = 7  # 7 ... 8: bin 0

    single, dual = published.classes(small)

    assert single.tolist() == [[0, 0], [1, 99]]
    assert dual.tolist() == [[0, 90], [80, 40]]


def test_published_preparation_of_an_image_equals_the_naive_one(tmp_path: Path, texture: np.ndarray) -> None:
    cv2.imwrite(str(tmp_path / "image.png"), texture[..., ::-1])

    lab, single, dual = published.prepare(tmp_path / "image.png")
    expected_single, expected_dual = naive_classes(naive_small(lab_from_rgb(texture)))

    assert np.abs(lab - lab_from_rgb(texture)).max() < 0.01
    assert single.tolist() == expected_single
    assert dual.tolist() == expected_dual


def test_missing_peers_are_named_as_pip_knows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)

    assert published.missing_peers() == ["pillow"]


# ------------------------------------------------------------------------------------------------------- the stopwatch


def test_a_ratio_is_taken_within_each_round() -> None:
    rates = Rounds(rates={"ours": [10, 20, 90], "theirs": [10, 10, 30]})

    assert rates.ratio("ours", "theirs") == Ratio(median=2, lowest=1, highest=3)
    assert rates.rate("ours") == 20


def test_contestants_take_turns_in_both_orders() -> None:
    order: list[str] = []
    contestants = {name: lambda name=name: order.append(name) or float(len(order)) for name in ("a", "b")}

    result = stopwatch.rounds(contestants, 2)

    assert order == ["a", "b", "b", "a"]
    assert result.rates == {"a": [1, 4], "b": [2, 3]}


def test_a_bar_is_reached_by_equality() -> None:
    assert Bar(8, 20).verdict(8) == "bar 8: ok, stretch 20: short"


def test_a_crew_answers_in_order_from_processes_of_its_own() -> None:
    with Crew(2) as crew:
        first, second = crew.map(os.getpid, [(), ()])

        assert len({first, second, os.getpid()}) == 3
        assert crew.map(pow, [(2, 3), (3, 2)]) == [8, 9]
        assert crew.seconds(2, os.getpid) > 0


def test_the_death_of_a_crew_member_is_an_error_that_names_the_work() -> None:
    with Crew(1) as crew, pytest.raises(BuildError, match="a measuring process died in _exit"):
        crew.map(os._exit, [(1,)])


def test_scaling_sets_all_workers_beside_one(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    lines = list(bench.run_scaling(None, 64, 2, None, repeats=1))

    assert RATIO.search(lines[-2])
    assert re.match(r"  2 processes / 1 process .*bar 1.9: (ok|short), stretch 2: (ok|short)", lines[-2])
    assert RATIO.search(lines[-1])
    assert lines[-1].startswith("  the same, reading and decoding alone ")
