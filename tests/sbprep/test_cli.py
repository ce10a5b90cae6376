"""The command line: its options, examples, messages and exit codes, and what it shows while it works."""

import contextlib
import os
import pty
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from builds import ROOT, SMALL_OPTIONS, environment, small_build, small_config, tree, write_images
from sbformat.manifest import Manifest
from sbprep.cli import main
from sbprep.disk import check_room
from sbprep.plan import make_plan
from sbprep.progress import Progress
from sbprep.report import ProgressPrinter, duration_text, progress_text

#: All of them: a new one has to be added here too.
OPTIONS = {
    "bench": {"--images", "--scaling", "--scheduler", "--source", "--workers"},
    "build": {
        "--backend",
        "--bins",
        "--bins-dual",
        "--bins-single",
        "--colorspace",
        "--compression",
        "--dataset",
        "--dry-run",
        "--image-size",
        "--images-per-shard",
        "--limit",
        "--on-error",
        "--out",
        "--overwrite",
        "--partition",
        "--rescale",
        "--resize",
        "--scheduler",
        "--seed",
        "--source",
        "--target-size",
        "--test",
        "--train",
        "--unlabeled",
        "--val",
        "--workers",
    },
    "inspect": {"--all", "--colorspace", "--images", "--sheet", "--split"},
    "merge": set(),
    "verify": {"--colorspace", "--repair", "--workers"},
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    return


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def build(source: Path, *arguments: str | Path) -> Result:
    return run("build", "--source", source, "--colorspace", "rgb", *SMALL_OPTIONS, "--workers", "1", *arguments)


# Options and help


def test_the_options_are_these() -> None:
    found = {
        name: {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        for name, command in main.commands.items()
    }

    assert found == OPTIONS


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", ["", *OPTIONS])
def test_every_help_ends_with_an_example(command: str, flag: str) -> None:
    result = run(*([command] if command else []), flag)

    assert result.exit_code == 0
    assert re.search(r"\n  Example:\n +sbprep [^\n]+\n\Z", result.output)


def test_every_option_has_an_explanation_or_a_default() -> None:
    for command in main.commands.values():
        for parameter in command.params:
            assert isinstance(parameter, click.Argument) or parameter.help or parameter.show_default, parameter.name


def example(command: str) -> list[str]:
    text = run(*([command] if command else []), "-h").output.splitlines()[-1]
    return shlex.split(text)[1:]


@pytest.mark.parametrize("command", ["", "build"])
def test_the_examples_of_a_build_run(command: str) -> None:
    write_images(Path("photos"), 3, "train")
    write_images(Path("photos"), 3, "val")
    result = run(*example(command), "--limit", "1", "--workers", "1")

    assert result.exit_code == 0
    assert Manifest.read(Path("data_cache/rescaled_lab")).image_size == 96


def test_the_example_of_merge_runs(photos: Path) -> None:
    for part in (1, 2):
        small_build(photos, Path("data_cache"), partition=(part, 2))
    result = run(*example("merge"))

    assert result.exit_code == 0
    assert result.output.startswith("data_cache/rgb: complete\n  train: 40 images, 3 shards, ")


def test_the_example_of_verify_runs(photos: Path) -> None:
    small_build(photos, Path("data_cache"), "rgb", "lab")
    result = run(*example("verify"))

    assert result.exit_code == 0
    assert [line.split(";")[0] for line in result.output.splitlines()] == [
        "data_cache/rgb: sound",
        "data_cache/lab: sound",
    ]


def test_the_example_of_inspect_runs(photos: Path) -> None:
    small_build(photos, Path("data_cache"), "rgb", "rescaled_lab")
    result = run(*example("inspect"))

    assert result.exit_code == 0
    assert "train: 40 images in 3 shards" in result.output
    assert Path("sheet.png").read_bytes().startswith(b"\x89PNG")


def test_what_a_folder_holds_fits_a_screen_unless_all_is_asked_for(photos: Path) -> None:
    small_build(photos, Path("data_cache"), "rgb", "lab", "rescaled_lab")
    short, whole = run("inspect"), run("inspect", "--all")

    assert short.exit_code == whole.exit_code == 0
    assert len(short.output.splitlines()) <= 25
    assert "bins in use: target_single" in short.output
    assert "with --all: " in short.output
    assert "perplexity" not in short.output
    assert "perplexity" in whole.output
    assert "stored mean" in whole.output


def test_the_example_of_bench_is_understood() -> None:
    arguments = example("bench")  # running it takes half a minute: see test_bench.py
    context = main.commands[arguments[0]].make_context(arguments[0], arguments[1:])

    assert context.params == {
        "source": None,
        "images": 2000,
        "workers": -1,
        "scaling": False,
        "scheduler": None,
    }


# Messages and exit codes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("biuld", "no command 'biuld', did you mean build? There are build, merge, verify, inspect, bench"),
        ("build --colorspaces lab", "Did you mean '?--colorspace'?"),
        ("build --colorspace lap", "'lap' is not one of 'rgb', 'lab', 'rescaled_lab'"),
        ("build", "Missing option '--colorspace'"),
        ("build --colorspace lab --image-size big", "'big' is not a valid integer"),
        ("build --colorspace lab --image-size 4", "image size 4, expected 8 to 1,024 pixels"),
        ("build --colorspace lab --partition 0/3", "partition 0/3, expected 1/3 to 3/3"),
        ("build --colorspace lab --partition 4/3", "partition 4/3, expected 1/3 to 3/3"),
        ("build --colorspace lab --partition third", "partition 'third', expected i/n, for example 1/3"),
        ("build --colorspace lab --partition 1/3 --overwrite", "discard the shards of the other partitions"),
        ("build --colorspace lab --on-error stop", "on-error 'stop', expected skip, fail or limit=N"),
        ("build --colorspace lab --colorspace lab", "color space given twice"),
        ("build --colorspace rgb --bins zhang", "Use --colorspace lab"),
        ("build --colorspace lab --limit 0", "limit 0, expected 1 to"),
        ("build --colorspace lab --dataset folder", "--dataset folder needs --source PATH"),
        ("inspect --sheet sheet.jpg", "sheet sheet.jpg, expected a name that ends in .png"),
        ("verify --workers 0", "0 workers, expected a count from 1"),
        ("verify one two", "Got unexpected extra argument"),
    ],
)
def test_a_wrong_option_exits_with_2_and_says_what_is_right(photos: Path, arguments: str, message: str) -> None:
    if arguments.startswith("verify"):
        small_build(photos, Path("data_cache"))
    result = run(*arguments.split())
    command = arguments.split()[0]

    assert result.exit_code == 2
    assert re.search(message if message.startswith("Did") else re.escape(message), result.output)
    assert result.output.startswith(f"Usage: main {command} " if command in OPTIONS else "Usage: main ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("build --colorspace lab --source nowhere", "Error: nowhere: no such file or folder (given as --source)"),
        ("verify nowhere", "Error: nowhere: no such folder. Check the path"),
        ("inspect nowhere", "Error: nowhere: no such folder. Check the path"),
        ("merge nowhere", "Error: nowhere: no such folder. Check the path"),
    ],
)
def test_a_failure_exits_with_1_and_says_what_to_do(arguments: str, message: str) -> None:
    result = run(*arguments.split())

    assert result.exit_code == 1
    assert result.output.startswith(message)


