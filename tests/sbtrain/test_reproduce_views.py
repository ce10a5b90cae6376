"""The tables of SimSiam and Self-Classifier: every published line has a run, and very small ones are made for real."""

import json
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from builds import environment, rows, small_config, write_images
from labeled_sets import labeled_shards
from sbformat.manifest import Manifest
from sbformat.schema import TargetSpec
from sbprep.pipeline import build
from sbtrain.cli import main
from sbtrain.networks.backbones import build_backbone
from sbtrain.presets import load_preset
from sbtrain.report.published import published_table
from sbtrain.report.runs import find_runs
from sbtrain.reproduce import plan as reproduce_plan
from sbtrain.reproduce import view_scales as reproduce_view_scales
from sbtrain.reproduce import views as reproduce_views
from sbtrain.reproduce.cells import Setting, Table
from sbtrain.reproduce.data import DATASETS, choose
from sbtrain.reproduce.plan import cells_of, tables_of
from sbtrain.reproduce.scales import SCALES, scale_of
from sbtrain.reproduce.sets import MissingShards, Sets
from sbtrain.reproduce.view_scales import TINY
from sbtrain.runtime import EXIT_REQUEUE

PUBLISHED = {"self-classifier": ["self-classifier"], "simsiam": ["simsiam-cifar10", "simsiam-stl10", "simsiam-celeba"]}


def table(name: str, scale: str = "full", **changes: Any) -> Table:
    setting = Setting(scale=scale_of(scale), split="unlabeled", eval_split="val", target=TargetSpec())
    (found,) = tables_of(name, replace(setting, **changes))
    return found


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("scale", SCALES)
def test_every_published_line_has_a_row_and_a_run_unless_it_begins_with_imagenet(name: str, scale: str) -> None:
    lines = [line for source in PUBLISHED[name] for line in published_table(source).rows]
    rows = table(name, scale).rows

    assert [row.published for row in rows] == [line.values for line in lines]
    assert [bool(row.cells) for row in rows] == [line.keys.get("start") != "imagenet" for line in lines]
    assert all(row.note for row in rows if not row.cells)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_number_is_measured_at_full_scale(name: str) -> None:
    for row in table(name).rows:
        named = {measure.published for measure in row.measures}
        assert {*row.published.values()} <= named
        if row.cells:
            assert {measure.evaluation for measure in row.measures} == {each for each, _ in row.cells[0].evaluations}


def test_linear_evaluation_stands_beside_the_reports_and_its_repositorys() -> None:
    rows = table("self-classifier").rows
    linear = [next(m.published for m in row.measures if m.name == "linear top-1") for row in rows]

    assert linear == [0.8789, 0.8838, None, None]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_full_scale_pretrains_exactly_the_reports_presets(name: str) -> None:
    cells = cells_of([table(name)])

    assert len(cells) == {"self-classifier": 4, "simsiam": 8}[name]
    for cell in cells:
        assert cell.preset == f"report/{cell.name.removesuffix('-seed0')}"
        assert cell.config == load_preset(cell.preset).config


def test_seeds_are_runs_of_their_own() -> None:
    cells = table("self-classifier", seeds=2).rows[0].cells

    assert [cell.config.seed for cell in cells] == [0, 1]
    assert [{config.seed for _, config in cell.evaluations} for cell in cells] == [{0}, {1}]


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images of three classes to learn from, 12 to report. Not to be changed."""
    return labeled_shards(tmp_path_factory.mktemp("views") / "shards", image_size=32)


def test_a_labeled_color_set_stands_in_where_that_is_allowed(labeled: Path) -> None:
    sets = [Manifest.read(labeled / name) for name in ("lab", "rgb")]

    assert choose(sets, "cifar10", True, "train", 0) is sets[1]
    assert choose(sets, "cifar10", False, "train", 0) is None
    assert choose(sets, "stl10", True, "unlabeled", 0) is None
    assert choose(sets, "celeba", True, "train", 0) is None
    assert choose(sets, "noise", True, "train", 0) is None


def test_a_set_is_known_by_its_classes_and_the_one_of_the_reports_size_is_taken(labeled: Path) -> None:
    other = Manifest.read(labeled / "rgb")
    cifar = replace(
        other, label_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    )
    many = {**cifar.splits, "train": replace(cifar.splits["train"], shards=cifar.splits["train"].shards * 2)}

    assert choose([other, cifar], "cifar10", True, "train", 0) is cifar
    larger = replace(cifar, splits=many)
    assert choose([cifar, larger], "cifar10", False, "train", 48) is larger


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the shards that the command for noise builds, of 16 images instead of 100,000."""
    folder, python = tmp_path_factory.mktemp("noise"), shlex.quote(sys.executable)
    text = DATASETS["noise"].build.replace("100_000", "16").replace("python", python, 1)
    text = text.replace("sbprep", f"{python} -m sbprep")
    subprocess.run(["bash", "-c", text], cwd=folder, env=environment(), check=True, capture_output=True, timeout=60)
    return folder / "noise"


