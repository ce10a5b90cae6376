"""The import rule of docs/architecture.md: sbprep -> sbformat <- sbtrain, and one door to each heavy library."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"sbformat": ROOT / "preprocess", "sbprep": ROOT / "preprocess", "sbtrain": ROOT / "train"}
FORBIDDEN = {"sbformat": {"sbprep", "sbtrain"}, "sbprep": {"sbtrain"}, "sbtrain": {"sbprep"}}
#: Heavy library -> modules that may import it. bench measures the peers, so it looks through every door.
DOORS = {
    "numba": {"sbprep._kernels"},
    "cv2": {"sbprep.decode", "sbprep.bench"},
    "simplejpeg": {"sbprep.decode", "sbprep.bench"},
    "joblib": {"sbprep.pipeline", "sbprep.engines"},
    "dask": {"sbprep.dask_backend"},
    "distributed": {"sbprep.dask_backend"},
    "ray": {"sbprep.ray_backend"},
    "h5py": {"sbprep.writer", "sbprep.sources.hdf5", "sbprep.software", "sbprep.bench"},
    "PIL": {"sbprep.bench", "sbprep.published"},
    "skimage": {"sbprep.bench", "sbprep.published"},
    "torch": set(),
}
LEAN = ("numba", "cv2", "simplejpeg", "joblib", "sbprep")
#: What the trainer can do without until a command asks for it, and the one module that asks.
TRAINER_DOORS = {
    "h5py": {"sbtrain.evaluation.feature_file", "sbtrain.bench.peers", "sbtrain.bench.synthetic"},
    "jinja2": {"sbtrain.report.page"},
    "matplotlib": {"sbtrain.pictures.figures"},
    "onnx": {"sbtrain.export.formats"},
    "onnxruntime": {"sbtrain.export.formats"},
    "scipy": {"sbtrain.evaluation.scores"},
    "sklearn": {"sbtrain.evaluation.scores"},
    "timm": {"sbtrain.networks.backbones"},
    "torchvision": {"sbtrain.bench.augment", "sbtrain.bench.peers"},
}


@cache
def modules() -> dict[str, ast.Module]:
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted((folder / package).rglob("*.py")):
            name = ".".join(path.relative_to(folder).with_suffix("").parts)
            found[name] = ast.parse(path.read_text())
    return found


def imports(tree: ast.Module) -> set[str]:
    """Top-level names of everything imported anywhere in a module, by statement or by importlib.import_module("x")."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            names |= {arg.value.split(".")[0] for arg in node.args if isinstance(arg, ast.Constant)}
    return names


def violations(module: str, tree: ast.Module) -> set[str]:
    package = module.split(".")[0]
    doors = {name for name, allowed in DOORS.items() if module not in allowed and package != "sbtrain"}
    if package == "sbtrain":
        doors = {*LEAN, *(name for name, allowed in TRAINER_DOORS.items() if module not in allowed)}
    return imports(tree) & (FORBIDDEN[package] | doors)


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_what_its_place_allows(module: str) -> None:
    assert violations(module, modules()[module]) == set()


def test_the_rule_finds_a_forbidden_import() -> None:
    tree = ast.parse("def late():\n    from sbprep.convert import convert\n    importlib.import_module('cv2')")

    assert violations("sbtrain.data", tree) == {"sbprep", "cv2"}
    assert violations("sbformat.shard", tree) == {"sbprep", "cv2"}


def test_the_rule_finds_a_library_beside_its_door() -> None:
    tree = ast.parse("import sklearn.metrics")

    assert violations("sbtrain.evaluation.probe", tree) == {"sklearn"}
    assert violations("sbtrain.evaluation.scores", tree) == set()


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    output = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{ROOT / 'preprocess'}:{ROOT / 'train'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(output.stdout.split())


def test_importing_the_trainer_loads_no_preparation_library() -> None:
    assert loaded_by("import sbtrain.cli") & set(LEAN) == set()


def test_the_check_of_loaded_libraries_can_fail() -> None:
    assert loaded_by("import sbtrain.cli, sbprep.decode") >= {"cv2", "sbprep"}
