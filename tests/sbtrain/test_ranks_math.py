"""What two ranks compute together: BatchNorm, gathered rows, mean gradients. Compared with one process, in float64 too."""

from typing import Any

import pytest
import torch
from torch import nn

from ranked_math import (
    ROWS,
    gathered_on,
    gradients,
    guarded_on,
    late_on,
    learned,
    linear,
    norm_of,
    norm_on,
    on_two,
    rows_of,
)
from sbtrain.guard import Guard
from sbtrain.ranks import world as ranks
from sbtrain.ranks.synced_norm import synchronize


@pytest.mark.parametrize("shape", ROWS)
@pytest.mark.parametrize("settings", [{}, {"affine": False}, {"momentum": None}], ids=["", "plain", "cumulative"])
def test_batch_norm_over_ranks_is_that_of_the_whole_batch(shape: str, settings: dict[str, Any]) -> None:
    """Against float64, as one rank's own float32 strays further from it than two ranks do."""
    whole = learned(norm_of(shape, **settings).double(), rows_of(shape).double())

    first, second = on_two(norm_on, shape, settings)

    for name, expected in whole.items():
        if name == "y":
            found = torch.cat([first[name], second[name]])
        elif name == "x.grad":  # of half the rows: each rank's loss is the mean of its own
            found = torch.cat([first[name], second[name]]) / 2
        else:
            found = first[name]
            assert torch.equal(found, second[name])
        torch.testing.assert_close(found, expected.to(found.dtype), rtol=2e-5, atol=1e-4, msg=f"{name}: {{}}".format)


@pytest.mark.parametrize("whole", [True, False], ids=["whole-loss", "own-share"])
def test_gathered_rows_bring_the_gradient_of_the_whole_batch(whole: bool) -> None:
    layer = linear()
    logits = layer(rows_of("flat"))
    loss = ((logits - torch.logsumexp(logits, 0)) ** 2).mean()
    loss.backward()

    for found in on_two(gathered_on, whole):
        torch.testing.assert_close(found["loss"][0], loss.detach())
        for name, gradient in gradients(layer).items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4)


def test_what_is_not_finite_on_one_rank_is_finite_on_none() -> None:
    assert [not any(tensor.any() for tensor in found.values()) for found in on_two(guarded_on)] == [True, True]


def test_one_rank_gathers_its_own_rows() -> None:
    rows = rows_of("flat")

    assert ranks.gather(rows) is rows


def test_synchronized_statistics_keep_their_names_and_the_guards_memory() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    names = list(model.state_dict())
    synchronize(model, torch.device("cpu"))
    guard = Guard(model, torch.optim.SGD(model.parameters(), lr=0.1), gated=False)
    guard.keep()

    model[1].running_mean.fill_(7)
    guard.step(torch.tensor(False))

    assert list(model.state_dict()) == names
    assert model[1].running_mean.tolist() == [0, 0, 0]


def test_ranks_wait_longer_for_what_comes_before_the_steps_than_within_them() -> None:
    """One second is the limit within steps here."""
    assert [int(each["waited"]) for each in on_two(late_on)] == [1, 1]
