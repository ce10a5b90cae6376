"""What a folder was begun with beside what is asked for now: the same by any spelling, or a message that helps."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from builds import HEADER, changed
from sbformat.errors import ManifestError, SplitbrainError
from sbprep.request import check_same

JOURNAL, MANIFEST = Path("out/lab/journal.jsonl"), Path("out/lab/manifest.json")


def refusal(header: dict[str, Any], found: Path = MANIFEST) -> str:
    with pytest.raises(SplitbrainError) as raised:
        check_same(HEADER, header, found)
    return str(raised.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            changed(recipe__seed=3),
            "other options: seed 0 there, 3 asked for. Use the same, another --out, or discard it with --overw",
        ),
        (changed(recipe__target__dual=16), "other options: target.dual 10 there, 16 asked for"),
        (
            changed(recipe__seed=3, recipe__image_size=64),
            "seed 0 there, 3 asked for; image_size 96 there, 64 asked for",
        ),
        (changed(recipe__resize="crop"), "resize None there, 'crop' asked for"),
        (changed(provenance__software__opencv="4.10"), "other software: software.opencv '5.0' there, '4.10' asked for"),
        (changed(label_names=["cat"]), "other class names"),
    ],
)
def test_a_build_with_other_options_is_refused_by_name_and_both_values(header: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        check_same(HEADER, header, JOURNAL)


@pytest.mark.parametrize("spelling", ["./photos", "photos/", "photos/../photos", "{here}/photos", "link"])
def test_another_spelling_of_the_path_is_the_same_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to("photos")

    check_same(HEADER, changed(sources__train__path=spelling.format(here=os.fspath(tmp_path))), MANIFEST)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (changed(sources__train__listed=41), r"\(--source photos: 40 then, 41 now; --limit counts too\)"),
        (changed(sources__train__fingerprint="9" * 16), "40 then as now, with other names, sizes or labels"),
        (changed(sources__train__dates="0" * 10), "40 then as now, files written anew since"),
        (changed(sources__train__kind="tar"), "read as folder then, as tar now"),
    ],
)
def test_images_that_changed_are_told_with_what_changed_and_three_ways_out(
    header: dict[str, Any], message: str
) -> None:
    text = refusal(header)

    assert text.startswith("out/lab: the images of split train have changed since this was built")
    assert re.search(message, text)
    for way in ("another --out, ", "--overwrite, ", "bring the images back"):
        assert way in text
    assert refusal(header, JOURNAL).endswith("bring the images back and run the command again")


@pytest.mark.parametrize(
    ("header", "asked"),
    [
        (changed(sources__train__path="pictures"), "40 images of --source pictures (train)"),
        (changed(sources__train__option="train"), "40 images of --train photos (train)"),
        (changed(sources__train__option=None, sources__train__path=None), "40 images of the built-in set (train)"),
        (changed(sources__val=HEADER["sources"]["train"]), "80 images of --source photos (train, val)"),
    ],
)
def test_another_image_set_is_offered_a_folder_of_its_own_first(header: dict[str, Any], asked: str) -> None:
    assert refusal(header).startswith(
        f"out/lab holds another image set: 40 images of --source photos (train) there, {asked} asked for. "
        "Give this one a folder of its own with --out, or discard that one with --overwrite"
    )


def test_a_partition_is_not_told_to_overwrite() -> None:
    for header in (changed(recipe__seed=1), changed(sources__train__listed=7), changed(label_names=["cat"])):
        text = refusal(header, Path("out/lab/journal-1-of-3.jsonl"))

        assert "by removing out/lab" in text
        assert "--overwrite" not in text


def test_what_may_be_the_same_images_by_another_option_is_told_how_they_were_named() -> None:
    hint = "If the images are the same, name them as then: --source photos"

    assert refusal(changed(sources__train__option="train", sources__train__path="photos/train")).endswith(hint)
    assert hint not in refusal(changed(sources__train__option=None, sources__train__path=None))
    assert hint not in refusal(changed(sources__train__path="pictures", sources__train__listed=7))
