"""Where a run stands among the published tables, and which numbers of a file can be shown."""

from pathlib import Path
from typing import Any

import pytest

from reports import write_json
from sbtrain.evaluation.few_shot import Interval
from sbtrain.report.beside import interval_of
from sbtrain.report.compare import published_section
from sbtrain.report.document import Table
from sbtrain.report.reproduced import reproduced_sections
from sbtrain.report.runs import read_run

CIFAR, STL, CELEBA = (f"SimSiam report, {name}" for name in ("CIFAR-10", "STL-10", "CelebA"))
FIT = {"samples": 0, "draw": 0, "steps": 2, "top1": 0.5, "top5": 1.0, "seconds": 1.0}
SCORES = {"config": {"eval_split": "test"}, "results": [{"jaccard_macro": {"mean": 0.5, "ci95": None}}]}


def accuracy(train: int, images: int, **config: Any) -> dict[str, Any]:
    """Return a result of fine-tuning on ten classes."""
    fields = {"split": "train", "eval_split": "test", "samples_per_class": ["all"], "seed": 0, **config}
    data = {"train": {"images": train, "digest": "0"}, "test": {"images": images, "digest": "1"}}
    return {"config": fields, "data": data, "classes": 10, "eval_images": images, "fits": [{**FIT, "images": train}]}


def run_of(folder: Path, preset: str | None = None, method: str = "simsiam", **results: Any) -> Path:
    """Write a run and its results, by the beginnings of their names; a text is written as it is."""
    config = {"method": method, "network": {"simsiam": "resnet18"}.get(method, "simplenet")}
    write_json(folder / "config.json", {"preset": preset, "config": config, "data": {"colorspace": "rgb"}})
    for name, content in results.items():
        path = write_json(folder / "results" / f"{name}-x.json", content)
        if isinstance(content, str):
            path.write_text(content)
    return folder


def lines(folder: Path) -> dict[str, list[list[str]]]:
    """Return the lines of a run in each published table that has some: the cells that are not empty."""
    tables = [each for each in published_section([read_run(folder, "ours")]).blocks if isinstance(each, Table)]
    found = {
        each.caption.partition(", val")[0].partition(", test")[0]: [[cell.text for cell in row] for row in each.rows]
        for each in tables
    }
    return {name: mine for name, rows in found.items() if (mine := [row for row in rows if "ours" in row])}


# ------------------------------------------------------------------------------------------------ tables of one method


@pytest.mark.parametrize(
    ("preset", "table"),
    [
        ("report/simsiam-cifar10-resnet18", CIFAR),
        ("report/simsiam-noise-resnet18", CIFAR),
        ("modern/simsiam-cifar10", CIFAR),
        ("report/simsiam-stl10-resnet18", STL),
        ("report/simsiam-celeba-resnet18", CELEBA),
    ],
)
@pytest.mark.parametrize("results", [{}, {"finetune": accuracy(24, 12)}, {"attributes": SCORES}])
def test_a_run_stands_in_the_table_of_its_preset_alone(
    preset: str, table: str, results: dict[str, Any], tmp_path: Path
) -> None:
    assert list(lines(run_of(tmp_path, preset, **results))) == [table]


@pytest.mark.parametrize(
    ("results", "tables"),
    [
        ({}, [CIFAR, STL, CELEBA]),
        ({"finetune": accuracy(24, 12)}, [CIFAR, STL]),
        ({"finetune": accuracy(24, 12, from_scratch=True)}, [CIFAR, STL]),
        ({"finetune": accuracy(50_000, 10_000)}, [CIFAR]),  # judged on its test images, after learning from others
        ({"finetune": accuracy(40_000, 10_000)}, [CIFAR]),
        ({"attributes": SCORES}, [CELEBA]),
        ({"attributes": "{"}, [CELEBA]),
        ({"finetune": "{"}, [CIFAR, STL]),
        ({"finetune": accuracy(5000, 8000), "attributes": SCORES}, [STL, CELEBA]),
    ],
)
@pytest.mark.parametrize("preset", [None, "simsiam-stl10.toml"])
def test_a_run_of_no_such_preset_stands_where_its_results_are_of(
    preset: str | None, results: dict[str, Any], tables: list[str], tmp_path: Path
) -> None:
    assert list(lines(run_of(tmp_path, preset, **results))) == tables


