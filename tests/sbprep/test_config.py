"""Options of a build: what is refused, what is resolved, and which of them decide the bytes."""

import os
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

from sbformat.errors import ConfigError
from sbformat.schema import TargetSpec
from sbprep.config import BuildConfig, partition_from_text, worker_count


def config(**options: Any) -> BuildConfig:
    return BuildConfig(**({"colorspaces": ("lab",)} | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colorspaces": ()}, "no color space given, expected one or more of rgb, lab, rescaled_lab"),
        ({"colorspaces": ("lab", "rgb", "lab")}, "color space given twice: lab, rgb, lab"),
        ({"colorspaces": ("hsv",)}, "color space 'hsv', expected one of rgb, lab, rescaled_lab"),
        ({"image_size": 7}, "image size 7, expected 8 to 1,024 pixels"),
        ({"image_size": 1025}, "image size 1025, expected 8 to 1,024 pixels"),
        ({"image_size": 8, "target": TargetSpec(size=9)}, "target size 9 exceeds the image size 8"),
        ({"images_per_shard": 0}, "images per shard 0, expected 1 to 1,048,576 images"),
        ({"images_per_shard": (1 << 20) + 1}, "images per shard 1048577, expected 1 to 1,048,576 images"),
        ({"limit": 0}, "limit 0, expected 1 to"),
        ({"workers": 0}, "0 workers, expected a count from 1, or -1 for one a core"),
        ({"workers": -2}, "-2 workers, expected a count from 1, or -1 for one a core"),
        ({"resize": "stretch"}, "resize 'stretch', expected one of crop, squash"),
        ({"backend": "spark"}, "backend 'spark', expected one of loky, threading, dask, ray"),
        ({"backend": "dask"}, "scheduler not given: backend dask needs its address, for example --scheduler tcp://"),
        ({"backend": "dask", "scheduler": "login1"}, "scheduler login1: backend dask needs its address"),
        ({"scheduler": "tcp://login1:8786"}, "scheduler tcp://login1:8786 with backend loky, expected backend dask or"),
        ({"compression": "gzip"}, "compression 'gzip', expected one of none, zstd"),
        (
            {"images_per_shard": 1 << 20, "target": TargetSpec(size=64)},
            "4,294,967,296 bytes of targets, a chunk of HDF5",
        ),
        ({"partition": (0, 3)}, r"partition 0/3, expected 1/3 to 3/3 \(in a Slurm array: --array=1-3; .*PARTS=N\)"),
        ({"partition": (4, 3)}, "partition 4/3, expected 1/3 to 3/3"),
        ({"partition": (1, 0)}, "partition 1/0, expected 1/1 to 1/1"),
        ({"partition": (1, 3), "overwrite": True}, "would discard the shards of the other partitions"),
        ({"on_error": "ignore"}, "on-error 'ignore', expected skip, fail or limit=N"),
        ({"on_error": "limit=-1"}, "on-error 'limit=-1', expected skip, fail or limit=N"),
        ({"colorspaces": ("rgb",), "target": TargetSpec(bins="zhang")}, "Use --colorspace lab"),
    ],
)
def test_what_cannot_work_is_refused_with_what_would(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**options)


@pytest.mark.parametrize("text", ["", "1", "1/", "/3", "a/b", "1/3/5", "-1/3", "1.5/3", "1/3 "])
def test_a_partition_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected i/n, for example 1/3"):
        partition_from_text(text)


def test_a_partition_is_two_numbers() -> None:
    assert partition_from_text("2/16") == (2, 16)


@pytest.mark.parametrize(("on_error", "limit"), [("skip", None), ("fail", 0), ("limit=0", 0), ("limit=25", 25)])
def test_on_error_says_how_many_rejects_a_build_may_have(on_error: str, limit: int | None) -> None:
    assert config(on_error=on_error).reject_limit == limit


def test_minus_one_worker_means_one_for_each_core_that_the_process_may_use() -> None:
    assert worker_count(-1) == config().worker_count == len(os.sched_getaffinity(0))
    assert worker_count(3) == config(workers=3).worker_count == 3


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 64},
        {"resize": "squash"},
        {"target": TargetSpec(size=16)},
        {"target": TargetSpec(single=50)},
        {"target": TargetSpec(rescale="all")},
        {"images_per_shard": 64},
        {"compression": "zstd"},
        {"seed": 1},
        {"limit": 10},
        {"dataset": "folder"},
    ],
)
def test_an_option_that_decides_the_bytes_is_in_the_recipe(change: dict[str, Any]) -> None:
    assert config(**change).recipe() != config().recipe()


@pytest.mark.parametrize(
    "change",
    [
        {"workers": 7},
        {"backend": "threading"},
        {"backend": "dask", "scheduler": "tcp://login1:8786"},
        {"out": Path("elsewhere")},
        {"partition": (1, 3)},
        {"on_error": "fail"},
        {"overwrite": True},
        {"colorspaces": ("rgb", "lab")},
    ],
)
def test_an_option_that_does_not_decide_the_bytes_is_not_in_the_recipe(change: dict[str, Any]) -> None:
    assert config(**change).recipe() == config().recipe()


def test_a_configuration_cannot_be_changed_and_a_changed_copy_is_checked() -> None:
    with pytest.raises(FrozenInstanceError):
        config().seed = 1  # type: ignore[misc]
    with pytest.raises(ConfigError, match="image size 4"):
        replace(config(), image_size=4)
