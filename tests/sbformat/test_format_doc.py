"""docs/format.md is normative: its tables equal the code, its examples run, its reason codes are those in use."""

import ast
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sbformat import permutation
from sbformat.manifest import COPY_NAME, MANIFEST_NAME, Manifest, ShardRecord, SplitManifest, open_manifest
from sbformat.permutation import permute
from sbformat.schema import (
    ALIGNMENT,
    CHANNELS,
    CHUNK_IMAGES,
    COLORSPACES,
    FORMAT_NAME,
    IMAGES_PER_SHARD,
    LAB_RANGE,
    RGB_RANGE,
    SCHEMA_VERSION,
    SPLITS,
    STORED_OFFSET,
    STORED_SCALE,
    ZHANG_DUAL_BINS,
    ZHANG_SINGLE_BINS,
    Colorspace,
    TargetSpec,
    attribute_label,
    class_label,
    shard_datasets,
    values_from_bins,
    values_from_image,
    zhang_centers,
)
from sbformat.shard import open_shard
from sbprep.config import BuildConfig
from sbprep.convert import CONSTANT_SPAN
from sbprep.decode import write_png
from sbprep.pipeline import build
from sbprep.store import REJECTS_NAME, SOURCES_NAME
from sbprep.writer import ZSTD_FILTER

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "format.md"
TEXT = DOC.read_text()
TARGET = TargetSpec(size=3)
NAMES = ["empty.png", "two\nlines.png", "back\\slash.png", "return\r.png", "größe\x85.png", "\\n.png"]


