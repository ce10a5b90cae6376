"""Self-Classifier: its loss against values worked out by hand and a plain twin, its heads, classifiers and queue."""

import copy
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sbformat.errors import ConfigError
from sbformat.manifest import Manifest, open_manifest
from sbtrain.build import build_method
from sbtrain.config import PretrainConfig
from sbtrain.data import Batch
from sbtrain.methods.neighbor_queue import NeighborQueue
from sbtrain.methods.self_classifier import SelfClassifier, pair_losses, usage
from sbtrain.networks import parameter_count
from sbtrain.networks.backbones import build_backbone
from sbtrain.networks.heads import build_classifier, build_head, class_counts

SMALL = {"method": "self_classifier", "network": "half:simplenet", "augmentation": "simsiam_cifar", "head": "16"}


def naive_loss(S: NDArray[np.float64], tau_row: float = 0.1, tau_col: float = 0.05, eps: float = 1e-8) -> float:
    """The loss of logits (V, N, C) in loops, as the paper writes it."""
    V, N, C = S.shape
    terms = []
    for i in range(V):
        for j in range(V):
            if i == j or (i >= 2 and j >= 2):
                continue
            A = np.exp(S[i] / tau_col) / np.exp(S[i] / tau_col).sum(0)
            T = A / np.maximum(A.sum(1, keepdims=True), eps)
            R = np.exp(S[j] / tau_row) / np.exp(S[j] / tau_row).sum(1, keepdims=True)
            Q = N / C * R / np.maximum(R.sum(0), eps)
            terms.append(-(T * np.log(Q + eps)).sum() / N)
    return float(np.mean(terms))