def test_an_interrupt_while_the_program_loads_says_one_line() -> None:
    # Importing click, the first of all, is what gets interrupted here.
    Path("click.py").write_text("raise KeyboardInterrupt")
    result = subprocess.run(
        [sys.executable, "-m", "sbprep", "build"],
        env=environment(PYTHONPATH=f".:{ROOT / 'preprocess'}"), capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (result.returncode, result.stderr) == (130, "Interrupted.\n")


def test_rejects_do_not_change_the_exit_code(own_photos: Path) -> None:
    next(own_photos.rglob("*.png")).write_bytes(b"")
    result = build(own_photos)

    assert result.exit_code == 0
    assert "train: 39 images, 3 shards" in result.output
    assert "1 of 40 rejected (1 empty), listed in data_cache/rgb/train/rejects.jsonl" in result.output


def test_a_build_says_what_it_will_do_then_what_it_did_then_that_nothing_is_left(photos: Path) -> None:
    first, again = build(photos), build(photos)

    assert first.output.splitlines()[:2] == [
        "rgb at 16 x 16 into data_cache",
        f"  train: 40 images (folder: {photos}), 3 classes, 3 shards",
    ]
    assert first.output.splitlines()[-2:] == again.output.splitlines()[-3:-1]
    assert again.output.splitlines()[2] == "  data_cache/rgb: 3 of 3 shards are there already and are kept"
    assert again.output.splitlines()[-1] == "nothing to do: every shard was there already"


def test_a_partition_says_what_remains_to_be_done(photos: Path) -> None:
    result = build(photos, "--partition", "2/3")

    assert "  partition 2 of 3: 1 shard\n" in result.output
    assert "partition 2 of 3 is done. After all of them: sbprep merge data_cache" in result.output


def test_a_partition_without_shards_says_so(photos: Path) -> None:
    result = build(photos, "--partition", "5/5")

    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "nothing to do: the build has 3 shards, this partition none"


def test_a_build_that_goes_on_says_how_many_shards_it_kept(photos: Path) -> None:
    build(photos, "--partition", "1/3")
    result = build(photos)

    assert result.output.splitlines()[2] == "  data_cache/rgb: 1 of 3 shards are there already and are kept"
    assert result.output.splitlines()[-1] == "2 shards made, 1 kept from before"


def test_a_list_that_is_made_again_is_named(photos: Path) -> None:
    build(photos)
    path = Path("data_cache/rgb/train/rejects.jsonl")
    path.unlink()

    assert f"{path}: lost or damaged, made again" in build(photos).output
    assert path.is_file()


def test_merging_twice_is_no_failure(photos: Path) -> None:
    for part in (1, 2):
        build(photos, "--partition", f"{part}/2")
    first, again = run("merge"), run("merge")

    assert (first.exit_code, again.exit_code) == (0, 0)
    assert again.output == "data_cache: nothing to do, already merged: rgb\n"


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_an_unmerged_folder_is_not_told_to_be_built(photos: Path, command: str) -> None:
    build(photos, "--partition", "1/2")
    result = run(command)

    assert result.exit_code == 1
    assert "not merged yet (1 of 2 begun). When all are done: sbprep merge data_cache" in result.output


def test_own_images_after_the_demo_are_offered_a_folder_of_their_own(photos: Path) -> None:
    run("build", "--colorspace", "rgb", *SMALL_OPTIONS, "--limit", "4", "--workers", "1")
    for options in ((), ("--dry-run",)):
        result = build(photos, *options)

        assert result.exit_code == 1
        assert "Error: data_cache/rgb holds another image set: 12 images of the built-in set" in result.output
        assert "Give this one a folder of its own with --out, or discard that one with --overwrite" in result.output


def test_damage_exits_with_3_by_name_and_repair_with_0(photos: Path) -> None:
    build(photos)
    whole = tree(Path("data_cache"))
    path = Path("data_cache/rgb/train/shard-00001.h5")
    content = path.read_bytes()
    path.write_bytes(content[:20_000] + bytes([content[20_000] ^ 1]) + content[20_001:])
    found, mended, after = run("verify"), run("verify", "--repair", "--workers", "1"), run("verify")

    assert (found.exit_code, mended.exit_code, after.exit_code) == (3, 0, 0)
    assert found.output.startswith(f"DAMAGED {path}: image chunk 0 (images 0 to 15)\ndata_cache/rgb: 1 damaged place;")
    assert found.output.endswith("\nMend it: sbprep verify data_cache/rgb --repair\n")
    assert mended.output.splitlines()[-1] == "data_cache/rgb: 1 shard made again, 0 places still damaged"
    assert after.output.startswith("data_cache/rgb: sound;")
    assert tree(Path("data_cache")) == whole


def test_a_damaged_manifest_stops_no_other_color_space(photos: Path) -> None:
    small_build(photos, Path("data_cache"), "rgb", "lab", "rescaled_lab")
    path = Path("data_cache/lab/manifest.json")
    path.write_bytes(path.read_bytes()[:-9])
    result = run("verify")

    assert result.exit_code == 3
    assert [line.split(";")[0].split(" (")[0] for line in result.output.splitlines()] == [
        "data_cache/rgb: sound",
        "DAMAGED data_cache/lab/manifest.json: not readable as JSON",
        "data_cache/rescaled_lab: sound",
    ]
    assert run("verify", "data_cache/lab").exit_code == 3


def test_a_manifest_with_another_value_is_restored_by_repair_in_every_color_space(photos: Path) -> None:
    small_build(photos, Path("data_cache"), "rgb", "lab")
    whole = tree(Path("data_cache"))
    for name in ("rgb", "lab"):
        path = Path("data_cache", name, "manifest.json")
        path.write_text(path.read_text().replace('"listed":40', '"listed":41'))
    found, mended, after = run("verify"), run("verify", "--repair"), run("verify")

    assert (found.exit_code, mended.exit_code, after.exit_code) == (3, 0, 0)
    assert "data_cache/rgb/manifest.json: restored\n" in mended.output
    assert tree(Path("data_cache")) == whole


@pytest.mark.parametrize("others", [(), ("lab",)])
def test_a_manifest_that_is_gone_is_named_and_restored(photos: Path, others: tuple[str, ...]) -> None:
    small_build(photos, Path("data_cache"), "rgb", *others)
    whole = tree(Path("data_cache"))
    Path("data_cache/rgb/manifest.json").unlink()
    found, mended = run("verify"), run("verify", "--repair")

    assert (found.exit_code, mended.exit_code) == (3, 0)
    assert (
        "DAMAGED data_cache/rgb/manifest.json: missing. Restore it from its copy: sbprep verify data_cache/rgb --repair\n"
        in (found.output)
    )
    assert tree(Path("data_cache")) == whole


def test_the_copy_of_a_manifest_is_no_set_while_partitions_are_made_anew(photos: Path) -> None:
    build(photos)
    Path("data_cache/rgb/manifest.json").unlink()
    build(photos, "--partition", "1/3")
    result = run("verify", "--repair")

    assert result.exit_code == 1
    assert "not merged yet" in result.output


def test_a_manifest_whose_copy_is_damaged_too_exits_with_3_and_stops_no_other(photos: Path) -> None:
    small_build(photos, Path("data_cache"), "rgb", "lab")
    for name in ("manifest.json", ".manifest.copy.json"):
        Path("data_cache/rgb", name).write_text("{}")
    Path("data_cache/lab/train/shard-00000.h5").unlink()
    result = run("verify", "--repair", "--workers", "1")

    assert result.exit_code == 3
    assert "not mended: data_cache/rgb/manifest.json is damaged, and its copy .manifest.copy.json is" in result.output
    assert "data_cache/lab: 1 shard made again, 0 places still damaged" in result.output


def test_repair_gives_a_set_of_an_older_version_the_copy_of_its_manifest(photos: Path) -> None:
    build(photos)
    whole = tree(Path("data_cache"))
    Path("data_cache/rgb/.manifest.copy.json").unlink()

    assert (run("verify").exit_code, run("verify", "--repair").exit_code) == (0, 0)
    assert tree(Path("data_cache")) == whole


def test_damage_that_cannot_be_mended_exits_with_3(own_photos: Path) -> None:
    build(own_photos)
    Path("data_cache/rgb/train/shard-00001.h5").unlink()
    own_photos.rename("elsewhere")
    result = run("verify", "--repair")

    assert result.exit_code == 3
    assert f"Error: not mended: {own_photos}: the images are not there" in result.output


def test_a_dry_run_predicts_the_bytes_and_writes_nothing(photos: Path) -> None:
    options = ("--image-size", "96", "--target-size", "12", "--images-per-shard", "1", "--limit", "8")
    dry = build(photos, *options, "--dry-run")

    assert dry.exit_code == 0
    assert dry.output.splitlines()[-1] == "nothing was written"
    assert not Path("data_cache").exists()
    assert (
        "then: a manifest of about 4 kB a color space; an epoch of the largest split at 10,000 images/s" in dry.output
    )
    predicted = re.search(r"([\d.]+) MB in 8 files", dry.output)
    assert predicted is not None
    build(photos, *options)
    real = sum(path.stat().st_size for path in Path("data_cache").rglob("*.h5"))
    assert abs(float(predicted[1]) * 1e6 - real) < 0.01 * real


def test_a_dry_run_for_a_cluster_does_not_count_the_cores_of_this_machine(photos: Path) -> None:
    result = build(photos, "--backend", "dask", "--scheduler", "tcp://127.0.0.1:1", "--dry-run")

    assert "core-hours, to be divided by the cluster's cores" in result.output


def test_a_dry_run_counts_only_what_is_missing(photos: Path) -> None:
    build(photos, "--partition", "1/3")
    some = build(photos, "--dry-run")
    build(photos)
    none = build(photos, "--dry-run")

    assert "data_cache/rgb: 1 of 3 shards are there already" in some.output
    assert re.search(r"MB in 2 files\n", some.output)
    assert none.output.splitlines()[-2:] == ["  nothing to do: no shard is missing", "nothing was written"]


def test_a_dry_run_of_an_overwrite_says_what_would_go_and_discards_nothing(photos: Path) -> None:
    build(photos)
    before = tree(Path("data_cache"))
    result = build(photos, "--overwrite", "--dry-run")

    assert result.exit_code == 0
    assert re.search(r"--overwrite discards 7 files of data_cache/rgb, 0\.2 MB, once an image", result.output)
    assert re.search(r"MB in 3 files\n", result.output)
    assert tree(Path("data_cache")) == before


def test_a_dry_run_tells_passes_over_an_archive_apart(photos: Path, tmp_path: Path) -> None:
    with tarfile.open("photos.tar.gz", "w:gz") as tar:
        tar.add(photos, ".")
    archive, folder = build(Path("photos.tar.gz"), "--dry-run"), build(photos, "--dry-run")

    assert re.search(r"images/s each, 1 pass of 0 s over the archive; measured on 16 images", archive.output)
    assert " pass" not in folder.output


def test_a_dry_run_counts_only_its_partition_and_a_sample_of_rejects(own_photos: Path) -> None:
    for path in list(own_photos.rglob("*.png"))[:30]:
        path.write_bytes(b"")
    result = build(own_photos, "--partition", "3/3", "--dry-run")

    assert "  partition 3 of 3: 1 shard\n" in result.output
    assert re.search(r"0\.\d MB in 1 file\n  under 5 s, start-up included, with 1 worker ", result.output)
    assert re.search(r"measured on 8 images, \d of them rejected", result.output)


def test_a_dry_run_on_a_disk_that_is_too_small_exits_with_1(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(small_config(photos, Path("data_cache")))
    needed = check_room(plan, {"rgb": set(plan.keys())})
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Disk", (), {"free": needed - 1}))
    result = build(photos, "--dry-run")

    assert result.exit_code == 1
    assert "Error: data_cache: the shards need 0.2 MB, the disk has 0.2 MB free. Make room" in result.output


def test_a_dry_run_says_what_passes_over_an_archive_take_meanwhile(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open("photos.tar.gz", "w:gz") as tar:
        tar.add(photos, ".")
    monkeypatch.setattr("sbprep.disk.IN_MEMORY", 1)

    assert re.search(
        r"MB in 3 files; while archives are read at least 0\.0 MB more\n",
        build(Path("photos.tar.gz"), "--dry-run").output,
    )


def test_a_dry_run_refuses_an_output_that_cannot_be_made(photos: Path) -> None:
    Path("file").touch()
    result = build(photos, "--out", "file/deeper", "--dry-run")

    assert result.exit_code == 1
    assert re.search(
        r"Error: file/deeper/rgb/train: /\S+/file is a file. Choose another --out, or permit", result.output
    )


# Errors of the system


@pytest.mark.parametrize("command", ["build --colorspace rgb --source", "verify", "inspect", "merge"])
def test_an_error_of_the_system_is_told_with_path_reason_and_what_to_do(command: str) -> None:
    path = "x" * 300
    result = run(*command.split(), path)

    assert result.exit_code == 1
    assert re.search(
        rf"Error: {path}\S*: the system refuses it \(File name too long\). .* check the path", result.output
    )


def test_a_journal_that_cannot_be_read_is_told_by_path(photos: Path) -> None:
    Path("data_cache/rgb/journal.jsonl").mkdir(parents=True)
    result = build(photos)

    assert result.exit_code == 1
    assert "Error: data_cache/rgb/journal.jsonl: the system refuses it (Is a directory)." in result.output


def test_a_merge_of_a_damaged_manifest_is_not_done(photos: Path) -> None:
    build(photos)
    path = Path("data_cache/rgb/manifest.json")
    path.write_bytes(path.read_bytes()[:-9])
    result = run("merge")

    assert result.exit_code == 1
    assert f"Error: {path}: not readable as JSON" in result.output


@pytest.mark.parametrize("images", ["0", "-3"])
def test_a_sheet_of_no_images_is_refused(photos: Path, images: str) -> None:
    build(photos)
    result = run("inspect", "--sheet", "sheet.png", "--images", images)

    assert result.exit_code == 2
    assert "Invalid value for '--images'" in result.output


# Progress


def progress(shards: int, rejected: int = 0) -> Progress:
    return Progress(images=1000 * shards, total=4000, shards=shards, total_shards=4, rejected=rejected)


def test_progress_is_one_line_of_text() -> None:
    assert progress_text(progress(1), 10.0) == "1,000/4,000 images  25% · 1/4 shards · 100 images/s · 30 s left"
    assert progress_text(progress(4, 7), 8.0).endswith("100% · 4/4 shards · 500 images/s · 0 s left · 7 rejected")
    assert "? left" in progress_text(progress(0), 0.0)
    assert "? left" in progress_text(progress(1), 0.0)
    assert progress_text(progress(1), 10.0, bar=True).startswith("[######..................] 1,000/4,000")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (5400, "1.5 h"), (9e4, "25.0 h")]
)
def test_durations_are_told_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_images_under_way_count_as_done() -> None:
    half = Progress(images=1000, under_way=1000, total=4000, shards=1, total_shards=4, rejected=0)

    assert progress_text(half, 10.0) == "2,000/4,000 images  50% · 1/4 shards · 200 images/s · 10 s left"


def test_the_very_first_images_say_nothing_about_the_time_left() -> None:
    first = Progress(images=0, under_way=39, total=4000, shards=0, total_shards=4, rejected=0)

    assert "39/4,000 images   1% · 0/4 shards · 4 images/s · ? left" == progress_text(first, 10.0)


def test_a_log_gets_whole_lines_and_few_of_them(photos: Path) -> None:
    lines = [line for line in build(photos).output.splitlines() if "images/s" in line]

    assert len(lines) == 1
    assert lines[0].startswith("40/40 images 100% · 3/3 shards · ")


def test_a_terminal_gets_one_live_line_and_keeps_the_last() -> None:
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w") as stream, ProgressPrinter(stream) as printer:
        for shards in range(5):
            printer(progress(shards))
    shown = ""
    with contextlib.suppress(OSError):  # how a terminal says that the other side has closed
        while piece := os.read(reader, 10_000):
            shown += piece.decode()
    os.close(reader)

    assert shown.count("\r\x1b[K[") == 5
    assert shown.count("\n") == 1
    assert shown.rstrip().endswith("0 s left")
    assert "[########################] 4,000/4,000 images 100%" in shown.split("\r")[-2]


def test_a_scheduler_is_measured_beside_processes_only() -> None:
    result = run("bench", "--scheduler", "tcp://localhost:1")

    assert result.exit_code == 2
    assert "a scheduler is measured with --scaling only" in result.output
