"""Run folders to report on: real ones, and what other commands leave in them."""

import base64
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sbtrain.pictures.figures import as_png
from sbtrain.report import Built, build_report


def report(*runs: Path, out: Path) -> tuple[Built, str, list[str]]:
    """Return what was built, the page's text, and what was said."""
    said: list[str] = []
    built = build_report(runs, out, said.append)
    return built, built.page.read_text(), said


def write_json(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def add_features(run_dir: Path, images: int = 40, width: int = 6, name: str = "val-conv4", **changes: Any) -> Path:
    """Write features of three classes as ``sbtrain features`` does."""
    generator = np.random.default_rng(0)
    labels = np.arange(images) % 3
    path = run_dir / "features" / f"{name}.h5"
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        features = np.eye(3, width)[labels] * 9 + generator.normal(size=(images, width))
        file["features"] = changes.get("features", features.astype(np.float32))
        file["label"] = labels.astype(np.int32)
        file.attrs["label_names"] = json.dumps(["cat", "dog", "eel"])
    return path


def add_probe(run_dir: Path, **changes: Any) -> Path:
    """Write a probe's result."""
    near = [{"layer": "conv1", "k": k, "temperature": 0.1, "top1": 0.25} for k in (1, 200)]
    layers = [
        {"layer": name, "features": 9600, "top1": {"mean": mean, "ci95": 0.01}, "top5": {"mean": 0.9, "ci95": None}}
        for name, mean in (("conv1", 0.25), ("conv2", 0.375))
    ]
    data = {"classes": 3, "eval_images": 12, "config": {}, "results": layers, "neighbors": near}
    return write_json(run_dir / "results" / "probe-x.json", {**data, **changes})


def add_pictures(run_dir: Path) -> Path:
    """Write a reconstruction's result and its picture."""
    folder = run_dir / "results" / "reconstruct"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "grid.png").write_bytes(as_png(np.full((6, 9, 3), 90, np.uint8)))
    figure = {"file": "grid.png", "caption": "first images of val", "columns": ["original", "arg-max"], "rows": ["0"]}
    scores = {"images": 12, "delta_e": {"mean": 21.5, "ci95": 0.5}}
    return write_json(run_dir / "results" / "reconstruct-val.json", {"figures": [figure], "scores": scores})


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def encoded(path: Path) -> str:
    """Return a PNG as a page has it."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