def loss_of(S: torch.Tensor, prior: str = "uniform") -> float:
    return float(pair_losses(S[None], prior, 0.1, 0.05, 1e-8)[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("C", [10, 100])
def test_equal_rows_give_the_logarithm_of_the_number_of_classes(C: int) -> None:
    """The collapse: whatever the one row is."""
    row = torch.linspace(-0.3, 0.3, C)

    assert loss_of(row.expand(2, 64, C)) == pytest.approx(math.log(C), rel=2e-5)


def test_perfect_balanced_agreement_gives_nearly_nothing() -> None:
    S = torch.eye(10).repeat(7, 1)[:64].expand(2, 64, 10)[:, :60]

    assert loss_of(S) == pytest.approx(4.5e-4, abs=1e-4)


@pytest.mark.parametrize("V", [2, 3, 8])
def test_the_loss_is_that_of_the_plain_twin(V: int) -> None:
    S = np.random.default_rng(0).uniform(-1, 1, (V, 12, 5))

    assert loss_of(torch.from_numpy(S).float()) == pytest.approx(naive_loss(S), rel=1e-5)


def test_six_local_views_beside_two_global_ones_give_26_pairs() -> None:
    """A pair counts if its target or its prediction is global: moving one local view changes 4 of 26 terms."""
    S = np.random.default_rng(0).uniform(-1, 1, (8, 12, 5))
    plain = naive_loss(S)
    changed = S.copy()
    changed[7] = changed[6]

    alone = [naive_loss(S[[i, j]]) for i in range(8) for j in range(i) if i < 2 or j < 2]  # both orders each

    assert 2 * len(alone) == 26
    assert np.mean(alone) == pytest.approx(plain)
    assert loss_of(torch.from_numpy(changed).float()) == pytest.approx(naive_loss(changed), rel=1e-5)


def test_gradients_flow_through_targets_and_predictions() -> None:
    S = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = pair_losses(S[None], "uniform", 0.1, 0.05, 1e-8).sum()
    (gradient,) = torch.autograd.grad(loss, S)

    small = torch.zeros_like(S)
    small[0, 3, 1] = 1e-3
    with torch.no_grad():
        up, down = (pair_losses((S + d)[None].double(), "uniform", 0.1, 0.05, 1e-8).sum() for d in (small, -small))
    assert gradient[0, 3, 1].item() == pytest.approx((up - down).item() / 2e-3, rel=1e-2)


def test_without_the_prior_one_class_for_all_is_as_good_as_it_gets() -> None:
    one = torch.zeros(2, 64, 10)
    one[..., 3] = 2.0

    assert loss_of(one, "none") == pytest.approx(0, abs=1e-5)
    assert loss_of(one, "uniform") == pytest.approx(math.log(10), abs=1e-5)
    assert loss_of(one, "targets") > math.log(10)


def test_temperatures_underflow_nowhere() -> None:
    """Logits are cosines: at 0.05 their softmax spans e^-40."""
    S = torch.tensor([1.0, -1.0, -1.0]).repeat(2, 6, 1).requires_grad_()

    loss = pair_losses(S[None], "uniform", 0.1, 0.05, 1e-12).sum()
    loss.backward()

    assert loss.isfinite()
    assert S.grad is not None
    assert S.grad.isfinite().all()


def test_usage_is_1_for_all_classes_and_0_for_one() -> None:
    assert usage(torch.eye(10)).item() == pytest.approx(1)
    assert usage(torch.eye(10)[:1].expand(10, 10)).item() == 0


# ------------------------------------------------------------------------------------------------------- the model


@pytest.mark.parametrize(
    ("head", "count"),
    [("1hl", 65_664), ("2hl", 19_423_360), ("official", 2_633_856), ("v1", 214_592), ("64", 32_832)],
)
def test_heads_have_the_sizes_counted_by_hand(head: str, count: int) -> None:
    """1 HL of the report: one linear layer of 512 x 128 + 128; official: its num_hidden of 2, one hidden layer."""
    with torch.device("meta"):
        made, _ = build_head(head, 512)

    assert parameter_count(made) == count


def test_rows_of_a_classifier_have_length_1_at_first_and_may_grow() -> None:
    classifier = build_classifier("weight-norm", 16, 5)

    assert classifier.weight.norm(dim=1).tolist() == pytest.approx([1] * 5)
    assert [tuple(p.shape) for p in classifier.parameters()] == [(5, 1), (5, 16)]
    assert all(p.requires_grad for p in classifier.parameters())


def test_orthonormal_classifiers_are_fixed_and_differ() -> None:
    one, two = (build_classifier("orthonormal", 16, 5).weight for _ in range(2))

    torch.testing.assert_close(one @ one.T, torch.eye(5), rtol=0, atol=1e-6)
    assert not one.requires_grad
    assert not one.equal(two)


def test_more_orthonormal_classes_than_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="17 classes, but 16 numbers"):
        build_classifier("orthonormal", 16, 17)


@pytest.mark.parametrize(
    ("text", "found"), [("10", [10]), ("3x20", [20] * 3), ("1000,2000,4000,8000", [1000, 2000, 4000, 8000])]
)
def test_classes_are_read(text: str, found: list[int]) -> None:
    assert class_counts(text) == found


@pytest.mark.parametrize("text", ["", "1", "ten", "0x10", "10,", "-3", "2x3x4"])
def test_classes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected numbers of 2 or more"):
        class_counts(text)


def test_a_classifier_counts_as_much_as_any_other() -> None:
    torch.manual_seed(0)
    S = [torch.randn(2, 12, C) for C in (3, 5, 3)]
    model = object.__new__(SelfClassifier)
    torch.nn.Module.__init__(model)
    model.counts, model.prior, model.tau_row, model.tau_col, model.eps = [3, 5, 3], "uniform", 0.1, 0.05, 1e-8

    expected = np.mean([naive_loss(s.double().numpy()) for s in S])

    assert model._mean_loss(S).item() == pytest.approx(expected, rel=1e-5)


# -------------------------------------------------------------------------------------------------- nearest neighbors


def unit(*angles: float) -> torch.Tensor:
    return torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles])


