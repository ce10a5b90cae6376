"""What the README says is there is there, and what it shows to type works."""

import re
from pathlib import Path

import pytest

from builds import small_build
from sbtrain.cli import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TREE = README[README.index("## The tree") : README.index("## Documentation")]


def files_of_the_tree() -> list[str]:
    folder, found = "", []
    for line in TREE.splitlines():
        if match := re.match(r"      (sbformat|sbprep|sbtrain)/ ", line):
            folder = {"sbtrain": "train/"}.get(match[1], "preprocess/") + match[1] + "/"
        elif line.startswith("        ") and folder:
            found += [folder + name for name in re.findall(r"\b[a-z_]\w*\.py\b", line)]
            found += [folder + name for name in re.findall(r"\b[a-z_]+/", line.split("  ")[4])]
    return found


def test_every_file_of_the_tree_exists() -> None:
    assert [name for name in files_of_the_tree() if not (ROOT / name).exists()] == []


def test_the_tree_leaves_no_module_out() -> None:
    told = {Path(name).name for name in files_of_the_tree()}
    modules = [
        path
        for package in ("preprocess/sbformat", "preprocess/sbprep", "train/sbtrain")
        for path in (ROOT / package).glob("*.py")
    ]

    assert [path.name for path in modules if path.name not in told and not path.name.startswith("__")] == []


def test_the_example_in_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_build(None, tmp_path / "data_cache", "rescaled_lab", limit=20, image_size=96, images_per_shard=64)
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

    names: dict[str, object] = {}
    exec(example, names)

    assert names["batch"].shape == (3, 3, 96, 96)  # type: ignore[attr-defined]


def test_every_command_shown_exists() -> None:
    shown = set(re.findall(r"^    sbtrain (\w+)", README, re.MULTILINE))

    assert shown <= set(COMMANDS)


def test_no_command_of_the_trainer_is_left_out() -> None:
    told = set(re.findall(r"(?:^    |`)sbtrain (\w+)", README, re.MULTILINE))

    assert set(COMMANDS) - told == set()