def test_scores_of_attributes_are_shown_and_nothing_is_called_missing_elsewhere(tmp_path: Path) -> None:
    (line,) = lines(run_of(tmp_path, attributes=SCORES))[CELEBA]

    assert line[:2] == ["ResNet-18, CelebA", "ours"]
    assert "50.00" in line
    assert "not fine-tuned" not in line


def test_a_result_on_another_tables_images_is_said_where_the_run_stands(tmp_path: Path) -> None:
    found = lines(run_of(tmp_path, "report/simsiam-stl10-resnet18", finetune=accuracy(40_000, 10_000)))

    assert found == {STL: [["ResNet-18, STL-10, 100 epochs", "ours", "–", "fine-tuned on other images", "70.23", "–"]]}


def test_a_preset_of_another_method_says_nothing(tmp_path: Path) -> None:
    found = lines(run_of(tmp_path, "report/simsiam-stl10-resnet18", "split_brain"))

    assert list(found) == ["Split-brain report, Table 1"]


def test_a_method_without_a_table_of_attributes_is_still_listed(tmp_path: Path) -> None:
    ((*_, line),) = lines(run_of(tmp_path, method="split_brain", attributes=SCORES)).values()

    assert "not fine-tuned" in line


# -------------------------------------------------------------------------------------------------- numbers that can be


@pytest.mark.parametrize(
    ("value", "metric", "shown"),
    [
        ({"mean": 0.5, "ci95": 0.25}, "top1", Interval(0.5, 0.25)),
        (0.5, "top1", Interval(0.5, None)),
        (1, "top1", Interval(1.0, None)),
        ({"mean": -0.0009, "ci95": None}, "ami", Interval(-0.0009, None)),
        ({"mean": -0.0009, "ci95": None}, "ari", Interval(-0.0009, None)),
        ({"mean": 1.0000000000000004, "ci95": None}, "nmi", Interval(1.0000000000000004, None)),
        ({"mean": 0.5, "ci95": -0.25}, "top1", Interval(0.5, None)),
        ({"mean": 0.5, "ci95": float("inf")}, "top1", Interval(0.5, None)),
        ({"mean": -0.0009, "ci95": None}, "top1", None),
        ({"mean": -0.0009, "ci95": None}, "nmi", None),
        ({"mean": -1.5, "ci95": None}, "ami", None),
        ({"mean": 1.5, "ci95": None}, "ari", None),
        ({"mean": float("nan")}, "ami", None),
        ({"mean": "0.5"}, "top1", None),
        ({"mean": True}, "top1", None),
        ([0.5], "top1", None),
        (None, "top1", None),
    ],
)
def test_a_number_is_shown_where_it_can_be(value: Any, metric: str, shown: Interval | None) -> None:
    assert interval_of(value, metric) == shown


def test_clusters_worse_than_chance_have_their_scores_in_a_reproduction(tmp_path: Path) -> None:
    keys = ("ami", "ari", "nmi")
    scores = {key: {"mean": -0.0125, "ci95": None} for key in keys}
    evaluation = {"name": "clusters", **scores, "interval_over": "none: one fit", "results": [{"state": "done"}]}
    measures = [{"name": key, "key": key, "evaluation": "clusters", "published": 0.5} for key in keys]
    row = {"name": "row", "source": "self-classifier", "evaluations": [evaluation], "measures": measures}
    record = {"scale": "tiny", "about": "a trial", "tables": {"self-classifier": {"about": "", "rows": [row]}}}
    write_json(tmp_path / "reproduce.json", record)

    (section,) = reproduced_sections([tmp_path])

    (table,) = (block for block in section.blocks if isinstance(block, Table))
    ours = [[row[1].text, row[2].text, row[4].text] for row in table.rows]
    assert ours == [["ami", "−1.25", "−51.25"], ["ari", "−1.25", "−51.25"], ["nmi", "damaged: see notes", "–"]]