def test_the_queue_is_first_in_first_out() -> None:
    queue = NeighborQueue(3, 2)

    queue.push(unit(0, 1), torch.tensor([10, 11]))
    assert not queue.full
    queue.push(unit(2, 3), torch.tensor([12, 13]))

    assert queue.full
    assert queue.index.tolist() == [13, 11, 12]


def test_the_nearest_neighbor_is_another_image() -> None:
    queue = NeighborQueue(3, 2)
    queue.push(unit(0.0, 0.5, 2.0), torch.tensor([1, 2, 3]))

    found, similarity = queue.nearest(unit(0.1, 1.9), torch.tensor([1, 9]))

    torch.testing.assert_close(found, unit(0.5, 2.0))
    assert similarity.item() == pytest.approx((math.cos(0.4) + math.cos(0.1)) / 2)


@pytest.mark.parametrize("deterministic", [False, True])
def test_writing_only_the_places_that_change_leaves_the_bits_of_writing_all(deterministic: bool) -> None:
    """All are written on CUDA in exact mode."""
    few, every = NeighborQueue(7, 3), NeighborQueue(7, 3)
    found = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        for number, size in enumerate((4, 4, 1, 7, 9, 2, 5)):
            z, index = torch.randn(size, 3), torch.arange(size) + 10 * number
            z[:: number + 2, 0] = math.inf
            few.push(z, index)
            z, index = z[-7:], index[-7:]
            every._write_everywhere(z, index, torch.isfinite(z).all(1))
            every.pushed.add_(len(z))

            assert all(torch.equal(ours, theirs) for ours, theirs in zip(few.buffers(), every.buffers(), strict=True))
    finally:
        torch.use_deterministic_algorithms(found)


def test_an_embedding_that_is_not_finite_stays_out_of_the_queue() -> None:
    queue = NeighborQueue(2, 2)
    queue.push(unit(0, 1), torch.tensor([1, 2]))

    queue.push(unit(math.nan), torch.tensor([3]))

    assert queue.index.tolist() == [1, 2]
    assert queue.rows.isfinite().all()


# ----------------------------------------------------------------------------------------------------------- in a run


@pytest.fixture
def rgb(shards) -> Manifest:  # type: ignore[no-untyped-def]
    return open_manifest(shards, "rgb")


def batch_of(count: int = 12) -> Batch:
    images = torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Batch(torch.arange(count), {"image": images})


def built(manifest: Manifest, **fields: object) -> SelfClassifier:
    torch.manual_seed(0)
    method = build_method(PretrainConfig(**{**SMALL, **fields}), manifest)  # type: ignore[arg-type]
    assert isinstance(method, SelfClassifier)
    return method


def test_a_fresh_model_begins_near_the_logarithm_of_its_classes(rgb: Manifest) -> None:
    loss, logs = built(rgb).loss(batch_of(48))

    assert loss.item() == pytest.approx(math.log(10), rel=0.2)
    assert 0 <= logs["class_entropy"].item() <= 1


def test_the_loss_is_in_float32_whatever_the_networks_are_in(rgb: Manifest) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = built(rgb).loss(batch_of())

    assert loss.dtype == torch.float32


def test_monitoring_neighbors_changes_no_gradient_and_replacing_them_does(rgb: Manifest) -> None:
    found = []
    for fields in ({}, {"queue": 8}, {"queue": 8, "queue_replace": True}):
        method = built(rgb, **fields)
        for _ in range(2):  # the queue is full in the second
            loss, logs = method.loss(batch_of())
        found.append((loss.item(), "neighbor_similarity" in logs))

    assert found[0][0] == found[1][0] != found[2][0]
    assert [there for _, there in found] == [False, True, True]


