"""Which class was taken for which is counted while a classifier is judged, and kept with its result."""

import json
from pathlib import Path

import numpy as np
import torch

from labeled_sets import results
from sbtrain.evaluation.confusion import PAIRS, WHOLE, Confusion

CPU = torch.device("cpu")


def counted(names: list[str], predicted: list[int], labels: list[int]) -> Confusion:
    confusion = Confusion(names, CPU)
    confusion.add(torch.tensor(predicted), torch.tensor(labels))
    return confusion


def test_counts_are_by_true_and_predicted_class() -> None:
    confusion = counted(["cat", "dog"], [0, 1, 1], [0, 0, 1])

    assert confusion.to_json() == {"classes": ["cat", "dog"], "counts": [[1, 1], [0, 1]]}


def test_counts_add_up_over_batches() -> None:
    confusion = counted(["cat", "dog"], [0], [1])
    confusion.add(torch.tensor([0]), torch.tensor([1]))

    assert confusion.to_json()["counts"] == [[0, 0], [2, 0]]


def test_of_many_classes_the_most_confused_pairs_are_kept() -> None:
    names = [f"c{i}" for i in range(WHOLE + 1)]
    confusion = counted(names, [7, 7, 7, 100, 3], [5, 5, 9, 100, 3])

    assert confusion.to_json() == {
        "pairs": [
            {"true": "c5", "predicted": "c7", "count": 2, "of": 2},
            {"true": "c9", "predicted": "c7", "count": 1, "of": 1},
        ]
    }


def test_no_more_pairs_are_kept_than_a_page_can_use() -> None:
    n = WHOLE + 1
    labels = np.repeat(np.arange(n), 2).tolist()
    predicted = [(label + 1) % n for label in labels]

    assert len(counted([str(i) for i in range(n)], predicted, labels).to_json()["pairs"]) == PAIRS


def test_a_result_keeps_the_confusion_of_the_fit_on_most_samples(own_run: Path, few: Path) -> None:
    result = results(own_run, few / "lab", freeze=True).to_json()

    confusion, fit = result["confusion"], result["fits"][-1]
    assert (confusion["samples_per_class"], confusion["draw"]) == ("2", 1)
    assert np.trace(np.array(confusion["counts"])) / 12 == fit["top1"]


def test_a_result_of_before_goes_on_without_a_confusion(own_run: Path, few: Path) -> None:
    path = results(own_run, few / "lab", freeze=True).path
    data = json.loads(path.read_text())
    del data["confusion"]
    path.write_text(json.dumps(data))

    assert "confusion" not in results(own_run, few / "lab", freeze=True).to_json()
    assert results(own_run, few / "lab", freeze=True, draws=3).to_json()["confusion"]["draw"] == 2