def test_noise_of_the_reports_size_is_built_by_its_command(noise: Path) -> None:
    found = Manifest.read(noise / "rgb")

    assert (found.image_size, found.splits["unlabeled"].images) == (224, 16)
    assert choose([found], "noise", False, "unlabeled", 0) is found
    assert 70 < rows(found, "unlabeled", "image").std() < 78  # 73.9 where all levels are as frequent


@pytest.mark.parametrize(("size", "known"), [(31, False), (32, True), (96, True)])
def test_noise_is_known_by_its_file_and_has_at_least_the_size_of_cifar10(size: int, known: bool, noise: Path) -> None:
    other = replace(Manifest.read(noise / "rgb"), image_size=size)

    assert (choose([other], "noise", False, "unlabeled", 0) is other) == known


def test_a_run_on_noise_of_another_size_is_judged_on_cifar10(noise: Path, labeled: Path, tmp_path: Path) -> None:
    """Its views have a size of their own, which both are brought to."""
    named = replace(Manifest.read(labeled / "rgb"), label_names=DATASETS["cifar10"].labels)
    (cell,) = next(row.cells for row in table("simsiam").rows if row.cells and "noise" in row.cells[0].name)
    sets = Sets((named, Manifest.read(noise / "rgb")))

    assert sets.judged(cell) is named
    with pytest.raises(MissingShards, match="differ in image size, and the run has no --view-size"):
        sets.judged(replace(cell, config=replace(cell.config, view_size=0)))

    run_dir = tmp_path / "run"
    short = ("--network", "half:resnet18", "--view-size", "32", "--batch-size", "8", "--epochs", "1", "--device", "cpu")
    begun = ["pretrain", "--method", "simsiam", "--augmentation", "simsiam_report", "--projector", "report", *short]
    assert CliRunner().invoke(main, [*begun, "--shards", str(noise), "--run-dir", str(run_dir)]).exit_code == 0
    fine = ("--samples-per-class", "2", "--draws", "1", "--epochs", "1", "--device", "cpu", "--eval-split", "val")
    result = CliRunner().invoke(main, ["finetune", "--run", str(run_dir), "--shards", str(labeled / "rgb"), *fine])
    assert result.exit_code == 0, result.output


#: Table -> lines that are made here, and what their networks see.
MADE: dict[str, tuple[slice, dict[str, Any]]] = {
    "self-classifier": (slice(0, 1), {"head": "16", "classes": "3", "queue": 8}),
    "simsiam": (slice(0, 3, 2), {}),
}


