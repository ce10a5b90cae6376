"""Every published number, written out a second time: a digit that slips in the data file fails here."""

import pytest

from sbtrain.presets import load_preset, preset_names
from sbtrain.report.published import published_table, published_tables

#: Shares; in the order of the metrics, then of the rows.
EXPECTED: dict[str, list[tuple[float, ...]]] = {
    "split-brain-1": [
        (0.0943, 0.2343), (0.0301, 0.0988), (0.0958, 0.2479),
        (0.1227, 0.2711), (0.1351, 0.2945), (0.1404, 0.3015),
        (0.1081, 0.2476), (0.1093, 0.2558), (0.1266, 0.2799),
        (0.0653, 0.1815),
    ],
    "split-brain-2": [
        (0.0065, 0.0215), (0.0112, 0.0352), (0.0199, 0.0574), (0.0366, 0.0998), (0.0656, 0.1648), (0.1012, 0.2374),
        (0.1450, 0.3096),
    ],
    "self-classifier": [
        (0.61110, 0.61041, 0.50460, 0.68650), (0.60266, 0.60196, 0.49865, 0.67920),
        (0.41944, 0.41842, 0.28445, 0.46530), (0.48768, 0.48677, 0.34734, 0.52020),
    ],
    "self-classifier-linear": [(0.8789, 0.9983), (0.8838,)],
    "self-classifier-imagenet": [
        (0.712, 0.492, 0.261, 0.373, 0.724), (0.725, 0.516, 0.281, 0.394, 0.735),
        (0.729, 0.523, 0.288, 0.402, 0.742), (0.733, 0.531, 0.295, 0.411, 0.741),
    ],
    "simsiam-cifar10": [(0.8859, 0.8889), (0.8387, 0.8312), (0.7568, 0.7523)],
    "simsiam-stl10": [
        (0.6573,), (0.7023,), (0.8982,), (0.6530,), (0.6984,), (0.9503,),
        (0.5374,), (0.6045,), (0.9626,), (0.5814,), (0.6421,), (0.8731,),
    ],
    "simsiam-celeba": [
        (0.5377, 0.9339, 0.6522, 0.9552, 0.5311, 0.9301, 0.6403, 0.9517),
        (0.5449, 0.9340, 0.6549, 0.9608, 0.5405, 0.9310, 0.6448, 0.9592),
        (0.5898, 0.9391, 0.6690, 0.9634, 0.5826, 0.9369, 0.6622, 0.9617),
        (0.5301, 0.9297, 0.6412, 0.9504, 0.5289, 0.9265, 0.6374, 0.9494),
        (0.5413, 0.9311, 0.6579, 0.9591, 0.5389, 0.9303, 0.6416, 0.9578),
        (0.5910, 0.9440, 0.6804, 0.9671, 0.5841, 0.9487, 0.6723, 0.9623),
    ],
    "split-brain-linear": [
        (0.193, 0.363, 0.442, 0.483, 0.505), (0.116, 0.171, 0.169, 0.163, 0.141), (0.175, 0.230, 0.245, 0.232, 0.206),
        (0.129, 0.201, 0.185, 0.151, 0.115), (0.121, 0.204, 0.197, 0.161, 0.123), (0.125, 0.254, 0.324, 0.331, 0.320),
        (0.123, 0.235, 0.296, 0.311, 0.301), (0.116, 0.192, 0.226, 0.217, 0.192), (0.115, 0.194, 0.235, 0.239, 0.217),
        (0.151, 0.226, 0.244, 0.232, 0.211), (0.154, 0.229, 0.240, 0.220, 0.189), (0.117, 0.237, 0.309, 0.322, 0.313),
        (0.174, 0.279, 0.336, 0.342, 0.323), (0.177, 0.293, 0.354, 0.352, 0.328),
    ],
    "references": [(0.1405,), (0.918,), (0.9051,), (0.72,), (0.887,), (0.9302,)],
    "clustering-references": [(0.903,), (0.883,), (0.411,)],
    "same-data-top5": [(0.61,), (0.65,)],
}  # fmt: skip
#: What each row is found by.
KEYS = {
    "split-brain-1": [
        ("fc-alexnet", "rgb", 5, 2), ("fc-alexnet", "lab", 5, 2), ("fc-alexnet", "rescaled_lab", 5, 2),
        ("resnet18", "rgb", 7, 5), ("resnet18", "lab", 7, 5), ("resnet18", "rescaled_lab", 7, 5),
        ("simplenet", "rgb", 11, 5), ("simplenet", "lab", 11, 5), ("simplenet", "rescaled_lab", 11, 5),
        ("autoencoder", "rgb", None, 5),
    ],
    "split-brain-2": [("resnet18", "rescaled_lab", None, None)] * 7,
    "self-classifier": [
        ("resnet18", None, 100, None), ("resnet18", None, 100, None), ("alexnet", None, 100, None),
        ("alexnet", None, 200, None),
    ],
    "simsiam-stl10": [
        (network, None, None, None) for network in ("resnet18", "efficientnet_b0", "vit_small_2021", "pit_ti")
        for _ in range(3)
    ],
}  # fmt: skip


