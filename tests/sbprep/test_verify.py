"""Every flipped bit is found and named, and mended from the images."""

import json
import random
import re
import shutil
from pathlib import Path

import pytest

from builds import small_build, small_manifest, tree, unfinished, write_images
from sbformat.errors import BuildError, ManifestError, SchemaVersionError, SourceError
from sbformat.manifest import Manifest
from sbprep.verify import Damage, config_from_manifest, find_damage, mend_manifest, repair

FLIPS = 1000
MENDED = 20


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A set with labels, ranges, two splits, two chunks in a shard and some rejects. Not to be changed."""
    root = tmp_path_factory.mktemp("sound")
    write_images(root / "photos", 75, "train")
    write_images(root / "photos", 10, "val")
    for number in range(3):
        (root / f"photos/val/cat/bad{number}.png").write_bytes(b"no image")
    options = {"images_per_shard": 70, "workers": 1}
    manifest = small_build(root / "photos", root / "out", "rescaled_lab", **options).manifests["rescaled_lab"]
    assert manifest is not None
    return manifest


@pytest.fixture
def own(sound: Manifest, tmp_path: Path) -> Manifest:
    """Return a copy of `sound` that the test may damage."""
    return Manifest.read(shutil.copytree(sound.root, tmp_path / "out/rescaled_lab"))


def flip(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def expected_place(manifest: Manifest, path: Path, offset: int) -> str:
    """Say which chunk of which dataset the byte at `offset` of a shard belongs to, from the manifest's own table."""
    split = path.parent.name
    (record,) = (shard for shard in manifest.splits[split].shards if shard.name == path.name)
    for name, spec in manifest.datasets(split).items():
        table = record.chunks(name)
        for chunk in range(len(table)):
            start, size = table.extent(chunk, spec.row_bytes)
            if start <= offset < start + size:
                last = min((chunk + 1) * table.rows, record.count) - 1
                return f"{name} chunk {chunk} (images {chunk * table.rows} to {last})"
    return "HDF5 structure (outside every chunk; the images themselves are sound)"


def test_a_sound_set_has_no_damage(sound: Manifest) -> None:
    assert list(find_damage(sound)) == []
    assert list(find_damage(sound, workers=3)) == []


def test_each_of_a_thousand_flipped_bits_is_found_and_named(own: Manifest) -> None:
    # Files are drawn evenly, not by size, or nearly every flip would be in the images of one shard.
    rng = random.Random(0)
    files = sorted(path for path in own.root.rglob("*") if path.is_file())
    assert {path.name for path in files} >= {"manifest.json", "sources.txt", "rejects.jsonl", "shard-00001.h5"}
    silent = []
    for _ in range(FLIPS):
        path = rng.choice([path for path in files if path.stat().st_size])
        bit = rng.randrange(path.stat().st_size * 8)
        flip(path, bit)
        if path.name == "manifest.json":
            found = _manifest_damage(own.root)
        else:
            found = [str(place) for place in find_damage(own)]
        if path.suffix == ".h5":
            expected = [f"{path}: {expected_place(own, path, bit // 8)}"]
        else:
            expected = [line for line in found if line.startswith(f"{path}: ")]
        if found != expected or len(found) != 1:
            silent.append((path.name, bit, found, expected))
        flip(path, bit)

    assert silent == []
    assert list(find_damage(own)) == []


def _manifest_damage(root: Path) -> list[str]:
    try:
        return [str(place) for place in find_damage(Manifest.read(root))]
    except ManifestError as error:
        return [str(error)]


def test_flipped_bits_are_mended_to_the_byte(sound: Manifest, own: Manifest) -> None:
    rng = random.Random(1)
    whole = tree(sound.root)
    names = [name for name in whole if name != "manifest.json" and (sound.root / name).stat().st_size]
    drawn = ["train/sources.txt", "val/rejects.jsonl", *rng.choices(names, k=MENDED - 2)]
    for name in drawn:
        path = own.root / name
        flip(path, rng.randrange(path.stat().st_size * 8))
        damage = list(find_damage(own))
        repair(own, damage, workers=1)

        assert [place.path for place in damage] == [path]
        assert tree(own.root) == whole


def test_all_that_is_damaged_is_mended_at_once_and_nothing_else_is_made(sound: Manifest, own: Manifest) -> None:
    flip(own.root / "train/shard-00001.h5", 80_000)
    (own.root / "val/shard-00000.h5").unlink()
    (own.root / "train/sources.txt").unlink()
    damage = list(find_damage(own))

    assert {key for place in damage for key in place.keys} == {("train", 1), ("val", 0)}
    assert repair(own, damage, workers=1) == 2
    assert tree(own.root) == tree(sound.root)