@pytest.fixture(params=MADE)
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a table of one run, of a quarter of a second a step."""
    name: str = request.param
    lines, fields = MADE[name]
    run = {"self-classifier": "self-classifier-resnet18-1hl", "simsiam": "simsiam-cifar10-resnet18"}[name]
    make = {"self-classifier": reproduce_views.self_classifier, "simsiam": reproduce_views.simsiam}[name]
    preset, given = TINY.pretrain[run]
    shorter = {"network": "half:resnet18", "view_size": 16, "limit": 16, "batch_size": 8, "precision": "float32"}
    few = replace(TINY, pretrain={**TINY.pretrain, run: (preset, {**given, **shorter, **fields})})

    def first(setting: Setting) -> Table:
        whole = make(setting)
        return replace(whole, rows=whole.rows[lines])

    monkeypatch.setitem(reproduce_view_scales.VIEW_SCALES, "tiny", few)
    monkeypatch.setitem(reproduce_plan.TABLES, name, first)
    return name


def reproduce(name: str, shards: Path, out: Path, *more: str) -> Result:
    given = ["reproduce", name, "--shards", str(shards), "--out", str(out), "--scale", "tiny", "--device", "cpu", *more]
    return CliRunner().invoke(main, given)


def stamps(out: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in out.glob("tiny/*/results/*.json")}


def test_a_stopped_table_goes_on_and_has_every_number(
    small: str, labeled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sbtrain import guard

    calls, keep = [0], guard.Guard.keep

    def kept(self: guard.Guard, *values: Any) -> Any:
        calls[0] += 1
        if calls[0] == 1:  # the first step
            signal.raise_signal(signal.SIGTERM)
        return keep(self, *values)

    monkeypatch.setattr(guard.Guard, "keep", kept)

    stopped = reproduce(small, labeled, tmp_path)
    assert stopped.exit_code == EXIT_REQUEUE, stopped.output
    again = reproduce(small, labeled, tmp_path)
    assert again.exit_code == 0, again.output

    rows = json.loads((tmp_path / "tiny" / "reproduce.json").read_bytes())["tables"][small]["rows"]
    assert rows
    for row in rows:
        found = {each["name"]: each for each in row["evaluations"]}
        for measure in row["measures"]:
            evaluation = found[measure["evaluation"]]
            least = -1 if measure["key"] in ("ami", "ari") else 0  # they are 0 by chance
            assert least <= evaluation[measure["key"]]["mean"] <= 1
            assert evaluation["judged"]["classes"]
    page = (tmp_path / "tiny" / "report.md").read_text()
    assert "kNN of new weights" in page
    assert "other data" in page
    assert "damaged" not in page
    before = stamps(tmp_path)
    assert reproduce(small, labeled, tmp_path).exit_code == 0
    assert stamps(tmp_path) == before


def test_a_missing_data_set_is_skipped_with_its_command(small: str, labeled: Path, tmp_path: Path) -> None:
    there = tmp_path / "tiny" / "there"
    there.mkdir(parents=True)
    (there / "config.json").write_text("{}")
    (there / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')  # so that there is a page

    result = reproduce(small, labeled / "lab", tmp_path)

    assert result.exit_code == 1
    assert result.output.count("sbprep build --source cifar-10-binary.tar.gz --colorspace rgb --image-size 32") == 1
    assert "not run yet" not in result.output
    assert "not run yet" in (tmp_path / "tiny" / "report.md").read_text()


def test_the_page_misses_the_cells_of_the_table_asked_for_alone(labeled: Path, tmp_path: Path) -> None:
    for name in ("simsiam", "self-classifier"):
        reproduce(name, labeled / "lab", tmp_path)

    record = json.loads((tmp_path / "tiny" / "reproduce.json").read_bytes())
    assert len(record["cells"]) == 12
    remarks = find_runs([tmp_path / "tiny"])[1]
    (missing,) = (remark for remark in remarks if remark.startswith("not run yet"))
    assert missing.count("self-classifier") == 4
    assert "simsiam" not in missing


def test_without_unlabeled_images_a_stand_in_for_stl10_is_learned_from_train(tmp_path: Path) -> None:
    images = write_images(write_images(tmp_path / "images", 24), 12, "test")
    build(small_config(images, tmp_path / "shards", "rgb", image_size=32))

    result = reproduce("simsiam", tmp_path / "shards", tmp_path / "out", "--dry-run")

    lines = result.output.splitlines()
    assert [": about " in line for line in lines if "-stl10-" in line] == [True] * 4
    assert "Build" not in result.output
    assert [line.partition(": skipped at this scale")[1] != "" for line in lines if "-celeba-" in line] == [True] * 2
    assert "No other images stand in for noise" in next(line for line in lines if "-noise-" in line)
    assert lines[-1].startswith(f"5 of 8 cells in {tmp_path / 'out' / 'tiny'}: about ")
    assert "; 3 cells without data. Scale tiny" in lines[-1]


@pytest.mark.parametrize(("scale", "split", "learned"), [
    ("tiny", "train", "train"), ("tiny", "unlabeled", "unlabeled"), ("full", "train", "unlabeled"),
])  # fmt: skip
def test_noise_and_stl10_itself_are_learned_from_unlabeled_images(scale: str, split: str, learned: str) -> None:
    splits = {cell.name.split("-")[1]: cell.config.split for cell in cells_of([table("simsiam", scale, split=split)])}

    assert splits == {"cifar10": "train", "noise": "unlabeled", "stl10": learned, "celeba": "train"}


def test_a_number_of_val_is_named_and_stands_beside_that_of_val() -> None:
    def named(eval_split: str, name: str = "simsiam") -> list[tuple[str, float | None]]:
        measures = table(name, "tiny", eval_split=eval_split).rows[0].measures
        return [(measure.name, measure.published) for measure in measures]

    assert named("val")[0] == ("top-1, val", 0.8859)
    assert named("test")[:2] == [("top-1", 0.8889), ("top-1, val", 0.8859)]
    assert [name.endswith(", val") for name, _ in named("val", "self-classifier")] == [True] * 8
    assert not any("val" in name for name, _ in named("test", "self-classifier"))


def test_a_number_of_test_never_stands_beside_one_of_val() -> None:
    """The report's STL-10 lines have no number of val."""
    lines = [row for row in table("simsiam", "tiny", eval_split="val").rows if row.name.startswith("STL-10")]
    beside = [measure for row in lines for measure in row.measures if ", val" in measure.name]

    assert len(lines) == len(published_table("simsiam-stl10").rows)
    assert [measure.name for measure in beside].count("top-1, val") > 0
    assert {measure.published for measure in beside} == {None}