def test_images_are_assigned_to_classes_of_each_classifier(rgb: Manifest) -> None:
    method = built(rgb, classes="4,12").eval()

    assert method.logits(batch_of()).shape == (12, 4)
    assert method.logits(batch_of(), 1).shape == (12, 12)
    assert method.assign(batch_of()).equal(method.logits(batch_of()).argmax(1))
    assert method.features(batch_of(), "projection").shape == (12, 16)
    assert method.features(batch_of()).shape == (12, 96)
    assert method.layers()[-1] == "backbone"


@pytest.mark.parametrize("classifier", ["weight-norm", "orthonormal"])
def test_a_copy_after_learning_gives_the_same_classes(classifier: str, rgb: Manifest) -> None:
    """Fine-tuning begins with a copy."""
    method = built(rgb, classifier=classifier, queue=8)
    method.loss(batch_of())[0].backward()

    copied = copy.deepcopy(method).eval()

    assert copied.logits(batch_of()).equal(method.eval().logits(batch_of()))


def test_multi_crop_takes_each_resolution_through_the_backbone_once(rgb: Manifest) -> None:
    method = built(rgb, network="resnet18-cifar", augmentation="self_classifier_native32", view_size=32)
    seen = []
    method.backbone.body.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    method.head.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))

    method.loss(batch_of(4))

    assert seen == [(8, 3, 32, 32), (24, 3, 18, 18), (32, 512)]


def test_dropout_of_alexnet_belongs_to_the_sample_and_the_view() -> None:
    from sbtrain.networks.dropout import DropoutKey, KeyedDropout, set_dropout_key

    layer, x = KeyedDropout(0.5, stream=0), torch.ones(3, 1000)
    set_dropout_key(layer, DropoutKey(torch.tensor([5, 9, 5]), 0, 0))
    y = layer(x)

    assert y[0].equal(y[2])
    assert not y[0].equal(y[1])
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert y.mean().item() == pytest.approx(1, abs=0.1)
    assert layer.eval()(x) is x


# ------------------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 8}, "8 images in a batch, 10 classes.*--batch-size 10"),
        ({"batch_size": 64, "accumulate": 8}, "8 images in a micro-batch, 10 classes.*--batch-size 80"),
        ({"queue_replace": True}, "no queue. Give its length: --queue 1000"),
        ({"head": "3hl"}, "head '3hl', expected one of 1hl, 2hl, official, v1, or widths"),
        ({"tau_col": 0.0}, "tau_col 0.0, expected more than 0"),
        ({"augmentation": "simsiam"}, "augmentation 'simsiam', did you mean simsiam_"),
        ({"network": "simplenet"}, "network 'simplenet' is one of split_brain's halves"),
    ],
)
def test_options_that_cannot_be_are_refused_with_the_remedy(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PretrainConfig(**{**SMALL, **fields})  # type: ignore[arg-type]


def test_classifiers_beside_the_first_may_have_more_classes_than_the_batch_images() -> None:
    """As published: 4,092 images and 8,000 classes."""
    assert PretrainConfig(**{**SMALL, "classes": "10,500"}).batch_size == 64  # type: ignore[arg-type]


@pytest.mark.parametrize("colorspace", ["lab", "rescaled_lab"])
def test_shards_of_another_color_space_are_refused(colorspace: str, shards) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=f"holds {colorspace}, .*sbprep build --colorspace rgb"):
        build_method(PretrainConfig(**SMALL), open_manifest(shards, colorspace))  # type: ignore[arg-type]


def test_one_view_is_refused(rgb: Manifest) -> None:
    with pytest.raises(ConfigError, match="compares two or more"):
        built(rgb, augmentation="crop_flip")


def test_the_backbone_is_told_the_sizes_that_it_will_see(rgb: Manifest) -> None:
    with pytest.raises(ConfigError, match=r"half:simplenet cannot take images of 32 x 32.*--view-size"):
        built(rgb, view_size=32)
    assert build_backbone("half:simplenet", (64,)).width == 96
