"""Sizes of the networks, as published or counted by hand, and shapes of their maps."""

import pytest
import torch
from torch.nn import functional

from sbformat.errors import ConfigError
from sbtrain.networks import HALVES, build_half, parameter_count
from sbtrain.networks.autoencoder import Autoencoder
from sbtrain.networks.pooling import PoolTo

PUBLISHED = {"simplenet": 779_072, "resnet18": 6_610_160, "resnet18-head": 7_124_616, "fc-alexnet": 144_642_440}


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_both_halves_have_the_published_number_of_parameters(name: str, count: int) -> None:
    with torch.device("meta"):
        halves = build_half(name, 1, 100, 12), build_half(name, 2, 100, 12)

    assert sum(map(parameter_count, halves)) == count


def test_the_autoencoder_has_the_published_number_of_parameters() -> None:
    assert parameter_count(Autoencoder()) == 194_955


def test_the_split_alexnet_of_the_paper_has_the_size_counted_by_hand() -> None:
    with torch.device("meta"):
        halves = build_half("split-alexnet", 1, 313, 12), build_half("split-alexnet", 2, 50, 12)

    assert round(sum(map(parameter_count, halves)) / 1e6, 1) == 29.9


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_half_makes_one_map_of_classes_of_the_target_size(name: str, channels: int) -> None:
    with torch.device("meta"):
        logits = build_half(name, channels, 100, 12)(torch.empty(2, channels, 96, 96))

    assert logits.shape == (2, 100, 12, 12)


@pytest.mark.parametrize("cells", [8, 12, 16])
def test_maps_are_brought_to_other_target_sizes(cells: int) -> None:
    assert build_half("simplenet", 1, 10, cells)(torch.zeros(2, 1, 96, 96)).shape == (2, 10, cells, cells)


@pytest.mark.parametrize(("size", "cells"), [(6, 12), (24, 12), (12, 16), (24, 25), (7, 3), (5, 1)])
def test_maps_and_gradients_are_those_of_adaptive_pooling(size: int, cells: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, size, size, requires_grad=True)
    weight = torch.randn(2, 3, cells, cells)

    found, expected = PoolTo(cells)(x), functional.adaptive_avg_pool2d(x, cells)

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    of_found, of_expected = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (found, expected))
    torch.testing.assert_close(of_found, of_expected, rtol=0, atol=1e-6)


def test_maps_that_are_not_square_are_pooled_along_both_axes() -> None:
    x = torch.arange(2.0 * 3 * 10 * 7).view(2, 3, 10, 7).contiguous(memory_format=torch.channels_last)

    torch.testing.assert_close(PoolTo(4)(x), functional.adaptive_avg_pool2d(x, 4))


@pytest.mark.parametrize("network", HALVES)
@pytest.mark.parametrize("cells", [12, 16, 25])
def test_no_gradient_goes_through_adaptive_pooling(network: str, cells: int) -> None:
    """On CUDA it adds up in no fixed order: mode exact would not be exact."""
    with torch.device("meta"):
        logits = build_half(network, 1, 10, cells)(torch.empty(2, 1, 96, 96))

    waiting, names = [logits.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in names:
            names.add(node)
            waiting += [before for before, _ in node.next_functions]
    assert not [node for node in names if "Adaptive" in node.name()]


def test_logits_of_the_reports_resnet_are_never_negative_and_those_of_the_head_are() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 1, 32, 32)

    assert build_half("resnet18", 1, 10, 4)(x).min() >= 0
    assert build_half("resnet18-head", 1, 10, 4)(x).min() < 0


def test_an_autoencoder_gives_back_the_images_size() -> None:
    for widths in ((12, 24, 48, 96), (12, 24, 48, 96, 192)):
        assert Autoencoder(widths)(torch.zeros(2, 3, 96, 96)).shape == (2, 3, 96, 96)


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of simplenet"):
        build_half("resnet19", 1, 100, 12)