def test_a_set_is_mended_from_within(own: Manifest, sound: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(own.root / "train/shard-00001.h5", 80_000)
    monkeypatch.chdir(own.root)
    here = Manifest.read(Path())

    assert repair(here, list(find_damage(here)), workers=1) == 1
    assert tree(own.root) == tree(sound.root)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("train/shard-00000.h5", "missing, the manifest lists it. Rebuild it: sbprep verify --repair"),
        ("train/sources.txt", "not readable (No such file or directory)"),
    ],
)
def test_a_file_that_is_gone_is_named(own: Manifest, name: str, what: str) -> None:
    (own.root / name).unlink()
    (place,) = find_damage(own)

    assert str(place).startswith(f"{own.root / name}: {what}")


def test_a_shard_that_is_cut_is_named_with_both_sizes(own: Manifest) -> None:
    path = own.root / "train/shard-00000.h5"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-7])
    (place,) = find_damage(own)

    assert f"{size - 7:,} bytes, the manifest says {size:,}" in place.what


def test_several_damaged_chunks_are_all_named(own: Manifest) -> None:
    path = own.root / "train/shard-00000.h5"
    table = own.splits["train"].shards[0].chunks("image")
    for chunk in (0, 1):
        flip(path, (table.offset + chunk * table.stride) * 8)

    assert [place.what for place in find_damage(own)] == [
        "image chunk 0 (images 0 to 63)",
        "image chunk 1 (images 64 to 69)",
    ]


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_at_either_end_of_the_manifest_is_an_error(own: Manifest, bit: int) -> None:
    path = own.root / "manifest.json"
    last = path.stat().st_size - 1
    for byte in (0, last - 1):
        flip(path, byte * 8 + bit)
        with pytest.raises(ManifestError, match=f"{path}: "):
            Manifest.read(own.root)
        flip(path, byte * 8 + bit)


def test_a_manifest_with_another_value_says_damaged_or_edited_and_what_to_do(own: Manifest) -> None:
    path = own.root / "manifest.json"
    path.write_text(path.read_text().replace('"listed":75', '"listed":74'))

    with pytest.raises(ManifestError, match=r"damaged or edited. Restore it .*: sbprep verify \S+ --repair"):
        Manifest.read(own.root)


def test_a_manifest_that_spells_the_same_values_otherwise_is_damage_and_mended(sound: Manifest, own: Manifest) -> None:
    path = own.root / "manifest.json"
    content = path.read_text()
    number = re.search(r"\d+\.\d{3,}", content)
    assert number is not None
    path.write_text(content.replace(number[0], number[0] + "0", 1))
    damage = list(find_damage(Manifest.read(own.root)))

    assert [str(place) for place in damage] == [
        f"{path}: spelled otherwise than sbprep writes it, with the same values"
    ]
    assert repair(own, damage, workers=1) == 0
    assert tree(own.root) == tree(sound.root)


@pytest.mark.parametrize("name", ["manifest.json", ".manifest.copy.json"])
def test_any_flipped_bit_of_the_manifest_or_its_copy_is_mended_from_the_other(
    sound: Manifest, own: Manifest, name: str
) -> None:
    rng, whole, path = random.Random(2), tree(sound.root), own.root / name
    for _ in range(100):
        flip(path, rng.randrange(path.stat().st_size * 8))

        assert mend_manifest(own.root) == [path]
        assert tree(own.root) == whole
    assert mend_manifest(own.root) == []


def test_a_damaged_copy_of_the_manifest_is_named(own: Manifest) -> None:
    path = own.root / ".manifest.copy.json"
    path.write_bytes(path.read_bytes()[:-1])

    assert [str(place) for place in find_damage(own)] == [f"{path}: differs from manifest.json, which is sound"]


def test_a_set_without_a_copy_of_its_manifest_is_sound_and_gets_one_when_mended(sound: Manifest, own: Manifest) -> None:
    path = own.root / ".manifest.copy.json"
    path.unlink()

    assert list(find_damage(own)) == []
    assert mend_manifest(own.root) == [path]
    assert tree(own.root) == tree(sound.root)


