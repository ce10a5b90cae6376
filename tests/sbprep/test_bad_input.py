"""Whatever is wrong with images, archives, folder or disk: a build says so, loses nothing and goes on when it can."""

import io
import json
import os
import pickle
import re
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builds import (
    CLASSES,
    largest_file,
    pixels_of,
    rows,
    small_build,
    small_config,
    small_manifest,
    sources,
    tree,
    unfinished,
    write_image,
    write_images,
)
from sbformat.errors import BuildError, SchemaVersionError, SourceError, SplitbrainError
from sbformat.manifest import Manifest, json_digest
from sbprep.pipeline import build
from sbprep.progress import Progress
from sbprep.seal import merge

AS_ROOT = os.geteuid() == 0


def encoded(name: str, format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_of(name)).save(buffer, format)
    return buffer.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def jpeg_of_size(width: int, height: int) -> bytes:
    content = encoded("bomb", "JPEG")
    frame = content.index(b"\xff\xc0")
    return content[: frame + 5] + struct.pack(">HH", height, width) + content[frame + 9 :]


JPEG, PNG = encoded("whole", "JPEG"), encoded("whole", "PNG")
#: Name -> (content, reason code).
BAD = {
    "empty.jpg": (b"", "empty"),
    "half.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "half.png": (PNG[: len(PNG) // 2], "truncated"),
    "head.jpg": (JPEG[:3], "truncated"),
    "text.jpg": (b"this is no image", "not_an_image"),
    "page.png": (b"<html><body>404 Not Found</body></html>", "not_an_image"),
    "zeros.png": (bytes(1000), "not_an_image"),
    "flipped.png": (PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:], "damaged"),
    "bomb.png": (png_of_size(60_000, 60_000), "too_large"),
    "bomb.jpg": (jpeg_of_size(65_000, 65_000), "too_large"),
}
GOOD = {
    "png by another name.jpg": (PNG, "whole"),
    "UPPER.PNG": (encoded("upper", "PNG"), "upper"),
    "漢字.png": (encoded("words", "PNG"), "words"),
    "new\nline.bmp": (encoded("line", "BMP"), "line"),
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A build of good images and of every kind of bad one."""
    root = tmp_path_factory.mktemp("mixed")
    for name, (content, _) in (BAD | GOOD).items():
        (root / "photos/some" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "photos/some" / name).write_bytes(content)
    (root / "photos/some/folder.jpg").mkdir()
    (root / "photos/some/nowhere.jpg").symlink_to(root / "nothing")
    (root / "photos/some/circle.jpg").symlink_to(root / "photos/some/circle.jpg")
    return small_manifest(root / "photos", root / "out", images_per_shard=5)


def rejects(manifest: Manifest, split: str = "unlabeled") -> list[dict[str, str]]:
    return [json.loads(line) for line in (manifest.root / split / "rejects.jsonl").read_text().splitlines()]


def test_every_bad_image_is_rejected_with_its_reason_and_no_good_one(mixed: Manifest) -> None:
    expected = {f"some/{name}": code for name, (_, code) in BAD.items()}
    expected |= {"some/nowhere.jpg": "vanished", "some/circle.jpg": "unreadable"}

    assert {entry["path"]: entry["code"] for entry in rejects(mixed)} == expected
    assert all(entry["detail"] for entry in rejects(mixed))


def test_good_images_and_rejects_add_up_to_the_listing(mixed: Manifest) -> None:
    split = mixed.splits["unlabeled"]

    assert split.images == len(GOOD)
    assert split.listed == split.images + sum(split.rejected.values()) == len(sources(mixed, "unlabeled"))
    places = [*rows(mixed, "unlabeled", "source_index"), *(entry["source_index"] for entry in rejects(mixed))]
    assert sorted(places) == list(range(split.listed))


def test_good_images_among_bad_ones_come_out_whole(mixed: Manifest) -> None:
    listing = sources(mixed, "unlabeled")
    seeds = {f"some/{name}".replace("\n", "\\n"): seed for name, (_, seed) in GOOD.items()}

    for index, image in zip(rows(mixed, "unlabeled", "source_index"), rows(mixed, "unlabeled", "image"), strict=True):
        assert np.array_equal(image.transpose(1, 2, 0), pixels_of(seeds[listing[index]]))


def test_each_reject_names_the_shard_that_it_would_be_in(mixed: Manifest) -> None:
    listing = [line.replace("\\n", "\n") for line in sources(mixed, "unlabeled")]
    names = {shard.name for shard in mixed.splits["unlabeled"].shards}

    for entry in rejects(mixed):
        assert listing[int(entry["source_index"])] == entry["path"]
        assert entry["shard"] in names


@pytest.mark.skipif(AS_ROOT, reason="root may read everything")
def test_an_unreadable_image_is_rejected(own_photos: Path, tmp_path: Path) -> None:
    path = next(own_photos.rglob("*.png"))
    path.chmod(0)

    assert small_manifest(own_photos, tmp_path / "out").splits["train"].rejected == {"unreadable": 1}


def test_a_name_that_is_no_text_is_built_and_reported(tmp_path: Path) -> None:
    write_image(tmp_path / "photos/good.png").rename(f"{tmp_path}/photos/\udcff.png")
    Path(f"{tmp_path}/photos/\udcfe.png").write_bytes(b"")
    manifest = small_manifest(tmp_path / "photos", tmp_path / "out")

    assert (manifest.root / "unlabeled/sources.txt").read_bytes() == b"\xfe.png\n\xff.png\n"
    assert rejects(manifest)[0]["path"] == "\udcfe.png"
    assert rows(manifest, "unlabeled", "source_index").tolist() == [1]


# Archives and batch files


def archive_of(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, f"w:{path.suffix[1:] if path.suffix != '.tar' else ''}") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "zip"])
def test_members_that_climb_out_are_rejected_and_written_nowhere(tmp_path: Path, suffix: str) -> None:
    archive = archive_of(tmp_path / f"photos.{suffix}", {"../up.png": PNG, "/root.png": PNG, "in/good.png": PNG})
    manifest = small_manifest(archive, tmp_path / "out")

    assert manifest.splits["unlabeled"].rejected == {"unsafe_name": 2}
    assert manifest.splits["unlabeled"].images == 1
    assert not list(tmp_path.parent.rglob("up.png"))


def test_links_in_a_tar_are_rejected(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        info = tarfile.TarInfo("good.png")
        info.size = len(PNG)
        tar.addfile(info, io.BytesIO(PNG))
        for name, kind in (
            ("soft.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    manifest = small_manifest(tmp_path / "photos.tar", tmp_path / "out")

    assert manifest.splits["unlabeled"].rejected == {"not_a_file": 3}


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "zip"])
def test_a_cut_archive_is_refused_by_name_before_anything_is_written(tmp_path: Path, suffix: str) -> None:
    archive = archive_of(tmp_path / f"photos.{suffix}", {f"{number}.png": PNG for number in range(20)})
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2 + 100])

    with pytest.raises(SourceError, match=f"{archive}: "):
        small_build(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_archive_that_changes_while_a_build_waits_is_noticed(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "photos.zip", {f"{number}.png": PNG for number in range(20)})
    small_build(archive, tmp_path / "out", partition=(1, 2))
    found = archive.stat()
    os.utime(archive, ns=(found.st_atime_ns, found.st_mtime_ns + 1))

    with pytest.raises(SourceError, match=r"have changed since this was begun .*files written anew since"):
        small_build(archive, tmp_path / "out")


def test_a_batch_file_of_another_size_is_refused(tmp_path: Path) -> None:
    batches = tmp_path / "cifar-10-batches-bin"
    batches.mkdir()
    (batches / "test_batch.bin").write_bytes(bytes(3073 * 2 + 1))

    with pytest.raises(SourceError, match=r"test_batch.bin: 6147 bytes"):
        small_build(batches, tmp_path / "out", dataset="cifar")


class Hostile:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.trace),)


def test_a_hostile_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    (batches / "test_batch").write_bytes(pickle.dumps({b"data": Hostile(tmp_path / "run"), b"labels": [0]}))

    with pytest.raises(SourceError, match=r"test_batch: refused: the pickle wants posix.mkdir"):
        small_build(batches, tmp_path / "out", dataset="cifar")
    assert not (tmp_path / "run").exists()


# Nothing to build


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(SourceError, match="photos: no files in this folder"):
        small_build(tmp_path / "photos", tmp_path / "out")
    (tmp_path / "photos/readme.txt").touch()
    with pytest.raises(SourceError, match="photos: no images among 1 files"):
        small_build(tmp_path / "photos", tmp_path / "out")


def test_a_split_without_images_is_refused_beside_one_with_images(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(SourceError, match="empty: no files in this folder"):
        build(small_config(None, tmp_path / "out", paths={"train": photos / "train", "val": tmp_path / "empty"}))


def test_one_bad_split_does_not_spoil_the_other_forever(tmp_path: Path) -> None:
    photos = write_images(write_images(tmp_path / "photos", 20), 3, "val")
    good = {path: path.read_bytes() for path in (photos / "val").rglob("*.png")}
    for path in good:
        path.write_bytes(b"x" * len(good[path]))
    with pytest.raises(BuildError, match=r"split val: none of the 3 images could be used \(3 not_an_image\)"):
        small_build(photos, tmp_path / "out")
    for path, content in good.items():
        path.write_bytes(content)

    manifest = small_manifest(photos, tmp_path / "out", overwrite=True)
    assert {name: split.images for name, split in manifest.splits.items()} == {"train": 20, "val": 3}


# The disk


@pytest.mark.parametrize(
    ("size", "path"),
    [
        (0, "rgb/journal.jsonl"),
        (600, "rgb/journal.jsonl"),
        (1_700, "rgb/train/shard-00000.h5"),
        (40_000, "rgb/train/shard-00000.h5"),
        (54_000, "rgb/train/shard-00000.h5"),
    ],
)
def test_a_file_that_cannot_grow_ends_the_build_with_its_path_and_leaves_nothing_half_made(
    photos: Path, prepared: Manifest, tmp_path: Path, size: int, path: str
) -> None:
    with (
        largest_file(size),
        pytest.raises(BuildError, match=f"{tmp_path / path}: cannot be written .*make room") as raised,
    ):
        small_build(photos, tmp_path)
    assert "run the same command again" in str(raised.value)
    assert "cannot be written (File too large); " in str(raised.value)
    assert "journal" in path or re.search(r" MB are free there, it needs 0\.\d MB\.", str(raised.value))
    assert unfinished(tmp_path) == ["journal.jsonl"]

    assert small_build(photos, tmp_path).made == 3
    assert tree(tmp_path / "rgb") == tree(prepared.root)


def test_a_manifest_that_cannot_be_written_loses_nothing(photos: Path, prepared: Manifest, tmp_path: Path) -> None:
    for part in (1, 2, 3):
        small_build(photos, tmp_path, partition=(part, 3))
    with largest_file(3000), pytest.raises(BuildError, match=r"manifest.json: cannot be written \(.*File too large"):
        merge(tmp_path)

    merge(tmp_path)
    assert tree(tmp_path / "rgb") == tree(prepared.root)


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_below_a_file_is_refused_by_path(photos: Path, tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file/deeper"):
        with pytest.raises(BuildError, match=rf"{out}/rgb: .* \(Not a directory\). Choose another --out, or permit"):
            small_build(photos, out, overwrite=overwrite)


@pytest.mark.skipif(AS_ROOT, reason="root may write everywhere")
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_may_not_be_written_is_refused_by_path(
    photos: Path, own_prepared: Manifest, overwrite: bool
) -> None:
    (own_prepared.root / "manifest.json").unlink()
    for folder in (own_prepared.root, own_prepared.root / "train"):
        folder.chmod(0o555)

    with pytest.raises(BuildError, match=f"{own_prepared.root}.*permit writing"):
        small_build(photos, own_prepared.root.parent, overwrite=overwrite)


# What lies there already


def test_a_second_build_in_the_folder_is_refused_and_the_first_unharmed(
    photos: Path, prepared: Manifest, tmp_path: Path
) -> None:
    refused = []

    def build_again(progress: Progress) -> None:
        if progress.shards == 1:
            for options in ({}, {"overwrite": True}, {"partition": (2, 3)}):
                with pytest.raises(BuildError, match=r"another sbprep is building here. Wait for it, or use another"):
                    small_build(photos, tmp_path, **options)
                refused.append(options)

    build(small_config(photos, tmp_path), build_again)

    assert len(refused) == 3
    assert tree(tmp_path / "rgb") == tree(prepared.root)


def test_a_manifest_of_another_schema_is_refused_and_kept(photos: Path, own_prepared: Manifest) -> None:
    body = {name: value for name, value in own_prepared.to_json().items() if name != "sha256"} | {"schema": 2}
    path = own_prepared.root / "manifest.json"
    path.write_text(json.dumps({**body, "sha256": json_digest(body)}))
    before = tree(own_prepared.root)

    with pytest.raises(SchemaVersionError, match=rf"{path}: schema 2, this version reads 1. Install the version that"):
        small_build(photos, own_prepared.root.parent)
    assert tree(own_prepared.root) == before
    assert small_build(photos, own_prepared.root.parent, overwrite=True).made == 3


def test_a_journal_of_another_schema_is_refused_and_kept(photos: Path, tmp_path: Path) -> None:
    small_build(photos, tmp_path, partition=(1, 3))
    path = tmp_path / "rgb/journal-1-of-3.jsonl"
    path.write_text(path.read_text().replace('"schema":1', '"schema":2'))
    before = path.read_bytes()

    for options in ({}, {"partition": (1, 3)}, {"partition": (2, 3)}):
        with pytest.raises(SchemaVersionError, match=f"{path}: schema 2, this version reads 1"):
            small_build(photos, tmp_path, **options)
    with pytest.raises(SchemaVersionError):
        merge(tmp_path)
    assert path.read_bytes() == before
    assert small_build(photos, tmp_path, overwrite=True).made == 3


def test_a_damaged_manifest_stops_a_build_but_not_one_that_overwrites(
    photos: Path, prepared: Manifest, own_prepared: Manifest
) -> None:
    path = own_prepared.root / "manifest.json"
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(
        SplitbrainError, match=f"{path}: not readable as JSON .*: sbprep verify {own_prepared.root} --repair"
    ):
        small_build(photos, own_prepared.root.parent)
    small_build(photos, own_prepared.root.parent, overwrite=True)
    assert tree(own_prepared.root) == tree(prepared.root)


def test_classes_that_only_some_splits_know_get_the_same_numbers_in_all(tmp_path: Path) -> None:
    for split, classes in (("train", CLASSES[1:]), ("val", CLASSES[:2])):
        for name in classes:
            write_image(tmp_path / "photos" / split / name / f"{split}.png")
    manifest = small_manifest(tmp_path / "photos", tmp_path / "out")

    assert manifest.label_names == CLASSES
    for split in ("train", "val"):
        listing = sources(manifest, split)
        for index, label in zip(rows(manifest, split, "source_index"), rows(manifest, split, "label"), strict=True):
            assert listing[index].split("/")[1] == CLASSES[label]