def table(first_column: str, text: str = TEXT) -> list[list[str]]:
    """Cells, without back quotes, of the one table whose header begins with `first_column`."""
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith(f"| {first_column} |")]
    assert len(starts) == 1, f"{len(starts)} tables begin with {first_column!r}"
    rows = []
    for line in lines[starts[0] + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
    return rows


def section(title: str) -> str:
    """Text under a heading, up to the next heading of its level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section {title}"
    return found[2]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


# ------------------------------------------------------------------------------------------------------- tables


def test_constants_are_those_of_the_code() -> None:
    assert [value for _, value in table("constant")] == [
        FORMAT_NAME,
        str(SCHEMA_VERSION),
        str(CHUNK_IMAGES),
        str(ALIGNMENT),
        str(IMAGES_PER_SHARD),
        str(ZSTD_FILTER),
        str(CONSTANT_SPAN),
    ]
    assert f"schema {SCHEMA_VERSION}" in TEXT.splitlines()[0]


def test_color_spaces_and_splits_are_those_of_the_code() -> None:
    folders = section("Folders")

    assert re.findall(r"`(\w+)`", next(line for line in folders.splitlines() if line.startswith("Color spaces"))) == [
        *COLORSPACES
    ]
    assert re.findall(r"`(\w+)`", next(line for line in folders.splitlines() if line.startswith("Splits"))) == [*SPLITS]
    assert {COPY_NAME, MANIFEST_NAME, SOURCES_NAME, REJECTS_NAME} <= set(
        re.findall(r"[\w.]+\.jsonl?|[\w.]+\.txt", folders)
    )


@pytest.mark.parametrize("colorspace", COLORSPACES)
@pytest.mark.parametrize("label_kind", [None, "class", "attribute"])
@pytest.mark.parametrize("target", [TargetSpec(size=5, single=256, dual=17), TargetSpec(size=7, single=257, dual=16)])
def test_datasets_are_those_of_the_schema(colorspace: Colorspace, label_kind: str | None, target: TargetSpec) -> None:
    label = {None: None, "class": class_label(), "attribute": attribute_label(40)}[label_kind]
    sizes = {"S": 96, "t": target.size, "A": 40, "3": 3, "2": 2}
    documented = {}
    for name, dtype, row, where, _ in table("dataset"):
        if where in ("always", colorspace, f"label kind {label_kind}"):
            classes = {"target_single": target.single_classes, "target_dual": target.dual_classes}.get(name)
            chosen = (
                dtype if classes is None else dict(zip((False, True), dtype.split(" or "), strict=True))[classes > 256]
            )
            shape = tuple(sizes[axis] for axis in re.findall(r"\w+", row))
            documented[name] = (np.dtype(f"<{chosen}"), shape)

    schema = shard_datasets(colorspace, 96, target, label)
    assert documented == {name: (spec.dtype, spec.row_shape) for name, spec in schema.items()}


def test_encodings_and_ranges_are_those_of_the_schema() -> None:
    expected = [
        [space, CHANNELS[space][c], *span[c], STORED_SCALE[space][c], STORED_OFFSET[space][c]]
        for space, span in (("rgb", RGB_RANGE), ("lab", LAB_RANGE))
        for c in range(3)
    ]

    assert [[*row[:2], *map(float, row[2:])] for row in table("color space")] == expected


def test_zhang_classes_are_those_of_the_schema() -> None:
    rows = [[int(cell) for cell in row] for row in table("a")]
    points = [[a, b] for a, lowest, highest, _ in rows for b in range(lowest, highest + 1, 10)]

    assert points == zhang_centers().tolist()
    assert all(points.index([a, lowest]) == first for a, lowest, _, first in rows)
    assert f"has {ZHANG_DUAL_BINS} classes" in TEXT
    assert f"has {ZHANG_SINGLE_BINS} classes" in TEXT


def test_places_of_the_permutation_are_right() -> None:
    for n, key, first, places in table("n"):
        expected = [int(place) for place in places.split()]
        index = np.arange(int(first), int(first) + len(expected))
        assert permute(index, int(n), *map(int, key.split())).tolist() == expected


def test_intermediate_numbers_of_the_permutation_are_right() -> None:
    state, first = (int(number, 16) for number in re.findall(r"0x[0-9a-f]{16}\b", section("Order"))[-2:])
    golden = 0x9E3779B97F4A7C15

    assert permutation._mix_int((1 + golden) ^ 0) == state
    assert permutation._mix_int(state + golden) == first


def members(first_column: str) -> set[str]:
    return {name for row in table(first_column) for name in row[0].split(", ")}


def test_members_of_the_manifest_are_those_that_are_written(built: Path) -> None:
    data = json.loads((built / "data_cache" / "rescaled_lab" / MANIFEST_NAME).read_text())
    split = data["splits"]["train"]
    shard = split["shards"][0]

    manifest_members = table_in("manifest.json", "member")
    assert manifest_members == set(data)
    assert members("member of a split") == set(split)
    assert members("member of a shard record") == set(shard)
    assert table_in("Statistics", "member") == set(split["statistics"])
    assert table_in("Chunks", "member") == {*shard["datasets"]["image"], "offsets", "sizes"}


def table_in(title: str, first_column: str) -> set[str]:
    """Members that the table of one section lists."""
    text = section(title)
    text = text.split("\n### ")[0]
    return {name for row in table(first_column, text) for name in row[0].split(", ")}


def test_members_of_the_recipe_and_the_target_are_named(built: Path) -> None:
    data = json.loads((built / "data_cache" / "rescaled_lab" / MANIFEST_NAME).read_text())
    rows = {row[0]: row[1] for row in table("member", section("manifest.json").split("\n### ")[0])}

    for member in ("recipe", "target", "provenance"):
        assert {name for name in data[member] if not re.search(rf"\b{name}\b", rows[member])} == set()


def test_members_of_a_reject_are_those_that_are_written(listed: Path) -> None:
    text = section("rejects.jsonl")
    example = json.loads(next(line for line in text.splitlines() if line.startswith("    {")))
    (written,) = map(json.loads, (listed / REJECTS_NAME).read_text().splitlines())

    assert [row[0] for row in table("member", text)] == list(example) == list(written)


def test_lines_of_the_listing_are_escaped_as_the_page_says(listed: Path) -> None:
    lines = (listed / SOURCES_NAME).read_bytes().decode().split("\n")
    names = [re.sub(r"\\(.)", lambda match: {"n": "\n", "r": "\r"}.get(match[1], match[1]), line) for line in lines]

    assert names == [*sorted(NAMES), ""]
    assert not any("\r" in line for line in lines)


def test_a_reject_is_on_the_line_that_it_says(listed: Path) -> None:
    (reject,) = map(json.loads, (listed / REJECTS_NAME).read_text().splitlines())

    assert sorted(NAMES)[reject["source_index"]] == reject["path"] == "empty.png"
    assert (reject["code"], reject["shard"]) == ("empty", "shard-00000.h5")


def test_digests_of_the_listings_are_sha256(listed: Path) -> None:
    files = open_manifest(listed.parents[1]).splits["unlabeled"].files

    assert files == {name: hashlib.sha256((listed / name).read_bytes()).hexdigest() for name in files}
    assert set(files) == {SOURCES_NAME, REJECTS_NAME}


# ------------------------------------------------------------------------------------------------- reason codes


def constants_of(node: ast.expr, function: ast.AST) -> Iterator[str]:
    """Strings that an expression can be: a literal, a choice of literals, or a name that is given such in `function`."""
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.IfExp):
        yield from constants_of(node.body, function)
        yield from constants_of(node.orelse, function)
    elif isinstance(node, ast.Name):
        values = [
            assignment.value
            for assignment in ast.walk(function)
            if isinstance(assignment, ast.Assign) and ast.unparse(assignment.targets[0]) == node.id
        ]
        assert values, f"line {node.lineno}: {node.id} gets its value elsewhere, so its codes cannot be found"
        for value in values:
            yield from constants_of(value, function)
    else:
        assert ast.unparse(node) == "bad.code", f"line {node.lineno}: cannot tell the code {ast.unparse(node)}"


def codes_in(tree: ast.Module) -> set[str]:
    """Codes of every `Rejected` and `BadImage` that a module makes."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    codes = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("Rejected", "BadImage"):
            code = next((keyword.value for keyword in node.keywords if keyword.arg == "code"), None) or node.args[0]
            around: ast.AST = next((f for f in functions if node in ast.walk(f)), tree)
            codes |= set(constants_of(code, around))
    return codes


def test_reason_codes_are_those_in_use() -> None:
    used = set()
    for path in sorted((ROOT / "preprocess" / "sbprep").rglob("*.py")):
        used |= codes_in(ast.parse(path.read_text()))

    assert [row[0] for row in table("code")] == list(dict.fromkeys(row[0] for row in table("code")))
    assert {row[0] for row in table("code")} == used


def test_the_search_for_reason_codes_finds_every_way_to_say_one() -> None:
    code = """
def one(error):
    code = "vanished" if error else "unreadable"
    return Rejected(code, "…")
def two(tiff):
    raise headers.BadImage(code="truncated" if tiff else "damaged", detail="…")
TABLE = {1: Rejected("encrypted", "…")}
"""
    assert codes_in(ast.parse(code)) == {"vanished", "unreadable", "truncated", "damaged", "encrypted"}


# ----------------------------------------------------------------------------------------------------- examples


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small data_cache of the built-in set."""
    folder = tmp_path_factory.mktemp("docs")
    config = BuildConfig(
        colorspaces=("rescaled_lab",),
        out=folder / "data_cache",
        image_size=16,
        target=TARGET,
        images_per_shard=8,
        limit=12,
        workers=1,
        backend="threading",
    )
    build(config)
    return folder


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a split built from files with awkward names, one of them empty."""
    folder = tmp_path_factory.mktemp("listed")
    (folder / "photos").mkdir()
    for name in NAMES:
        write_png(folder / "photos" / name, np.full((8, 8, 3), 100, np.uint8))
    (folder / "photos" / "empty.png").write_bytes(b"")
    paths = {"unlabeled": folder / "photos"}
    config = BuildConfig(
        colorspaces=("rgb",), paths=paths, out=folder, image_size=8, target=TARGET, workers=1, backend="threading"
    )
    build(config)
    return folder / "rgb" / "unlabeled"


@pytest.fixture(scope="module")
def example(built: Path) -> dict[str, Any]:
    """Names that the Python examples of the page leave, run one after another as they stand."""
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(built)
        for block in blocks("python"):
            exec(compile(block, str(DOC), "exec"), names)
    return names


@pytest.fixture
def opened(built: Path) -> Iterator[tuple[Manifest, SplitManifest, ShardRecord, dict[str, np.ndarray]]]:
    """The same data by the reader of the project: the first shard of the training split."""
    manifest = open_manifest(built / "data_cache")
    split = manifest.splits["train"]
    with open_shard(manifest, "train", split.shards[0]) as shard:
        yield manifest, split, split.shards[0], {name: shard.array(name) for name in shard.datasets}


def test_every_example_of_the_page_is_run(example: dict[str, Any]) -> None:
    assert len(blocks("python")) == TEXT.count("```python") == 7
    assert {"image", "mapped", "images", "lab", "a_mean", "text", "permute"} <= set(example)


def test_the_h5py_example_gives_the_stored_arrays(example: dict[str, Any], built: Path) -> None:
    manifest = open_manifest(built / "data_cache")
    last = manifest.splits["train"].shards[-1]
    with open_shard(manifest, "train", last) as shard:
        assert (example["image"] == shard.array("image")).all()
        assert (example["label"] == shard.array("label")).all()


def test_the_examples_without_hdf5_give_the_stored_arrays(example: dict[str, Any], opened: Any) -> None:
    *_, arrays = opened

    assert (example["mapped"] == arrays["image"]).all()
    assert (example["images"] == arrays["image"]).all()
    assert (example["image_range"] == arrays["image_range"]).all()
    assert (example["dual_classes"] == arrays["target_dual"]).all()


def test_the_decoding_example_gives_the_values_of_the_schema(example: dict[str, Any], opened: Any) -> None:
    *_, arrays = opened

    assert (example["lab"] == values_from_image(arrays["image"], "rescaled_lab", arrays["image_range"])).all()


def test_the_target_example_gives_the_values_of_the_schema(example: dict[str, Any], opened: Any) -> None:
    *_, arrays = opened
    values = values_from_bins(arrays["target_single"], arrays["target_dual"], arrays["target_range"], TARGET)

    assert np.abs(example["a_mean"] - values[:, 1]).max() < 1e-4


def test_the_reading_example_reads_compressed_shards_and_gaps(example: dict[str, Any], tmp_path: Path) -> None:
    config = BuildConfig(
        colorspaces=("lab",), out=tmp_path, image_size=20, target=TARGET, limit=3, workers=1, compression="zstd"
    )
    for out, compression in ((tmp_path / "zstd", "zstd"), (tmp_path / "none", "none")):
        options = {**vars(config), "out": out, "compression": compression, "backend": "threading"}
        manifest = build(BuildConfig(**options)).manifests["lab"]
        assert manifest is not None
        record = manifest.splits["val"].shards[0]
        with open_shard(manifest, "val", record) as shard:
            for name, spec in shard.datasets.items():
                rows = example["read"](shard.path, record.datasets[name], record.count, spec.dtype, spec.row_shape)
                assert (rows == shard.array(name)).all()


def test_the_program_of_the_permutation_is_the_permutation(example: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(1, 2 ** int(rng.integers(1, 63))))
        key = tuple(int(word) for word in rng.integers(-(2**63), 2**63 - 1, rng.integers(0, 4)))
        index = int(rng.integers(0, n))
        assert example["permute"](index, n, *key) == permute(index, n, *key)


def test_shards_hold_the_images_in_the_order_of_the_page(example: dict[str, Any], opened: Any) -> None:
    manifest, split, _, arrays = opened
    seed = manifest.recipe["seed"]

    assert arrays["source_index"].tolist() == [example["permute"](p, split.listed, seed) for p in range(8)]


def test_the_manifest_of_the_page_is_real(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text(blocks("json")[0])
    manifest = Manifest.read(tmp_path)

    assert manifest.splits["train"].images == 3
    assert list(manifest.datasets("train")) == list(manifest.splits["train"].shards[0].datasets)


def test_links_lead_to_pages_that_are_there() -> None:
    for page in ("format.md", "color.md"):
        for link in re.findall(r"\]\(([^)#:]+)", (ROOT / "docs" / page).read_text()):
            assert (ROOT / "docs" / link).exists(), f"{page} links to {link}"
