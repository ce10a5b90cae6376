"""The head of a page names what is on it and what is wrong first; what says nothing of the runs is folded or not named."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from reports import report, write_json
from sbtrain.report.compare import published_section
from sbtrain.report.document import Fold, Gallery, Table, Text
from sbtrain.report.few_shots import few_shot_section
from sbtrain.report.headlines import highlights_of, title_of
from sbtrain.report.provenance import provenance_section
from sbtrain.report.published import published_tables
from sbtrain.report.runs import Run, read_run
from sbtrain.report.training import training_section

COLLAPSED = {"kind": "std", "text": "collapse: embeddings are nearly one point"}
NOT_FINITE = {"kind": "nan", "text": "not finite, so not applied: 3 of the steps since the last line"}


def made(folder: Path, method: str = "simsiam", name: str = "ours", **results: Any) -> Run:
    """Write a run of three lines and its results, by the beginnings of their names, and read it."""
    config = {"method": method, "network": "resnet18"}
    write_json(folder / "config.json", {"config": config, "data": {"colorspace": "rgb", "digest": "0"}})
    logged(folder, [], [], [])
    for kind, content in results.items():
        write_json(folder / "results" / f"{kind}-x.json", content)
    write_json(folder / "results" / "pretrain.json", {"device": "CPU"})
    return read_run(folder, name)


def logged(folder: Path, *alarms: list[dict[str, str]]) -> None:
    lines = [{"step": 8 * (i + 1), "loss": -0.5, "alarms": each} for i, each in enumerate(alarms)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def finetuned(*values: tuple[int, float], images: int = 12, digest: str = "1", **config: Any) -> dict[str, Any]:
    """Return a result of fine-tuning on ten classes: (labels a class, top-1)."""
    fields = {"split": "train", "eval_split": "test", "freeze": True, "seed": 0, **config}
    data = {"train": {"images": 640, "digest": "0"}, fields["eval_split"]: {"images": 12, "digest": digest}}
    fits = [
        {"samples": k, "draw": 0, "images": 10 * k, "steps": 2, "top1": top1, "top5": 1.0, "seconds": 1.0}
        for k, top1 in values
    ]
    return {"config": fields, "data": data, "classes": 10, "eval_images": images, "fits": fits}


def probed(scratch: bool = False, linear: float = 0.405, neighbors: float = 0.2) -> dict[str, Any]:
    layers = [{"layer": "layer2", "features": 8, "top1": {"mean": linear, "ci95": 0.01}, "top5": None}]
    near = [{"layer": "layer2", "k": 200, "temperature": 0.1, "top1": neighbors}]
    return {"classes": 10, "config": {"from_scratch": scratch}, "results": layers, "neighbors": near}


def warnings(run: Run, *more: Run) -> list[str]:
    return [block.text for block in published_section([run, *more]).blocks if isinstance(block, Text) and block.warning]


# ------------------------------------------------------------------------------------------------------------- title


@pytest.mark.parametrize(
    ("methods", "title"),
    [
        (("split_brain", "denoising"), "Split-brain pretraining: what was measured"),
        (("simsiam",), "SimSiam pretraining: what was measured"),
        (("self_classifier", "simsiam"), "SimSiam and Self-Classifier pretraining: what was measured"),
        (
            ("self_classifier", "simsiam", "split_brain"),
            "Split-brain, SimSiam and Self-Classifier pretraining: what was measured",
        ),
        (("of_tomorrow",), "Pretraining: what was measured"),
    ],
)
def test_a_page_is_called_by_the_methods_on_it(methods: tuple[str, ...], title: str, tmp_path: Path) -> None:
    assert title_of([made(tmp_path / method, method) for method in methods]) == title


# ---------------------------------------------------------------------------------------------------------- headlines


def test_the_best_number_is_that_of_any_evaluation_and_says_which(tmp_path: Path) -> None:
    run = made(
        tmp_path,
        **{"finetune": finetuned((2, 0.1775)), "probe": probed(), "probe-scratch": probed(True, 0.25)},
    )

    best, control, *_ = highlights_of([run])

    assert (best.label, best.value, best.note) == (
        "best top-1", "40.50 ± 1.00 %", "linear probe of layer2, 10 classes; ours",
    )  # fmt: skip
    assert (control.label, control.value) == ("the same from scratch", "25.00 ± 1.00 %")


def test_the_best_number_may_be_of_nearest_neighbors_or_of_fine_tuning(tmp_path: Path) -> None:
    near = made(tmp_path / "near", probe=probed(neighbors=0.5), finetune=finetuned((2, 0.3)))
    tuned = made(tmp_path / "tuned", probe=probed(), finetune=finetuned((2, 0.3), (0, 0.75)))

    notes = [highlights_of([run])[0].note for run in (near, tuned)]

    assert notes == [
        "nearest neighbors of layer2, k = 200, t = 0.1, 10 classes; ours",
        "classifier on all labels (last layer, frozen), 10 classes; ours",
    ]


def test_clusters_have_a_number_of_their_own(tmp_path: Path) -> None:
    scores = {"acc": {"mean": 0.6, "ci95": None}, "nmi": {"mean": 0.9, "ci95": None}}
    clusters = {"config": {"method": "classifier"}, "classes": 10, "scores": scores}
    best, *_ = highlights_of([made(tmp_path, "self_classifier", cluster=clusters)])

    assert (best.label, best.value) == ("best clusters, ACC", "60.00 %")
    assert best.note == "its own classes, matched with 10 classes; ours"


def test_a_damaged_probe_costs_no_other_headline(tmp_path: Path) -> None:
    run = made(tmp_path, probe={"results": [1]}, cluster={"scores": 3}, finetune=finetuned((2, 0.5)))

    assert highlights_of([run])[0].value == "50.00 %"


# --------------------------------------------------------------------------------------------------------- a collapse


@pytest.mark.parametrize(
    ("alarms", "said"),
    [
        (([], [COLLAPSED], [COLLAPSED]), "collapsed: embeddings are nearly one point, since step 16"),
        (([COLLAPSED], [], []), "collapsed: embeddings are nearly one point, since step 8"),  # not over yet
        (([COLLAPSED], *[[]] * 5), ""),
        (([], [], [NOT_FINITE]), ""),
        (([], [], []), ""),
    ],
)
def test_a_run_is_collapsed_whose_alarm_is_on_at_its_end(alarms: Any, said: str, tmp_path: Path) -> None:
    made(tmp_path)
    logged(tmp_path, *alarms)

    assert read_run(tmp_path, "ours").series.collapsed == said


def test_a_collapse_is_the_first_thing_to_know_and_stands_at_every_row_of_the_run(tmp_path: Path) -> None:
    made(tmp_path / "torn")
    (tmp_path / "torn" / "metrics.jsonl").write_text('{"step": 8, "loss": 1.0}\n{"step"')
    made(tmp_path / "worse", finetune=finetuned((2, 0.5)))
    logged(tmp_path / "worse", [COLLAPSED], [COLLAPSED])

    _, page, said = report(tmp_path / "torn", tmp_path / "worse", out=tmp_path / "page.html")

    first = "worse: collapsed: embeddings are nearly one point, since step 8"
    assert said[0] == first
    assert len(said) > 1
    assert re.findall(r"<aside.*?<li>(.*?)</li>", page, re.DOTALL)[0] == first
    run = read_run(tmp_path / "worse", "worse")
    (runs,) = (block for block in provenance_section([run]).blocks if isinstance(block, Table))
    assert (runs.rows[0][-1].text, runs.rows[0][-1].note) == ("finished", "collapsed")
    tables = [block for block in published_section([run]).blocks if isinstance(block, Table)]
    assert tables[0].rows[0][1].note == "last layer, frozen; one draw; collapsed"


# ------------------------------------------------------------------------------------------ what the numbers are of


def test_results_on_parts_of_one_split_are_not_called_other_data_sets(tmp_path: Path) -> None:
    one = made(tmp_path / "a", name="a", finetune=finetuned((2, 0.5), images=12))
    other = made(tmp_path / "b", name="b", finetune=finetuned((2, 0.5), images=8, eval_limit=8))

    assert warnings(one) == []
    assert warnings(one, other) == [
        "Results are of different images of the same data set (--eval-limit): 12 of test (a); 8 of test (b). Compare numbers "
        "within a row only."
    ]


def test_results_on_other_splits_say_so(tmp_path: Path) -> None:
    one = made(tmp_path / "a", name="a", finetune=finetuned((2, 0.5)))
    other = made(tmp_path / "b", name="b", finetune=finetuned((2, 0.5), eval_split="val"))

    assert "(--eval-split): 12 of test (a); 12 of val (b)." in warnings(one, other)[0]


def test_other_data_sets_are_said_with_what_differs(tmp_path: Path) -> None:
    one = made(tmp_path / "a", name="a", finetune=finetuned((2, 0.5)))
    more = {**finetuned((2, 0.5), digest="2"), "classes": 1000}
    other = made(tmp_path / "b", name="b", finetune=more)

    assert warnings(one, other) == [
        "The runs were judged on different data sets (10 or 1,000 classes; other images of test): compare numbers within a "
        "row only."
    ]


# --------------------------------------------------------------------------------------------- published numbers


def test_published_tables_without_a_run_are_one_fold_below_ours(tmp_path: Path) -> None:
    blocks = published_section([made(tmp_path, finetune=finetuned((2, 0.5)))]).blocks

    shown = [block.caption for block in blocks if isinstance(block, Table)]
    assert shown == ["SimSiam report, CIFAR-10", "SimSiam report, STL-10"]
    assert isinstance(blocks[-1], Fold)
    assert [isinstance(block, Fold) for block in blocks].count(True) == 1
    assert blocks[-1].summary == "Published numbers without a run here"
    folded = [block.caption.partition(".")[0] for block in blocks[-1].blocks if isinstance(block, Table)]
    assert folded == ["SimSiam report, CelebA, val", "SimSiam report, CelebA, test", "Other reference points"]


def test_our_lines_stand_above_the_published_ones_without_a_run(tmp_path: Path) -> None:
    result = finetuned((0, 0.5), freeze=False)
    run = made(tmp_path, finetune=result)

    stl = next(
        block for block in published_section([run]).blocks if isinstance(block, Table) and "STL" in block.caption
    )

    assert [row[1].text for row in stl.rows] == ["ours", *["no run"] * 11]
    assert stl.rows[0][0].text == "ResNet-18, STL-10, 100 epochs"


def test_heads_are_named_as_the_report_names_them_and_explained() -> None:
    tables = [table for table in published_tables() if any("hidden" in row.keys for row in table.rows)]

    assert len(tables) == 2
    for table in tables:
        assert "“1 HL” is one linear layer and no hidden one" in table.source
        assert all(f"{row.keys['hidden']} HL" in row.name for row in table.rows)


@pytest.mark.parametrize(("method", "dotted"), [("simsiam", False), ("split_brain", True)])
def test_the_published_curve_is_drawn_beside_split_brain_alone(method: str, dotted: bool, tmp_path: Path) -> None:
    blocks = few_shot_section([made(tmp_path, method, finetune=finetuned((2, 0.5), (4, 0.6)))]).blocks

    text = next(block.text for block in blocks if isinstance(block, Text))
    gallery = next(block for block in blocks if isinstance(block, Gallery))
    assert ("Dotted: the published ResNet18" in text) == dotted
    assert ("published from" in gallery.pictures[0].alt) == dotted


# ---------------------------------------------------------------------------------------------- sections and pictures


def test_only_sections_with_something_in_them_are_listed(tmp_path: Path) -> None:
    made(tmp_path / "run")

    _, page, _ = report(tmp_path / "run", out=tmp_path / "page.html")

    listed = re.findall(r'<li><a href="#([\w-]+)"', page)
    assert listed == ["training", "speed", "provenance", "published"]
    assert "No run has been probed" in html.unescape(page)


def test_values_of_different_units_have_pictures_of_their_own(tmp_path: Path) -> None:
    made(tmp_path)
    values = {"feature_std": 0.9, "embedding_std": 0.8, "alignment": 0.7, "overlap": 0.2, "embedding_rank": 40.0}
    line = {"step": 8, "loss": -0.5, **values, "classes_used": 7.0, "knn_top1": 0.5, "else": 3.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")

    gallery = next(b for b in training_section([read_run(tmp_path, "ours")]).blocks if isinstance(b, Gallery))

    assert [re.findall(r"(\w+) ends", picture.alt) for picture in gallery.pictures] == [
        ["loss"],
        ["knn_top1"],
        ["feature_std", "embedding_std", "alignment", "overlap"],
        ["embedding_rank"],
        ["classes_used"],
        ["else"],
    ]
    assert "signs of a collapse, 0 to 1" in gallery.pictures[2].caption
