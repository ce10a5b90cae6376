"""Small labeled shards to fine-tune on, and fine-tunings of a run on them."""

from pathlib import Path
from typing import Any

from builds import small_config, write_images
from runs import CPU
from sbformat.schema import TargetSpec
from sbprep.pipeline import build
from sbtrain.evaluation.finetune import finetune
from sbtrain.evaluation.finetune_config import FinetuneConfig
from sbtrain.evaluation.finetune_result import ResultFile
from sbtrain.evaluation.pretrained import open_pretrained

#: Few and short fits.
SMALL: dict[str, Any] = {"samples_per_class": (1, 2), "draws": 2, "epochs": 1, "min_steps": 2}


def labeled_shards(out: Path, train: int = 24, val: int = 12, **options: Any) -> Path:
    """Images of three classes, as many of each: by default 64 x 64 with targets of 4 x 4, in three color spaces."""
    source = out.with_name(f"{out.name}-images")
    write_images(source, train)
    write_images(source, val, "val")
    settings: dict[str, Any] = {"image_size": 64, "target": TargetSpec(size=4)}
    build(small_config(source, out, "rgb", "lab", "rescaled_lab", **(settings | options)))
    return out


def results(run_dir: Path, shards: Path, said: list[str] | None = None, **fields: Any) -> ResultFile:
    """Fine-tune as `SMALL` says, or otherwise."""
    config = FinetuneConfig(**(SMALL | fields))
    say = (said if said is not None else []).append
    return finetune(open_pretrained(run_dir, shards, "train", say), config, CPU, say)


def numbers(result: ResultFile) -> list[dict[str, Any]]:
    """Every fit without what depends on the clock."""
    return [{name: value for name, value in fit.items() if name != "seconds"} for fit in result.to_json()["fits"]]
