"""Learning rates are functions of the step; fused updates that are not applied change nothing."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sbformat.errors import ConfigError
from sbtrain.guard import Guard
from sbtrain.optim import build_optimizer, learning_rate, parameter_groups


def rates(schedule: str, steps: int = 100, warmup: int = 0, decay: float = 0.1) -> list[float]:
    return [learning_rate(step, steps, 10, 1.0, schedule, warmup, decay) for step in range(steps)]


def test_the_reports_decay_is_by_epoch() -> None:
    found = rates("epoch-decay", 30)

    assert found[:10] == [1.0] * 10
    assert found[10:20] == [0.1] * 10
    assert found[20:] == pytest.approx([0.01] * 10)


def test_cosine_falls_from_the_peak_to_zero() -> None:
    found = rates("cosine")

    assert found[0] == 1.0
    assert found[50] == pytest.approx(0.5)
    assert found == sorted(found, reverse=True)
    assert found[-1] < 1e-3


def test_one_cycle_peaks_after_three_tenths() -> None:
    found = rates("one-cycle")

    assert max(range(100), key=found.__getitem__) == 30
    assert found[:31] == sorted(found[:31])
    assert found[30:] == sorted(found[30:], reverse=True)


def test_warm_up_rises_in_a_line() -> None:
    assert rates("constant", warmup=4)[:6] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_warm_up_begins_above_its_own_rate_and_ends_at_the_peak() -> None:
    found = [learning_rate(step, 100, 10, 4.8, "cosine", 10, 0.1, warmup_lr=0.3) for step in range(12)]

    assert found[:10] == pytest.approx([0.3 + 0.45 * (step + 1) for step in range(10)])
    assert found[10] == 4.8
    assert found[11] < 4.8


def test_cosine_ends_at_the_rate_that_was_asked_for() -> None:
    found = [learning_rate(step, 1000, 10, 4.8, "cosine", 0, 0.1, final_lr=0.0048) for step in range(1001)]

    assert found[0] == 4.8
    assert found[500] == pytest.approx((4.8 + 0.0048) / 2)
    assert found[1000] == pytest.approx(0.0048)


def test_cosine_by_epoch_is_cosine_at_the_start_of_each_epoch() -> None:
    found, smooth = rates("cosine-by-epoch"), rates("cosine")

    assert found == [smooth[step - step % 10] for step in range(100)]
    assert rates("cosine-by-epoch", warmup=15)[15] == 1.0


def naive_larc(
    w: np.ndarray, g: np.ndarray, buffer: np.ndarray, lr: float, wd: float, momentum: float = 0.9
) -> tuple[np.ndarray, np.ndarray]:
    """One step of one tensor, as NVIDIA's apex writes it."""
    of_w, of_g = np.sqrt((w**2).sum()), np.sqrt((g**2).sum())
    if of_w != 0 and of_g != 0:
        g = (g + wd * w) * 0.001 * of_w / (of_g + wd * of_w + 1e-8)
    buffer = momentum * buffer + g
    return w - lr * buffer, buffer


def test_larc_is_the_plain_twin_also_for_tensors_of_zeros() -> None:
    """A fresh bias is all zero: its raw gradient is taken, without weight decay; from then on it is scaled as well."""
    torch.manual_seed(0)
    parameters = [nn.Parameter(t) for t in (torch.randn(5, 3), torch.zeros(4), torch.randn(4), torch.randn(2, 2))]
    optimizer = build_optimizer(parameters, "larc", 4.8, 0.01, 0.9, True)
    twins = [(p.detach().double().numpy(), np.zeros(p.shape)) for p in parameters]

    for number in range(4):
        gradients = [torch.randn_like(p) * (i != 3 or number > 1) for i, p in enumerate(parameters)]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        twins = [
            naive_larc(w, gradient.double().numpy(), buffer, 4.8, 0.01)
            for (w, buffer), gradient in zip(twins, gradients, strict=True)
        ]

    for parameter, (w, _) in zip(parameters, twins, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), w, rtol=1e-5, atol=1e-6)


def test_modules_of_constant_rate_are_a_group_of_their_own() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(2, 1))
    model[0].weight.requires_grad_(False)
    alone = parameter_groups(model)
    model[1].constant_lr = True  # type: ignore[assignment]

    groups = parameter_groups(model)

    assert [len(group["params"]) for group in alone] == [5]
    assert [len(group["params"]) for group in groups] == [3, 2]
    assert [group.get("constant_lr", False) for group in groups] == [False, True]


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of adam, adamw, sgd, larc"):
        build_optimizer([nn.Parameter(torch.zeros(1))], "lion", 1.0, 0, 0, False)  # type: ignore[arg-type]


@pytest.mark.parametrize("first", [True, False], ids=["first-step", "later-step"])
@pytest.mark.parametrize("fused", [True, False], ids=["on-the-device", "by-the-host"])
@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd", "larc"])
def test_a_step_that_is_not_finite_leaves_weights_moments_and_statistics(kind: str, fused: bool, first: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    optimizer = build_optimizer(model.parameters(), kind, 0.1, 0.01, 0.9, fused)  # type: ignore[arg-type]
    guard = Guard(model, optimizer, gated=fused)
    good = torch.randn(2, 1, 8, 8)

    def step(x: torch.Tensor) -> None:
        optimizer.zero_grad()
        guard.keep()
        loss = model(x).square().mean() + model(x).sum()
        loss.backward()
        guard.step(torch.isfinite(loss))

    if not first:
        step(good)
    weights = [value.clone() for value in model.state_dict().values()]
    moments = {k: v.clone() for s in optimizer.state.values() for k, v in s.items() if torch.is_tensor(v)}
    step(good * math.nan)
    step(good * math.inf)

    assert all(a.equal(b) for a, b in zip(weights, model.state_dict().values(), strict=True))
    left = {k: v for s in optimizer.state.values() for k, v in s.items() if torch.is_tensor(v)}
    assert all(moments[k].equal(left[k]) for k in moments)
    assert guard.in_row == 2
    step(good)
    assert guard.in_row == 0
    assert not weights[0].equal(model.state_dict()["0.weight"])
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_a_guarded_run_learns_the_same_as_a_plain_one() -> None:
    """Statistics as views of one flat tensor, and the flag, change no bit."""
    results = []
    for guarded in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
        optimizer = build_optimizer(model.parameters(), "adam", 0.1, 0, 0, True)
        guard = Guard(model, optimizer, gated=True) if guarded else None
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(2, 1, 8, 8)).square().sum().backward()
            if guard is None:
                optimizer.step()
            else:
                guard.keep()
                guard.step(torch.tensor(True))
        results.append(model.state_dict())

    assert all(results[0][name].equal(results[1][name]) for name in results[0])
