"""One step: the norm of its gradients, and its learning rate."""

import math

import pytest
import torch

from runs import CPU, small_parts
from sbformat.manifest import Manifest
from sbtrain.step import Step, gradient_norm


@pytest.fixture
def parameters() -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    made = [torch.nn.Parameter(torch.zeros(size)) for size in (3, 40, 7)]
    for parameter in made[:2]:
        parameter.grad = torch.randn_like(parameter)
    return made


def test_without_clipping_no_gradient_is_written(parameters: list[torch.nn.Parameter]) -> None:
    """Multiplying every gradient by 1 is one more pass over all of them."""
    versions = [parameter.grad._version for parameter in parameters if parameter.grad is not None]

    norm = gradient_norm(parameters, 0.0)

    assert [parameter.grad._version for parameter in parameters if parameter.grad is not None] == versions
    assert norm.item() == torch.nn.utils.clip_grad_norm_(parameters, math.inf).item()


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("wrong", [math.inf, math.nan])
def test_one_wrong_gradient_shows_in_the_norm(parameters: list[torch.nn.Parameter], clip: float, wrong: float) -> None:
    assert parameters[1].grad is not None
    parameters[1].grad[17] = wrong

    assert not gradient_norm(parameters, clip).isfinite()


def test_a_learning_rate_reaches_every_group_as_it_is(lab: Manifest) -> None:
    config, method, _ = small_parts(lab)
    step = Step(config, method, CPU)
    step.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})

    step.set_lr(1 / 3)

    assert [group["lr"] for group in step.optimizer.param_groups] == [1 / 3, 1 / 3]
