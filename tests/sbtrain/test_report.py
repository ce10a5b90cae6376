"""The report page says what was measured, beside what is published, and what is missing where its number would stand."""

import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from labeled_sets import labeled_shards, results
from reports import add_features, add_pictures, add_probe, edit, encoded, report, write_json
from sbtrain.cli import main
from sbtrain.report.published import published_table, published_tables
from sbtrain.run_folder import code_digest


@pytest.fixture(scope="module")
def whole_run(undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with everything that a report can show. Not to be changed."""
    run_dir = shutil.copytree(undisturbed, tmp_path_factory.mktemp("whole") / "run")
    shards = labeled_shards(tmp_path_factory.mktemp("few") / "shards") / "lab"
    for scratch in (False, True):
        results(run_dir, shards, freeze=True, from_scratch=scratch)
    add_features(run_dir)
    add_probe(run_dir)
    add_pictures(run_dir)
    return run_dir


@pytest.fixture
def full(whole_run: Path, tmp_path: Path) -> Path:
    """Return a copy of it that the test may change."""
    return shutil.copytree(whole_run, tmp_path / "full")


@pytest.fixture
def lean(full: Path) -> Path:
    """Return the same without its maps and layers, which take the longest to draw."""
    shutil.rmtree(full / "features")
    (full / "results" / "probe-x.json").unlink()
    return full


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["report", *arguments])


def finetuned(run_dir: Path, scratch: bool = False) -> Path:
    return next(p for p in sorted((run_dir / "results").glob("finetune-*")) if ("scratch" in p.name) == scratch)


def section(page: str, anchor: str) -> str:
    """Return the text of one section, its tags left out."""
    part = page[page.index(f'aria-labelledby="{anchor}"') :]
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", part[: part.index("</section>")])))


# ------------------------------------------------------------------------------------------------ published numbers


def test_published_numbers_are_those_of_the_reports() -> None:
    rows = {(row.name, row.keys["colorspace"]): row.values for row in published_table("split-brain-1").rows}
    curve = [row.values["top1"] for row in published_table("split-brain-2").rows]

    assert rows["ResNet18", "rescaled_lab"] == {"top1": 0.1404, "top5": 0.3015}
    assert rows["Autoencoder", "rgb"] == {"top1": 0.0653, "top5": 0.1815}
    assert len(rows) == 10
    assert curve == [0.0065, 0.0112, 0.0199, 0.0366, 0.0656, 0.1012, 0.1450]


@pytest.mark.parametrize("table", published_tables(), ids=lambda table: table.id)
def test_every_published_number_is_a_share_with_a_source(table: object) -> None:
    assert table.source  # type: ignore[attr-defined]
    assert all(row.values and all(0 < v < 1 for v in row.values.values()) for row in table.rows)  # type: ignore[attr-defined]


def test_our_number_stands_beside_the_published_one_of_its_kind(full: Path, tmp_path: Path) -> None:
    shot = json.loads(finetuned(full).read_text())["results"][-1]["top1"]

    _, page, _ = report(full, out=tmp_path / "page.html")

    text = section(page, "published")
    ours, half = 100 * shot["mean"], 100 * shot["ci95"]
    difference = f"{ours - 10.93:+.2f} ± {half:.2f}".replace("-", "−")
    assert (
        f"SimpleNet Lab full last layer, frozen; 2 draws 2 {ours:.2f} ± {half:.2f} 10.93 {difference} other data, other protocol"
        in text
    )


def test_other_data_is_said(full: Path, tmp_path: Path) -> None:
    _, page, _ = report(full, out=tmp_path / "page.html")

    assert "Other data: these results are of 3 classes, 24 labeled images, 12 reported" in section(page, "published")


def test_the_published_data_set_is_compared_without_that_word(full: Path, tmp_path: Path) -> None:
    for path in (finetuned(full), finetuned(full, scratch=True)):
        data = json.loads(path.read_text())["data"]
        data["train"]["images"] = 64000
        edit(path, classes=1000, eval_images=64000, data=data)

    _, page, _ = report(full, out=tmp_path / "page.html")

    assert "other data" not in section(page, "published")


# ------------------------------------------------------------------------------------------------------ what it shows


def test_a_gain_is_by_draw_and_has_its_control(full: Path, tmp_path: Path) -> None:
    fits = [json.loads(finetuned(full, scratch).read_text())["fits"] for scratch in (False, True)]
    gains = [100 * (a["top1"] - b["top1"]) for a, b in zip(*fits, strict=True) if a["samples"] == 2]

    _, page, _ = report(full, out=tmp_path / "page.html")

    assert f"{np.mean(gains):+.2f} ±".replace("-", "−") in section(page, "few-shot")


def test_everything_there_is_has_its_picture(full: Path, tmp_path: Path) -> None:
    _, page, said = report(full, out=tmp_path / "page.html")

    assert said == []
    assert page.count("<svg") == 7  # few-shot, layers, confusion, two maps, loss, throughput
    assert encoded(full / "results" / "reconstruct" / "grid.png") in page
    assert "color error (ΔE 1976) 21.5 ± 0.5" in section(page, "reconstructions")
    assert "conv2 9,600 37.50 ± 1.00 90.00 29.3" in section(page, "layers")


def test_config_seed_and_digests_are_told(full: Path, tmp_path: Path) -> None:
    record = json.loads((full / "config.json").read_text())

    _, page, _ = report(full, out=tmp_path / "page.html")

    assert len(record["code"]) == len(code_digest())  # its value is another while somebody edits a module
    for digest in (record["data"]["digest"], record["code"]):
        assert digest[:12] in section(page, "provenance")
        assert digest in page


def test_the_markdown_has_the_same_tables(full: Path, tmp_path: Path) -> None:
    built, page, _ = report(full, out=tmp_path / "page.html")

    text = built.text.read_text()
    assert built.text == tmp_path / "page.md"
    assert len(re.findall(r"^\|[ :|-]+\|$", text, re.MULTILINE)) == page.count("<table>")
    assert "## Beside the published numbers" in text


def test_the_page_loads_nothing(full: Path, tmp_path: Path) -> None:
    _, page, _ = report(full, out=tmp_path / "page.html")

    sources = re.findall(r'(?:src|href|srcset|action|data)="([^"]*)"', page)
    assert {source.split(":")[0] for source in sources if not source.startswith("#")} == {"data"}
    assert "<script" not in page
    assert "@import" not in page
    assert set(re.findall(r"url\(([^)]?)", page)) <= {"#"}


def test_every_table_and_picture_can_be_read_aloud(full: Path, tmp_path: Path) -> None:
    _, page, _ = report(full, out=tmp_path / "page.html")

    assert page.count("<table>") == page.count("<caption>") > 5
    assert all('scope="' in head for head in re.findall(r"<th[ >][^>]*", page))
    assert all("aria-label=" in head for head in re.findall(r"<svg[^>]*", page))
    assert all('alt="' in head for head in re.findall(r"<img[^>]*", page))
    assert 'class="skip" href="#content"' in page


def test_names_in_pictures_are_each_ones_own(full: Path, tmp_path: Path) -> None:
    _, page, _ = report(full, out=tmp_path / "page.html")

    names = re.findall(r' id="([^"]+)"', page)
    assert len(names) == len(set(names))


def test_text_from_files_is_only_text(full: Path, tmp_path: Path) -> None:
    path = finetuned(full)
    evil = ["<script>alert(1)</script>", "a|b $x^$", "\"><img src=x onerror='1'>"]
    edit(path, confusion={**json.loads(path.read_text())["confusion"], "classes": evil})
    edit(full / "results" / "reconstruct-val.json", scores={evil[0]: 1.0})

    built, page, _ = report(full, out=tmp_path / "page.html")

    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in built.text.read_text()


def test_a_second_report_takes_its_maps_from_the_first(full: Path, tmp_path: Path) -> None:
    report(full, out=tmp_path / "page.html")
    kept = full / "results" / "map-val-conv4.json"
    before = kept.stat().st_mtime_ns

    report(full, out=tmp_path / "again.html")

    assert kept.stat().st_mtime_ns == before
    assert (tmp_path / "page.html").read_text() == (tmp_path / "again.html").read_text()


def test_features_that_changed_get_a_new_map(full: Path, tmp_path: Path) -> None:
    report(full, out=tmp_path / "page.html")
    before = json.loads((full / "results" / "map-val-conv4.json").read_text())
    add_features(full, images=50)

    report(full, out=tmp_path / "page.html")

    after = json.loads((full / "results" / "map-val-conv4.json").read_text())
    assert (before["images"], after["images"]) == (40, 50)


def test_a_folder_of_runs_is_all_of_them(full: Path, undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, tmp_path / "more" / "a")
    shutil.copytree(undisturbed, tmp_path / "more" / "b")

    built, _, _ = report(tmp_path / "more", full, full, out=tmp_path / "page.html")

    assert built.runs == 3


# --------------------------------------------------------------------------------------------- missing and damaged


def test_an_unfinished_run_is_shown_as_far_as_it_is(own_run: Path, tmp_path: Path) -> None:
    shutil.rmtree(own_run / "results")

    _, page, said = report(own_run, out=tmp_path / "page.html")

    assert said == ["run: pretraining is not finished at step 12: what follows from its weights is of that step"]
    assert said[0] in page
    assert "run – not fine-tuned 10.93" in section(page, "published")
    assert "there is no few-shot curve" in section(page, "few-shot")
    assert "No run has been probed" in section(page, "layers")


def test_a_page_without_anything_to_compare_begins_with_what_there_is(
    own_run: Path, lean: Path, tmp_path: Path
) -> None:
    shutil.rmtree(own_run / "results")

    _, unfinished, _ = report(own_run, out=tmp_path / "page.html")
    _, compared, _ = report(lean, own_run, out=tmp_path / "page.html")

    assert re.findall(r'labelledby="(\w+)', unfinished)[:4] == ["training", "speed", "provenance", "published"]
    assert re.findall(r'labelledby="(\w+)', compared)[0] == "published"


def test_a_curve_of_one_point_is_a_dot_and_says_so(own_run: Path, tmp_path: Path) -> None:
    shutil.rmtree(own_run / "results")
    first = (own_run / "metrics.jsonl").read_text().splitlines()[0]
    _, curves, _ = report(own_run, out=tmp_path / "page.html")
    (own_run / "metrics.jsonl").write_text(f"{first}\n")

    _, dots, _ = report(own_run, out=tmp_path / "page.html")

    assert f"run: loss; one point, step {json.loads(first)['step']}" in section(dots, "training")
    assert "one point" not in section(curves, "training")


@pytest.mark.parametrize("name", ["report/simsiam-noise-resnet18", "report/simsiam-cifar10-resnet18"])
def test_a_run_on_noise_stands_at_the_published_line_of_random_images(name: str, lean: Path, tmp_path: Path) -> None:
    edit_config(lean, method="simsiam", network="resnet18-report")
    edit(lean / "config.json", preset=name)

    _, page, _ = report(lean, out=tmp_path / "page.html")

    text = section(page, "published")
    lines = {line: line in text for line in ("pretrained on CIFAR-10 full", "pretrained on random images full")}
    assert list(lines.values()) == ["noise" not in name, "noise" in name]
    assert "ResNet-18, STL-10, 100 epochs no run" in text


def test_a_damaged_result_is_said_where_its_confusion_would_stand(lean: Path, tmp_path: Path) -> None:
    path = finetuned(lean)
    path.write_text("{")

    _, page, _ = report(lean, out=tmp_path / "page.html")

    said = f"full: {path.name} is damaged: see notes. Move it away: the same sbtrain finetune command makes it again."
    assert said in section(page, "confusion")
    assert "none has been fine-tuned" not in section(page, "confusion")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "metrics.jsonl is empty: no step was logged"),
        ('{"step": 2, "loss": 3.5}\n{"step": 4, "lo', "the last line of metrics.jsonl is torn: left out"),
        ('{"step": 2, "loss": 3.5}\nrubbish\n', "line 2 of metrics.jsonl is damaged: left out"),
        ('{"step": 2, "loss": NaN}\n{"step": 4, "loss": 3.5}\n', "the loss is not a number at step 2"),
        (
            '{"step": 2, "loss": null}\n{"step": 4, "loss": null}\n',
            "the loss is not a number in 2 lines from step 2 on",
        ),
        ('[1]\n{"step": "two"}\n{"step": 3, "loss": "low", "speed": 7}\n', "line 1 of metrics.jsonl is damaged"),
        (None, "metrics.jsonl is missing: no curve, no speed"),
    ],
)
def test_what_is_wrong_with_the_metrics_is_said(content: str | None, told: str, lean: Path, tmp_path: Path) -> None:
    path = lean / "metrics.jsonl"
    path.unlink() if content is None else path.write_text(content)

    _, page, said = report(lean, out=tmp_path / "page.html")

    assert any(told in sentence for sentence in said)
    assert told in page


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("finetune", '{"fits": [{"samples": 1}]}'),
        ("finetune", '{"fits": 3}'),
        ("probe", '{"results": [1]}'),
        ("probe", '{"results": {"layer": 3}, "neighbors": 4}'),
        ("reconstruct", '{"figures": 3, "scores": [2]}'),
        ("pretrain", "[1, 2]"),
        ("config", "\x00\x01"),
        ("config", '{"config": 3, "data": [], "versions": 2}'),
    ],
)
def test_a_damaged_file_costs_its_own_numbers_only(name: str, content: str, full: Path, tmp_path: Path) -> None:
    paths = [full / "config.json"] if name == "config" else list((full / "results").glob(f"{name}*.json"))
    for path in paths:
        path.write_text(content)

    _, page, _ = report(full, out=tmp_path / "page.html")

    assert page.count("<section") == 9


def test_a_damaged_result_is_named(lean: Path, tmp_path: Path) -> None:
    path = finetuned(lean)
    path.write_text(path.read_text()[:-40])

    _, page, said = report(lean, out=tmp_path / "page.html")

    assert said == [f"full: results/{path.name} is damaged (no JSON): its accuracies are left out"]
    assert said[0] in page


def test_an_accuracy_that_is_no_share_is_not_shown(lean: Path, tmp_path: Path) -> None:
    path = finetuned(lean)
    fits = json.loads(path.read_text())["fits"]
    edit(path, fits=[{**fits[0], "top1": float("nan")}])

    _, _, said = report(lean, out=tmp_path / "page.html")

    assert any("is damaged (an accuracy of nan" in sentence for sentence in said)


def test_a_class_with_one_image_is_said(lean: Path, tmp_path: Path) -> None:
    path = finetuned(lean)
    edit(path, confusion={**json.loads(path.read_text())["confusion"], "counts": [[1, 0, 0], [0, 6, 0], [2, 0, 3]]})

    _, page, _ = report(lean, out=tmp_path / "page.html")

    assert "so a class's share says little: cat (1)." in section(page, "confusion")


@pytest.mark.parametrize("counts", [[[1]], "none", [[1, 2, 3], [4, 5], [6]], [[1, 0, 0], [0, -1, 0], [0, 0, 1]]])
def test_a_confusion_that_cannot_be_is_not_shown(counts: object, lean: Path, tmp_path: Path) -> None:
    path = finetuned(lean)
    edit(path, confusion={**json.loads(path.read_text())["confusion"], "counts": counts})

    _, page, _ = report(lean, out=tmp_path / "page.html")

    assert "is damaged" in section(page, "confusion")


def test_one_draw_has_no_interval(lean: Path, tmp_path: Path) -> None:
    path = finetuned(lean)
    edit(path, fits=[fit for fit in json.loads(path.read_text())["fits"] if fit["draw"] == 0])

    _, page, _ = report(lean, out=tmp_path / "page.html")

    assert "A row of one draw has no interval." in section(page, "few-shot")


@pytest.mark.parametrize(
    ("features", "told"),
    [
        (np.zeros((2, 6), np.float32), "expected 3 or more"),
        (np.full((40, 6), np.nan, np.float32), "the features are not finite numbers"),
        (np.zeros((5, 6), np.float32), "t-SNE of 5 images, expected 8 or more"),
        (np.zeros(40, np.float32), "no file of features"),
    ],
)
def test_features_without_a_map_are_said(features: np.ndarray, told: str, full: Path, tmp_path: Path) -> None:
    add_features(full, images=len(features), features=features)

    _, page, _ = report(full, out=tmp_path / "page.html")

    assert told in section(page, "map")


def test_constant_features_have_a_map(full: Path, tmp_path: Path) -> None:
    add_features(full, features=np.ones((40, 1), np.float32))

    _, page, _ = report(full, out=tmp_path / "page.html")

    assert "principal components" in section(page, "map")


@pytest.mark.parametrize("name", ["../../../secret.png", "/etc/hostname", "missing.png", "notes.txt"])
def test_only_pictures_of_the_run_itself_are_taken_in(name: str, lean: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes((lean / "results" / "reconstruct" / "grid.png").read_bytes())
    (lean / "results" / "reconstruct" / "notes.txt").write_text("no picture")
    edit(lean / "results" / "reconstruct-val.json", figures=[{"file": name, "caption": "c"}])

    _, page, _ = report(lean, out=tmp_path / "page.html")

    assert "<img" not in page
    assert "not shown" in section(page, "reconstructions")


def test_runs_of_different_images_are_said(lean: Path, own_run: Path, tmp_path: Path) -> None:
    data = json.loads((own_run / "config.json").read_text())["data"]
    edit(own_run / "config.json", data={**data, "digest": "0" * 32})

    _, page, _ = report(lean, own_run, out=tmp_path / "page.html")

    digest = json.loads((lean / "config.json").read_text())["data"]["digest"][:8]
    said = f"Pretrained on different images of lab: full on images {digest}; run on images 00000000."
    assert said in section(page, "published")


def test_alarms_are_listed_and_drawn(lean: Path, tmp_path: Path) -> None:
    lines = [{"step": 2, "loss": 3.5, "knn_top1": 0.25}, {"step": 4, "loss": 9.5, "alarms": ["loss rose <b>fast</b>"]}]
    (lean / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    _, page, _ = report(lean, out=tmp_path / "page.html")

    assert "full loss rose <b>fast</b> 4" in section(page, "training")
    assert "knn_top1 ends at 25; 1 alarms" in page


def test_what_a_reproduction_has_not_run_is_said(lean: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(lean, out / "there")
    write_json(out / "reproduce.json", {"cells": [{"run_dir": "there"}, {"run_dir": "to-come"}]})

    _, page, said = report(out, out=tmp_path / "page.html")

    assert "not run yet: to-come" in said
    assert "not run yet: to-come" in page


def test_a_reproductions_tables_are_shown_with_what_failed(lean: Path, tmp_path: Path) -> None:
    done = {
        "name": "frozen",
        "top1": {"mean": 0.15, "ci95": 0.01},
        "interval_over": "2 pretraining runs",
        "results": [],
    }
    failed = {"name": "end to end", "results": [{"state": "failed", "message": "no shards of <rgb>"}]}
    row = {"name": "SimpleNet, Lab", "samples_per_class": 64, "published": {"top1": 0.1093, "top5": 0.2558}}
    table = {"about": "Table 1", "rows": [{**row, "evaluations": [done, failed]}]}
    write_json(
        tmp_path / "reproduce.json",
        {"scale": "tiny", "about": "a trial", "classes": 1000, "tables": {"table1": table}, "cells": []},
    )

    _, page, _ = report(lean, out=tmp_path / "page.html")

    text = section(page, "reproduced")
    assert "SimpleNet, Lab frozen 64 15.00 ± 1.00 10.93 +4.07 ± 1.00 " in text
    assert "SimpleNet, Lab end to end 64 no shards of <rgb> 10.93" in text
    assert "2 pretraining runs" in text


@pytest.mark.parametrize("content", ["{", "[]", '{"tables": 3}', '{"tables": {"t": {"rows": [{}]}}, "cells": 4}'])
def test_a_damaged_reproduction_is_said(content: str, lean: Path, tmp_path: Path) -> None:
    (tmp_path / "reproduce.json").write_text(content)

    _, page, _ = report(lean, out=tmp_path / "page.html")

    assert "reproduce.json is damaged" in section(page, "reproduced")


# ------------------------------------------------------------------------------------------------------ command line


def test_the_example_of_the_help_works(lean: Path, tmp_path: Path) -> None:
    example = re.search(r"Example:\n +sbtrain report ([^\n]+)\n\Z", invoke("-h").output)
    assert example is not None
    arguments = example[1].replace("runs/NAME", str(lean)).replace("report.html", str(tmp_path / "sub" / "report.html"))

    result = invoke(*arguments.split())

    assert result.exit_code == 0, result.output
    assert (tmp_path / "sub" / "report.html").exists()
    assert re.search(r"1 run, [1-9]\d* [kM]B, ", result.stdout)


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_nothing_to_show_is_an_error_that_says_why(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("no folder")

    result = invoke(str(path), "--out", str(tmp_path / "page.html"))

    assert result.exit_code == 1
    assert f"{path}: {'no run in it' if kind == 'empty' else 'no such folder'}" in result.output
    assert not (tmp_path / "page.html").exists()


def test_one_missing_run_of_two_is_said_and_the_other_shown(lean: Path, tmp_path: Path) -> None:
    result = invoke(str(lean), str(tmp_path / "gone"), "--out", str(tmp_path / "page.html"))

    assert result.exit_code == 0
    assert f"{tmp_path / 'gone'}: no such folder" in (tmp_path / "page.html").read_text()


def test_a_place_that_cannot_be_written_is_named(lean: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    result = invoke(str(lean), "--out", str(tmp_path / "file" / "page.html"))

    assert result.exit_code == 1
    assert "page.html: cannot be written" in result.output


# ------------------------------------------------------------------------------------------- clusters and attributes


def score(mean: float) -> dict[str, float]:
    return {"mean": mean, "ci95": 0.01}


def test_clusters_stand_beside_the_published_ones_of_their_head(lean: Path, tmp_path: Path) -> None:
    edit_config(lean, method="self_classifier", network="resnet18", head="1hl", epochs=100)
    scores = {name: score(0.5) for name in ("nmi", "ami", "ari", "acc")}
    config = {"method": "classifier", "split": "test"}
    data = {"config": config, "classes": 10, "eval_images": 10000, "scores": scores}
    write_json(lean / "results" / "cluster-test-classifier-x.json", data)
    control = {**data, "config": {**config, "from_scratch": True}, "scores": {"nmi": score(0.01)}}
    write_json(lean / "results" / "cluster-test-classifier-scratch-x.json", control)

    _, page, _ = report(lean, out=tmp_path / "page.html")

    text = section(page, "published")
    ours = "full its own classes, test 50.00 ± 1.00 61.11 −11.11 ± 1.00 50.00 ± 1.00 61.04"
    assert f"ResNet-18, 1 HL, 100 epochs {ours}" in text
    assert "ResNet-18, 2 HL, 100 epochs no run" in text
    assert "−11.11 ± 1.00 other data" not in text
    assert "1.00 ± 1.00" not in text


def test_attributes_of_val_and_test_stand_beside_the_published_ones(lean: Path, tmp_path: Path) -> None:
    edit_config(lean, method="simsiam", network="resnet18")
    for split, mean in (("val", 0.25), ("test", 0.75)):
        data = {"config": {"eval_split": split}, "results": [{"jaccard_macro": score(mean), "auc_macro": None}]}
        write_json(lean / "results" / f"attributes-backbone-{split}.json", data)

    _, page, _ = report(lean, out=tmp_path / "page.html")

    text = section(page, "published")
    assert "ResNet-18, CelebA full 25.00 ± 1.00 54.49 −29.49 ± 1.00" in text
    assert "not measured 93.40 – " in text
    assert "75.00 ± 1.00 54.05 +20.95 ± 1.00" in text


@pytest.mark.parametrize("content", ["{", "[]", '{"scores": 3}', '{"config": 1, "results": [[]]}', '{"results": "x"}'])
def test_damaged_scores_are_left_out(content: str, lean: Path, tmp_path: Path) -> None:
    edit_config(lean, method="self_classifier", network="resnet18")
    for name in ("cluster-x.json", "attributes-x.json"):
        (lean / "results" / name).write_text(content)

    _, page, _ = report(lean, out=tmp_path / "page.html")

    whole = content.startswith('{"')
    assert ("not measured" if whole else "damaged: see notes") in section(page, "published")


def edit_config(run_dir: Path, **changes: object) -> None:
    path = run_dir / "config.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "config": {**record["config"], **changes}}))


# ------------------------------------------------------------------------------------------- what must not be claimed


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "x.md", "report"])
def test_a_page_replaces_nothing_but_pages(name: str, lean: Path) -> None:
    before = (lean / name).read_bytes() if (lean / name).exists() else None

    result = invoke(str(lean), "--out", str(lean / name))

    assert result.exit_code == 2
    assert f"Use one that ends in .html: --out {Path(name).stem}.html" in " ".join(result.output.split())
    assert ((lean / name).read_bytes() if (lean / name).exists() else None) == before


def fits_of(path: Path, *values: tuple[int, float], **config: object) -> None:
    """Write fits (labels a class, top-1) into a result of fine-tuning, their draws counted."""
    data = json.loads(path.read_text())
    fits = []
    for samples, top1 in values:
        draw = sum(fit["samples"] == samples for fit in fits)
        images = 640 if samples == 0 else 10 * samples
        fits.append({**data["fits"][0], "samples": samples, "draw": draw, "images": images, "top1": top1, "top5": 1.0})
    edit(path, fits=fits, classes=10, config={**data["config"], **config})


def test_identical_fits_are_one_without_an_interval(lean: Path, tmp_path: Path) -> None:
    fits_of(finetuned(lean), *[(0, 0.25)] * 3, head="ridge")
    fits_of(finetuned(lean, scratch=True), (0, 0.2), (0, 0.1), head="ridge")

    _, page, _ = report(lean, out=tmp_path / "page.html")

    assert "frozen, ridge; one fit all 25.00 10.93" in section(page, "published")
    assert "all one fit 25.00 15.00 ± 63.53 +10.00 ± 63.53 100.00" in section(page, "few-shot")
    assert "± 0.00" not in section(page, "few-shot")


def test_table_1_is_compared_at_its_own_number_of_labels(lean: Path, tmp_path: Path) -> None:
    fits_of(finetuned(lean), (32, 0.3), (64, 0.4), (0, 0.5))
    data = json.loads(finetuned(lean).read_text())
    edit(
        finetuned(lean),
        fits=[{**fit, "images": 5000 if fit["samples"] == 0 else fit["images"]} for fit in data["fits"]],
    )

    _, page, _ = report(lean, out=tmp_path / "page.html")

    assert "one draw 64 40.00 10.93" in section(page, "published")


def test_all_labels_that_are_64_a_class_keep_the_published_tick(lean: Path, tmp_path: Path) -> None:
    fits_of(finetuned(lean), (16, 0.3), (0, 0.5))
    data = json.loads(finetuned(lean).read_text())["data"]
    edit(finetuned(lean), data={**data, "train": {**data["train"], "images": 640}})
    finetuned(lean, scratch=True).unlink()

    _, page, _ = report(lean, out=tmp_path / "page.html")

    assert "to 50.0 % at 64 = all; published from" in page.replace(" labels a class", "")
    assert "one draw all 50.00 10.93" in section(page, "published")


@pytest.mark.parametrize("content", ["", '{"fits": [{"samples": 1'])
def test_a_damaged_result_is_said_where_its_number_would_stand(content: str, lean: Path, tmp_path: Path) -> None:
    path = finetuned(lean)
    path.write_text(content)

    _, page, _ = report(lean, out=tmp_path / "page.html")

    text = section(page, "published")
    assert f"full {path.name} – damaged: see notes 10.93" in text
    assert "not fine-tuned" not in text
    assert "Results of fine-tuning are damaged: see notes" in section(page, "few-shot")


def test_a_fit_that_cannot_be_does_not_cost_the_others(lean: Path, tmp_path: Path) -> None:
    fits_of(finetuned(lean), (2, 0.5), (2, float("nan")), (2, 0.25))

    _, page, said = report(lean, out=tmp_path / "page.html")

    assert "2 draws 2 37.50 ± 158.83" in section(page, "published")
    assert any("1 of 3 fits cannot be (an accuracy of nan, 1.0): left out" in sentence for sentence in said)
    assert "best top-1" not in page  # its interval is wider than it is high


def test_results_from_scratch_stand_at_the_lines_without_pretraining(lean: Path, tmp_path: Path) -> None:
    edit_config(lean, method="simsiam", network="resnet18")
    fits_of(finetuned(lean, scratch=True), (0, 0.5), freeze=False)

    _, page, _ = report(lean, out=tmp_path / "page.html")

    text = section(page, "published")
    assert (
        "no pretraining full last layer, end to end; one draw all 50.00 75.68 −25.68 other data not measured 75.23"
        in text
    )
    assert "pretrained on random images no run" in text
    assert "RUC" not in text  # a clustering, of another method


def judged_on(result: Path, split: str, train: int, images: int) -> Path:
    """Make a result one of ten classes, on so many images of train, of so many of `split`."""
    data = json.loads(result.read_text())
    counts = {"train": {**data["data"]["train"], "images": train}, split: {**data["data"]["val"], "images": images}}
    edit(
        result,
        config={**data["config"], "freeze": False, "eval_split": split, "samples_per_class": ["all"]},
        data=counts,
    )
    edit(result, classes=10, eval_images=images, fits=[{**data["fits"][0], "samples": 0, "images": train, "top1": 0.5}])
    return result


def test_val_and_test_stand_in_columns_of_their_own(lean: Path, tmp_path: Path) -> None:
    edit_config(lean, method="simsiam", network="resnet18")
    judged_on(finetuned(lean), "val", 40_000, 10_000)

    _, page, _ = report(lean, out=tmp_path / "page.html")

    text = section(page, "published")
    assert (
        "pretrained on CIFAR-10 full last layer, end to end; one draw all 50.00 88.59 −38.59 not measured 88.89 –"
        in text
    )


def test_a_result_on_one_published_data_set_does_not_stand_in_the_table_of_another(lean: Path, tmp_path: Path) -> None:
    edit_config(lean, method="simsiam", network="resnet18")
    judged_on(finetuned(lean), "test", 5000, 8000)
    finetuned(lean, scratch=True).unlink()

    _, page, _ = report(lean, out=tmp_path / "page.html")

    text = section(page, "published")
    assert "ResNet-18, STL-10, 100 epochs full last layer, end to end; one draw all 50.00 70.23 −20.23" in text
    assert "pretrained on CIFAR-10 no run" in text


def test_a_run_of_given_weights_stands_at_the_line_of_imagenets_labels(lean: Path, tmp_path: Path) -> None:
    edit_config(lean, method="simsiam", network="resnet18", weights="resnet18.pth", epochs=0)
    judged_on(finetuned(lean), "test", 5000, 8000)

    _, page, _ = report(lean, out=tmp_path / "page.html")

    text = section(page, "published")
    assert "ResNet-18, ImageNet labels full last layer, end to end; one draw all 50.00 89.82 −39.82" in text
    assert "ResNet-18, STL-10, 100 epochs no run" in text


def test_a_number_of_an_unfinished_run_says_so(lean: Path, tmp_path: Path) -> None:
    (lean / "results" / "pretrain.json").unlink()

    _, page, _ = report(lean, out=tmp_path / "page.html")

    assert "full last layer, frozen; 2 draws; pretraining is not finished 2 " in section(page, "published")


def test_a_curve_with_a_gap_says_where(lean: Path, tmp_path: Path) -> None:
    (lean / "metrics.jsonl").write_text(
        '{"step": 2, "loss": NaN}\n{"step": 4, "loss": 3.5}\n{"step": 6, "loss": 3.0}\n'
    )

    _, page, _ = report(lean, out=tmp_path / "page.html")

    assert "full: loss; the loss is not a number at step 2: the curve has a gap there" in section(page, "training")


def test_runs_judged_on_as_many_but_other_images_are_said(lean: Path, tmp_path: Path) -> None:
    other = shutil.copytree(lean, tmp_path / "other")
    remark = "The runs were judged on different data sets (other images of val): compare numbers within a row only."
    _, page, _ = report(lean, other, out=tmp_path / "same.html")
    assert remark not in section(page, "published")
    for path in (finetuned(other), finetuned(other, scratch=True)):
        data = json.loads(path.read_text())["data"]
        edit(path, data={**data, "val": {**data["val"], "digest": "0" * 32}})

    _, page, _ = report(lean, other, out=tmp_path / "page.html")

    assert remark in section(page, "published")


def test_messages_of_a_reproduction_are_whole_and_its_tiny_numbers_no_headline(lean: Path, tmp_path: Path) -> None:
    message = "a" * 90 + ": damaged. Move it away: its fits are made again"
    failed = {"name": "frozen", "results": [{"state": "failed", "message": message}]}
    lost = {"name": "end to end", "results": [{"state": "done"}]}
    row = {"name": "SimpleNet", "samples_per_class": 64, "published": {"top1": 0.1}, "evaluations": [failed, lost]}
    record = {"scale": "tiny", "about": "a trial", "tables": {"table1": {"about": "Table 1", "rows": [row]}}}
    write_json(tmp_path / "reproduce.json", record)

    built, page, _ = report(lean, out=tmp_path / "page.html")

    assert section(page, "reproduced").count(message) == 1
    assert "damaged: see notes" in section(page, "reproduced")
    assert "best top-1" not in page
    assert ".:" not in built.text.read_text()
    assert re.search(r"^\| -+ \| -+:", built.text.read_text(), re.MULTILINE)


def test_a_reproduction_is_of_the_published_data_where_images_and_classes_are(lean: Path, tmp_path: Path) -> None:
    judged = {"classes": 1000, "train_images": 64000, "eval_images": 64000, "frozen": False}
    done = {"top1": {"mean": 0.15, "ci95": None}, "interval_over": "none: one fit", "results": []}
    kinds = {"same": judged, "part": {**judged, "part": True}, "ridge": {**judged, "frozen": True}}
    evaluations = [{"name": name, **done, "judged": each} for name, each in kinds.items()]
    row = {"name": "row", "samples_per_class": 64, "published": {"top1": 0.1}, "evaluations": evaluations}
    record = {"scale": "full", "about": "all", "tables": {"table1": {"about": "Table 1", "rows": [row]}}}
    write_json(tmp_path / "reproduce.json", record)

    _, page, _ = report(lean, out=tmp_path / "page.html")

    text = section(page, "reproduced")
    assert "row same 64 15.00 10.00 +5.00 not run – none: one fit" in text
    assert "row part 64 15.00 10.00 +5.00 other data not run –" in text
    assert "row ridge 64 15.00 10.00 +5.00 other protocol not run –" in text


def test_a_probe_and_its_control_share_a_picture(full: Path, tmp_path: Path) -> None:
    data = json.loads((full / "results" / "probe-x.json").read_text())
    write_json(full / "results" / "probe-x-scratch.json", {**data, "config": {"from_scratch": True}})
    edit(full / "results" / "probe-x.json", config={"from_scratch": False})

    _, page, _ = report(full, out=tmp_path / "page.html")

    part = page[page.index('aria-labelledby="layers"') :]
    assert part[: part.index("</section>")].count("<svg") == 1
    assert "conv1 25.0 %, conv2 37.5 %; from scratch conv1 25.0 %, conv2 37.5 %" in page
