"""The benchmark of loader and steps: its lines, the fairness of its clock, its shards, and peers that are not there."""

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sbformat.errors import ConfigError, SplitbrainError
from sbformat.manifest import Manifest, open_manifest
from sbtrain.bench import peers as bench_peers
from sbtrain.bench import run as bench
from sbtrain.bench import steps as bench_steps
from sbtrain.bench.rounds import Bar, comparison, rounds, sampled
from sbtrain.bench.steps import FirstStep, Setting, Steady
from sbtrain.bench.synthetic import write_synthetic
from sbtrain.cli import main
from sbtrain.data import SplitReader
from sbtrain.flops import peak_flops

RATIO = re.compile(r" ([\d.,]+)x \(([\d.,]+) to ([\d.,]+)\) +([\d,]+) : ([\d,]+) images/s")
STEADY = Steady(
    images_per_s=10_000, data_wait=0.001, flops=229e12, mfu=0.23, peak_bytes=2_500_000_000, first_seconds=1.0,
    save_seconds=0.5,
)  # fmt: skip
PLAN = bench.Plan(images=64, networks=("simplenet",), batch_sizes=(4,), device="cpu", repeats=1, seconds=0.02)


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def lines(temporary: Path) -> Iterator[list[str]]:
    """Lines of a whole run on an environment without MosaicML Streaming."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        patch.setattr(tempfile, "tempdir", None)
        patch.setitem(sys.modules, "streaming", None)
        patch.setitem(sys.modules, "torchvision", None)
        yield list(bench.run(PLAN))


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("synthetic")
    write_synthetic(root / "lab", {"unlabeled": 70, "train": 20}, image_size=64)
    return open_manifest(root)


# ------------------------------------------------------------------------------------------------- the whole command


@pytest.mark.parametrize(
    "expected",
    [
        r"sbtrain bench, \d{4}-\d\d-\d\d",
        r"  processor  .+, \d+ cores",
        r"  device     CPU, \d+ threads?, (float32|bfloat16)",
        r"  software   Python 3.+, torch .+, numpy .+, h5py .+, pillow .+, scikit-image .+, mosaicml-streaming .+",
        r"  images     64 of 96 x 96, random bytes, with both targets",
        r"  host [\d,]+, mmap [\d,]+ images/s",
        r"  host / the report's loader .+ bar 100: (ok|short)",
        r"  mmap / h5py, d\[i\] per image .+ images/s",
        r"  host / MosaicML Streaming +not measured: pip install mosaicml-streaming",
        r"  mmap / memcpy .+ stretch 0.7: (ok|short)",
        r"  simsiam_cifar / torchvision .+   32 x 32, 2 views",
        r"  dino_multicrop / torchvision .+   96 x 96, 8 views",
        r"  [\d.]+% of a step of simsiam, resnet18-cifar, simsiam_cifar at 32 x 32, batch 8, is augmentation",
        r"  simplenet: first step [\d.]+ s after the start of a new process, [\d.]+ s of them for 64 images in host",
        r"  simplenet +4 exact +host +[\d,]+ +[\d.]+% +[\d.]+ s",
        r"  simplenet +4 exact +mmap +[\d,]+ +[\d.]+% +[\d.]+ s",
    ],
)
def test_every_number_has_its_line(lines: list[str], expected: str) -> None:
    assert any(re.fullmatch(expected, line) for line in lines), lines


def test_every_ratio_is_positive_and_within_its_extremes(lines: list[str]) -> None:
    found = [match for line in lines if (match := RATIO.search(line))]
    numbers = [[float(text.replace(",", "")) for text in match.groups()] for match in found]

    assert len(numbers) == 6
    assert all(0 < lowest <= middle <= highest for middle, lowest, highest, *_ in numbers)


def test_nothing_is_left_in_the_temporary_folder(lines: list[str], temporary: Path) -> None:
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--networks", "simplnet"), "expected some of simplenet, resnet18"),
        (("--images", "10"), "10 images, expected a batch of 64 or more"),
        (("--batch-sizes", "64,x"), "expected whole numbers above 0"),
        (("--device", "cuda:9"), "sees"),
    ],
)
def test_a_wrong_option_is_refused(options: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(main, ["bench", *options])

    assert result.exit_code == 2
    assert message in result.output


def test_a_plan_is_checked_where_it_is_made() -> None:
    with pytest.raises(ConfigError, match="100 images, expected a batch of 512"):
        bench.Plan(images=100, networks=("simplenet",), batch_sizes=(64, 512))


# --------------------------------------------------------------------------------------------------------- the clock


def test_contestants_take_turns_in_changing_order() -> None:
    order: list[str] = []

    def contestant(name: str, rate: float) -> bench.sampled.__class__:  # type: ignore[name-defined]
        return lambda: order.append(name) or rate  # type: ignore[func-returns-value]

    rates = rounds({"a": contestant("a", 6.0), "b": contestant("b", 2.0)}, 3)

    assert order == ["a", "b", "b", "a", "a", "b"]
    assert rates == {"a": [6.0] * 3, "b": [2.0] * 3}


def test_a_ratio_is_taken_within_a_round() -> None:
    line = comparison({"a": [10.0, 1.0, 40.0], "b": [5.0, 1.0, 10.0]}, "a", "b", Bar(2, 3))

    assert " 2.00x (1.00 to 4.00)" in line
    assert line.endswith("bar 2: ok, stretch 3: short")


def test_a_rate_counts_images_not_batches() -> None:
    def batches() -> Iterator[int]:
        while True:
            yield 64

    assert sampled(batches(), 0.01)() > 64 * 100


# --------------------------------------------------------------------------------------------------------- the table


def test_the_report_s_job_takes_its_images_the_start_scaled_to_them_and_the_saves() -> None:
    """10,000 images/s: 358.4 s; the start: 12 s, of which 2 s for an eighth of the images become 16 s.

    56,000 steps of 64 images: 57 saves of 0.5 s.
    """
    found = bench_steps.minutes(STEADY, 64, FirstStep(seconds=12, loading=2), 64_000)

    assert found == pytest.approx((358.4 + 26 + 28.5) / 60)


def test_a_save_is_measured_with_the_steps(synthetic: Manifest) -> None:
    setting = Setting(network="simplenet", cache="host", batch_size=2, device="cpu")

    assert 0 < bench_steps.steady(synthetic, setting, 0.01).save_seconds < 60


@pytest.mark.parametrize(
    ("name", "bfloat16", "float32"),
    [
        ("NVIDIA H200", 989e12, 494.5e12),
        ("NVIDIA H200 NVL", 835e12, 417.5e12),
        ("NVIDIA A100-SXM4-80GB", 312e12, 156e12),
        ("NVIDIA A10G", 70e12, 35e12),
    ],
)
def test_the_peak_in_float32_is_that_of_tf32(name: str, bfloat16: float, float32: float) -> None:
    assert (peak_flops(name, torch.bfloat16), peak_flops(name, torch.float32)) == (bfloat16, float32)


def test_a_device_that_is_not_listed_has_no_peak() -> None:
    assert peak_flops("CPU", torch.float32) is None


def test_on_a_gpu_a_row_has_work_memory_and_the_verdict() -> None:
    setting = Setting(network="resnet18", cache="device", batch_size=64)

    row = bench._row(setting, STEADY, FirstStep(seconds=12, loading=2), 64_000)

    assert row.split() == "resnet18 64 exact device 10,000 0.10% 229.0 23% 2.5 6.9 bar: ok, stretch: short".split()


def test_a_first_step_that_fails_says_why(synthetic: Manifest) -> None:
    with pytest.raises(SplitbrainError, match=r"the first step of nonet failed:(.|\n)*network 'nonet'"):
        bench_steps.first_step(synthetic, Setting(network="nonet", cache="host", batch_size=64, device="cpu"))


# --------------------------------------------------------------------------------------------------------- the shards


def test_synthetic_shards_are_sound_and_read_as_any_others(synthetic: Manifest) -> None:
    reader = SplitReader(synthetic, "train", ("image", "target_single", "target_dual", "label"))
    label = reader.read("label")

    assert reader.damage() == []
    assert label.tolist() == [i % 10 for i in range(20)]
    assert reader.read("image").std() == pytest.approx(73.9, rel=0.01)
    reader.close()


def test_full_synthetic_shards_hold_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sbtrain.bench.synthetic.IMAGES_PER_SHARD", 64)

    manifest = write_synthetic(tmp_path / "lab", {"unlabeled": 150}, image_size=16)

    shards = manifest.splits["unlabeled"].shards
    assert [shard.count for shard in shards] == [64, 64, 22]
    assert shards[0].xxh3_128 == shards[1].xxh3_128
    reader = SplitReader(manifest, "unlabeled", ("image",))
    image = reader.read("image")
    assert np.array_equal(image[:64], image[64:128])
    reader.close()


# ---------------------------------------------------------------------------------------------------------- the peers


@pytest.mark.parametrize("peer", [peer for peer in bench_peers.PEERS if not peer.lacking()], ids=lambda peer: peer.name)
def test_a_peer_gives_batches_again_and_again(peer: bench_peers.Peer, synthetic: Manifest, tmp_path: Path) -> None:
    batches = peer.make(synthetic, "unlabeled", tmp_path)

    sizes = [next(batches) for _ in range(5)]

    assert all(0 < size <= 64 for size in sizes)
    assert sum(sizes) > 70
    batches.close()  # type: ignore[attr-defined]


def test_a_peer_that_is_broken_is_named_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brokenpeer.py").write_text("raise RuntimeError('operator nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    peer = bench_peers.Peer("broken", {"brokenpeer": "broken-peer"}, bench_peers.report_batches)

    assert peer.lacking() == ["broken-peer cannot be imported (operator nms does not exist)"]


def test_the_report_s_loader_reads_lab_and_bins(synthetic: Manifest, tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    pil.fromarray(np.full((96, 96, 3), 255, np.uint8)).save(tmp_path / "white.png")

    x, single, dual = bench_peers.ReportImages([tmp_path / "white.png"])[0]

    assert (x.shape, x.dtype, single.shape, dual.shape) == ((3, 96, 96), torch.float32, (12, 12), (12, 12))
    assert x[0].min().item() == pytest.approx(1.0, abs=1e-3)
    assert single[5, 5].item() == 99


def test_streaming_is_imported_beside_a_torchvision_that_cannot_be_which_stays_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "streaming.py").write_text("from torchvision.datasets import VisionDataset\nBASE = VisionDataset\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] in ("streaming", "torchvision")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchvision", None)

    streaming = bench_peers.imported_streaming()
    monkeypatch.delitem(sys.modules, "streaming")

    assert streaming.BASE is object
    assert [name for name in sys.modules if name.startswith("torchvision")] == ["torchvision"]
    assert sys.modules["torchvision"] is None
