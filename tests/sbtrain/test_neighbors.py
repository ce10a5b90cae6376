"""Nearest neighbors: the numbers of scikit-learn, the same whatever the blocks, ties broken by rule."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from sbtrain.evaluation import neighbors
from sbtrain.evaluation.neighbors import VOTES, Bank, Vote, judge, top_hits

Q = 7


def clusters(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (count, 16) around seven centers, and their classes."""
    centers = torch.randn(Q, 16, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, Q, (count,), generator=generator)
    return centers[labels] * 0.4 + torch.randn(count, 16, generator=generator), labels


BANK, BANK_LABELS = clusters(400, 1)
QUERIES, LABELS = clusters(150, 2)


def sklearns(vote: Vote) -> KNeighborsClassifier:
    def weights(distance: np.ndarray) -> np.ndarray:
        return np.exp((1 - distance) / vote.temperature)

    kind = "uniform" if vote.temperature is None else weights
    model = KNeighborsClassifier(vote.k, weights=kind, metric="cosine", algorithm="brute")
    return model.fit(BANK.double().numpy(), BANK_LABELS.numpy())


@pytest.mark.parametrize("vote", VOTES, ids=lambda vote: f"k={vote.k}")
def test_votes_agree_with_scikit_learn(vote: Vote) -> None:
    bank = Bank(BANK, BANK_LABELS, Q)
    scores = bank.scores(*bank.nearest(QUERIES, vote.k), vote).double()

    expected = sklearns(vote).predict_proba(QUERIES.double().numpy())

    np.testing.assert_allclose((scores / scores.sum(1, keepdim=True)).numpy(), expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(scores.argmax(1).numpy(), sklearns(vote).predict(QUERIES.double().numpy()))


@pytest.mark.parametrize("vote", VOTES, ids=lambda vote: f"k={vote.k}")
def test_shares_agree_with_scikit_learn(vote: Vote) -> None:
    chances = sklearns(vote).predict_proba(QUERIES.double().numpy())
    order = np.argsort(-chances, axis=1, kind="stable")
    order = np.where(np.take_along_axis(chances, order, 1) > 0, order, -1)
    hits = order == LABELS.numpy()[:, None]

    ((top1, top5),) = judge(Bank(BANK, BANK_LABELS, Q), QUERIES, LABELS, [vote])

    assert top1 == hits[:, 0].mean()
    assert top5 == hits[:, :5].any(1).mean()


def test_neighbors_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Bank(BANK, BANK_LABELS, Q)
    _, rows = whole.nearest(QUERIES, 30)
    shares = judge(whole, QUERIES, LABELS)

    for name, size in (("ROWS", 33), ("QUERIES", 7), ("TABLE", 1000)):
        monkeypatch.setattr(neighbors, name, size)
    small = Bank(BANK, BANK_LABELS, Q)

    assert torch.equal(small.nearest(QUERIES, 30)[1], rows)
    assert judge(small, QUERIES, LABELS) == shares


def test_the_most_similar_come_first_and_of_equals_the_earlier_row() -> None:
    bank = Bank(torch.tensor([[-1.0, 0], [0, 0], [0, 1], [3, 0], [1, 0], [0, -2]]), torch.arange(6), 6)

    similarity, rows = bank.nearest(torch.tensor([[2.0, 0]]), 6)

    assert rows.tolist() == [[3, 4, 1, 2, 5, 0]]
    assert similarity.tolist() == [[1, 1, 0, 0, 0, -1]]


def test_similarities_come_back_to_the_bit() -> None:
    bank = Bank(BANK, BANK_LABELS, Q)
    unit = torch.nn.functional.normalize(QUERIES, dim=1) @ torch.nn.functional.normalize(BANK, dim=1).T

    similarity, rows = bank.nearest(QUERIES, 400)

    torch.testing.assert_close(similarity, unit.gather(1, rows), rtol=0, atol=1e-6)
    assert bool((similarity.diff(dim=1) <= 0).all())


def test_a_bank_smaller_than_k_votes_whole() -> None:
    ((top1, top5),) = judge(
        Bank(BANK[:3], torch.tensor([0, 1, 1]), Q), QUERIES[:4], torch.tensor([1, 1, 0, 6]), [Vote(20)]
    )

    assert (top1, top5) == (0.5, 0.75)


def test_of_equal_scores_the_lower_class_wins_and_one_without_a_vote_never() -> None:
    scores = torch.tensor([[0.0, 2, 2], [0, 2, 2], [0, 2, 2]])

    assert top_hits(scores, torch.tensor([1, 2, 0])).tolist() == [1, 2]