def test_every_table_is_written_out_here() -> None:
    assert [table.id for table in published_tables() if table.id not in EXPECTED] == []
    assert len(published_tables()) == len(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_every_digit_is_the_published_one(name: str) -> None:
    table = published_table(name)

    assert [tuple(row.values[m] for m in table.metrics if m in row.values) for row in table.rows] == EXPECTED[name]


@pytest.mark.parametrize("name", KEYS)
def test_every_row_is_of_its_network_color_space_and_epochs(name: str) -> None:
    rows = published_table(name).rows

    names = ("network", "colorspace", "epochs", "finetune_epochs")
    assert [tuple(row.keys.get(key) for key in names) for row in rows] == KEYS[name]


def test_lines_of_few_labels_and_heads_and_starts_are_told_apart() -> None:
    assert [row.keys["samples"] for row in published_table("split-brain-2").rows] == [1, 2, 4, 8, 16, 32, 64]
    assert [row.keys["hidden"] for row in published_table("self-classifier").rows] == [1, 2, 2, 2]
    starts = [
        row.keys.get("start") for name in ("simsiam-cifar10", "simsiam-stl10") for row in published_table(name).rows
    ]
    assert starts == [None, "random", "none", *(["none", None, "imagenet"] * 4)]


def test_each_preset_on_a_data_set_of_the_simsiam_report_is_of_one_table_of_its_networks() -> None:
    presets = [name for name in preset_names() if load_preset(name).config.method == "simsiam"]
    found = {name: [table for table in published_tables() if name.startswith(table.presets)] for name in presets}

    assert [name for name, tables in found.items() if len(tables) != 1] == ["paper/simsiam-imagenet"]
    for name, tables in found.items():
        networks = [row.keys["network"] for table in tables for row in table.rows]
        assert not networks or load_preset(name).config.network.startswith(tuple(networks))
    used = [each for table in published_tables() for each in table.presets]
    assert [each for each in used if not any(name.startswith(each) for name in presets)] == []


@pytest.mark.parametrize(
    ("name", "caveat"),
    [("self-classifier", "marked epoch 250"), ("simsiam-stl10", "chose models by the test images")],
)
def test_what_weakens_a_published_number_is_said_with_its_source(name: str, caveat: str) -> None:
    assert caveat in published_table(name).source


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"frozen": True}, "other protocol"),
        ({"part": True}, "other data"),
        ({"train_images": 6400, "frozen": True}, "other data, other protocol"),
        ({"eval_images": 1000}, "other data"),
        ({"classes": 10}, "other data"),
    ],
)
def test_other_data_and_another_protocol_are_told(changes: dict[str, object], said: str) -> None:
    judged = {"classes": 1000, "train_images": 64000, "used_images": 1000, "eval_images": 64000, "frozen": False}

    assert published_table("split-brain-1").other({**judged, **changes}) == said


def test_a_fold_of_the_labels_is_other_data() -> None:
    judged = {"classes": 10, "train_images": 5000, "used_images": 1000, "eval_images": 8000, "frozen": False}

    assert published_table("simsiam-stl10").other(judged) == "other data"
    assert published_table("simsiam-stl10").other({**judged, "used_images": 5000}) == ""