def test_a_dry_run_that_can_run_nothing_says_so(labeled: Path, tmp_path: Path) -> None:
    given = ["reproduce", "simsiam", "--shards", str(labeled), "--out", str(tmp_path / "out"), "--dry-run"]

    result = CliRunner().invoke(main, given)

    assert result.exit_code == 0
    assert "8 cells in" in result.output
    assert "none can run, as --shards hold none of their data sets. Build them" in result.output
    assert "about" not in result.output


def test_jobs_are_the_commands_of_every_kind_of_evaluation(small: str, labeled: Path, tmp_path: Path) -> None:
    assert reproduce(small, labeled, tmp_path / "out", "--jobs", str(tmp_path / "jobs")).exit_code == 0

    (script,) = (tmp_path / "jobs").glob("0*.sh")
    text = script.read_text()
    assert "sbtrain probe --run" in text
    assert "--layers backbone" in text
    assert ("sbtrain cluster --run" in text) == (small == "self-classifier")
    assert "sbtrain finetune --run" in text


# ------------------------------------------------------------------------------------------- weights of ImageNet labels


def test_lines_that_begin_with_imagenet_are_run_where_weights_are_given() -> None:
    weights = {"resnet18": Path("/w/resnet18.pth"), "pit_ti": Path("/w/pit.pth")}
    rows = table("simsiam", weights=weights).rows
    cells = {row.cells[0].name: row.cells[0] for row in rows if row.cells and row.about.get("start") == "imagenet"}

    assert sorted(cells) == [
        f"imagenet-labels-simsiam-{each}-seed0"
        for each in ("celeba-pit_ti", "celeba-resnet18", "stl10-pit_ti", "stl10-resnet18")
    ]
    for cell in cells.values():
        assert cell.preset is not None
        plain = load_preset(cell.preset).config
        assert cell.config == replace(plain, epochs=0, weights=str(weights[cell.name.split("-")[-2]]))
    lacking = [row.note for row in rows if not row.cells]
    assert lacking == [
        f"weights of ImageNet labels are not trained here: give them, --weights {network}=FILE"
        for network in ("efficientnet_b0", "vit_small")
    ]


def test_such_a_line_has_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_images(write_images(write_images(tmp_path / "images", 24), 12, "val"), 32, "unlabeled")
    shards = tmp_path / "shards"
    build(small_config(images, shards, "rgb", image_size=32))
    body = build_backbone("resnet18", (32,)).body
    torch.save({f"body.{name}": value for name, value in body.state_dict().items()}, tmp_path / "w.pth")
    whole = reproduce_plan.TABLES["simsiam"]

    def one(setting: Setting) -> Table:
        found = whole(setting)
        return replace(found, rows=tuple(row for row in found.rows if row.name == "STL-10: ResNet-18, ImageNet labels"))

    monkeypatch.setitem(reproduce_plan.TABLES, "simsiam", one)
    result = reproduce("simsiam", shards, tmp_path / "out", "--weights", f"resnet18={tmp_path / 'w.pth'}")

    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "out" / "tiny" / "reproduce.json").read_bytes())["tables"]["simsiam"]["rows"]
    assert row["published"]["top1"] == 0.8982
    assert 0 <= row["evaluations"][0]["top1"]["mean"] <= 1
    assert "no curve: its weights were given, epochs 0" in (tmp_path / "out" / "tiny" / "report.md").read_text()
    script = reproduce(
        "simsiam",
        shards,
        tmp_path / "out",
        "--weights",
        f"resnet18={tmp_path / 'w.pth'}",
        "--jobs",
        str(tmp_path / "jobs"),
    )
    assert script.exit_code == 0
    assert f"--weights {tmp_path / 'w.pth'} --epochs 0" in next((tmp_path / "jobs").glob("0*.sh")).read_text()
    assert f"--weights resnet18={tmp_path / 'w.pth'}" in (tmp_path / "jobs" / "collect.sh").read_text()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "simsiam",
            "resnet18",
            "weights 'resnet18', expected NETWORK=FILE, NETWORK one of efficientnet_b0, pit_ti, resnet18",
        ),
        ("simsiam", "resnet50=w.pth", "weights 'resnet50=w.pth', expected NETWORK=FILE"),
        ("simsiam", "resnet18=w.pth", "weights w.pth: no such file"),
        ("table1", "resnet18=/dev/null", "weights /dev/null: no such file"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(
    name: str, text: str, message: str, labeled: Path, tmp_path: Path
) -> None:
    result = reproduce(name, labeled, tmp_path, "--weights", text)

    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_weights_for_a_table_without_such_lines_are_refused(labeled: Path, tmp_path: Path) -> None:
    (tmp_path / "w.pth").touch()
    result = reproduce("table1", labeled, tmp_path, "--weights", f"resnet18={tmp_path / 'w.pth'}")

    assert result.exit_code == 2
    assert "no line of table1 begins with them" in result.output