@pytest.mark.parametrize(("copy", "what"), [(b"{}", "damaged too"), (None, "not there")])
def test_a_manifest_without_a_whole_copy_is_left_alone_and_the_cost_is_said(
    own: Manifest, copy: bytes | None, what: str
) -> None:
    path = own.root / ".manifest.copy.json"
    path.unlink() if copy is None else path.write_bytes(copy)
    flip(own.root / "manifest.json", 0)
    before = tree(own.root)

    with pytest.raises(ManifestError, match=rf"copy {path.name} is {what}; .* 3 shard files .* may be sound, .*backup"):
        mend_manifest(own.root)
    assert tree(own.root) == before


def test_a_set_of_another_schema_is_not_called_damaged(own: Manifest) -> None:
    for name in ("manifest.json", ".manifest.copy.json"):
        path = own.root / name
        path.write_text(path.read_text().replace('"schema":1', '"schema":2'))

    with pytest.raises(SchemaVersionError, match=r"schema 2, this version reads 1. Install the version that wrote it"):
        mend_manifest(own.root)


def test_an_interrupted_repair_leaves_damage_to_find_and_goes_on(
    sound: Manifest, own: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(own.root / "val/rejects.jsonl", 0)
    for number in range(2):
        flip(own.root / f"train/shard-0000{number}.h5", 80_000)
    damage = list(find_damage(own))

    def stop(progress: object) -> None:
        if progress.shards == 1:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repair(own, damage, 1, stop)
    damage = list(find_damage(own))
    assert own.root / "val/rejects.jsonl" in {place.path for place in damage}
    repair(own, damage, workers=1)
    assert tree(own.root) == tree(sound.root)
    assert unfinished(own.root) == []


def test_repair_without_the_images_says_where_they_should_be(prepared: Manifest, tmp_path: Path) -> None:
    photos = shutil.copytree(prepared.splits["train"].source["path"], tmp_path / "photos")
    manifest = small_manifest(photos, tmp_path / "out")
    shutil.rmtree(photos)
    place = Damage(path=manifest.root, what="", keys=(("train", 0),))

    with pytest.raises(SourceError, match=f"{photos}: the images are not there"):
        repair(manifest, [place], workers=1)


def test_repair_with_other_images_changes_nothing(own_photos: Path, tmp_path: Path) -> None:
    manifest = small_manifest(own_photos, tmp_path / "out")
    for path in own_photos.rglob("*.png"):
        path.write_bytes(b"x" * path.stat().st_size)
    flip(manifest.root / "train/shard-00001.h5", 80_000)
    before = tree(manifest.root)

    with pytest.raises(BuildError, match=r"shard-00001.h5: made again it differs from what the manifest says"):
        repair(manifest, list(find_damage(manifest)), workers=1)
    assert {name: digest for name, digest in tree(manifest.root).items() if "journal" not in name} == before


def test_a_renamed_folder_is_verified_but_not_mended(prepared: Manifest, tmp_path: Path) -> None:
    manifest = Manifest.read(shutil.copytree(prepared.root, tmp_path / "renamed"))

    assert list(find_damage(manifest)) == []
    with pytest.raises(BuildError, match=r"the folder was renamed. Name it rgb again"):
        config_from_manifest(manifest)


def test_the_options_of_a_build_come_back_from_its_manifest(photos: Path, tmp_path: Path) -> None:
    options = {"resize": "squash", "seed": 4, "limit": 30, "compression": "zstd", "images_per_shard": 12}
    manifest = small_manifest(photos, tmp_path, **options)
    config = config_from_manifest(manifest, workers=1)

    assert {name: getattr(config, name) for name in options} == options
    assert config.recipe() == {
        "image_size": 16,
        "target": json.loads(json.dumps(manifest.target.to_json())),
        **manifest.recipe,
    }
    assert config.paths == {"source": photos}
    assert list(find_damage(manifest)) == []


def test_a_flipped_bit_in_a_compressed_set_is_found_and_mended(photos: Path, tmp_path: Path) -> None:
    manifest = small_manifest(photos, tmp_path, compression="zstd")
    whole = tree(manifest.root)
    offset, _ = manifest.splits["train"].shards[2].chunks("label").extent(0, 4)
    flip(manifest.root / "train/shard-00002.h5", offset * 8)
    damage = list(find_damage(manifest))
    repair(manifest, damage, workers=1)

    assert [place.what for place in damage] == ["label chunk 0 (images 0 to 7)"]
    assert tree(manifest.root) == whole


def test_the_builtin_set_is_mended_without_any_path(tmp_path: Path) -> None:
    manifest = small_manifest(None, tmp_path, limit=5)
    whole = tree(manifest.root)
    (manifest.root / "unlabeled/shard-00000.h5").unlink()
    repair(manifest, list(find_damage(manifest)), workers=1)

    assert tree(manifest.root) == whole
