"""Backbones: their sizes as published or counted by hand, the images they take, and names that are none."""

import sys

import pytest
import torch
from torch import nn

from sbformat.errors import ConfigError
from sbtrain.config import PretrainConfig
from sbtrain.networks import HALVES, parameter_count
from sbtrain.networks.backbones import BACKBONES, build_backbone
from sbtrain.networks.resnet import BasicBlock

#: Name, size of its images -> parameters, features.
SIZES = {
    ("resnet18", 224): (11_176_512, 512),
    ("resnet18-cifar", 32): (11_168_832, 512),
    ("resnet18-report", 32): (11_168_832, 512),
    ("alexnet", 224): (61_100_840, 1000),
    ("efficientnet_b0", 32): (4_007_548, 1280),
    ("vit_small", 224): (21_665_664, 384),
    ("vit_small_2021", 224): (47_985_408, 768),
    ("pit_ti", 224): (4_590_272, 256),
    ("half:simplenet", 96): (149_724, 96),
    ("timm:resnet50", 224): (23_508_032, 2048),
}


def on_meta(name: str, *sizes: int, zero_init: bool = False):  # type: ignore[no-untyped-def]
    with torch.device("meta"):
        return build_backbone(name, sizes, zero_init)


@pytest.mark.parametrize(("which", "found"), SIZES.items(), ids=[name for name, _ in SIZES])
def test_backbones_have_the_published_sizes(which: tuple[str, int], found: tuple[int, int]) -> None:
    backbone = on_meta(*which)

    assert (parameter_count(backbone), backbone.width) == found
    assert backbone.training
    assert backbone.layers()[-1] == "backbone"


@pytest.mark.parametrize("name", HALVES)
def test_halves_of_the_split_brain_report_are_backbones(name: str) -> None:
    backbone = on_meta(f"half:{name}", 96)
    x = torch.zeros(2, 3, 96, 96, device="meta")

    assert backbone(x).shape == (2, backbone.width)
    last = backbone.layers()[-2]
    assert backbone.until(x, last).shape[:2] == (2, backbone.width)


@pytest.mark.parametrize(
    ("name", "side"), [("resnet18", 1), ("resnet18-report", 2), ("resnet18-cifar", 4)], ids=lambda value: str(value)
)
def test_the_last_map_of_a_32_pixel_image_is_as_large_as_the_stem_lets_it(name: str, side: int) -> None:
    maps = on_meta(name, 32).until(torch.zeros(2, 3, 32, 32, device="meta"), "layer4")

    assert maps.shape == (2, 512, side, side)


def test_a_resnet_of_ours_is_that_of_timm() -> None:
    """The same weights give the same features: only names differ."""
    import timm

    torch.manual_seed(0)
    ours, theirs = build_backbone("resnet18", (32,)), timm.create_model("resnet18", num_classes=0)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 32, 32)

    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-5)


def test_alexnet_is_that_of_torchvision() -> None:
    from torchvision.models import alexnet

    torch.manual_seed(0)
    with torch.device("meta"):
        theirs = alexnet()
    shapes = [tuple(p.shape) for p in theirs.parameters()]

    assert [tuple(p.shape) for p in on_meta("alexnet", 224).parameters()] == shapes


def test_blocks_begin_as_identities_if_asked_to() -> None:
    for zero_init in (True, False):
        ours = build_backbone("resnet18-cifar", (8,), zero_init)
        theirs = build_backbone("timm:resnet18", (32,), zero_init)

        scales = [m.norm2.weight.abs().sum() for m in ours.modules() if isinstance(m, BasicBlock)]
        scales += [layer[0].bn2.weight.abs().sum() for layer in (theirs.body.layer1, theirs.body.layer4)]  # type: ignore
        assert all((scale == 0) == zero_init for scale in scales)


@pytest.mark.parametrize(("size", "stride"), [(32, 1), (96, 2)])
def test_efficientnet_keeps_all_pixels_of_small_images(size: int, stride: int) -> None:
    stem = on_meta("efficientnet_b0", size).body.conv_stem

    assert isinstance(stem, nn.Conv2d)
    assert stem.stride == (stride, stride)


def test_a_vit_takes_two_resolutions() -> None:
    backbone = on_meta("vit_small", 64, 32)

    assert all(backbone(torch.zeros(2, 3, size, size, device="meta")).shape == (2, 384) for size in (64, 32))


@pytest.mark.parametrize(("name", "size"), [("timm:pvt_v2_b0", 96), ("pit_ti", 40)])
def test_patches_that_overlap_need_no_multiple_of_their_size(name: str, size: int) -> None:
    """Those of 7 x 7 every 4 pixels with a margin, and of 16 x 16 every 8 without: nothing is left unseen."""
    pytest.importorskip("timm")
    assert on_meta(name, size).width == 256


def test_nothing_random_is_drawn_beside_the_weights() -> None:
    """So a network's weights are a function of the seed alone, whatever images it will see."""
    torch.manual_seed(0)
    one = build_backbone("resnet18-cifar", (32,)).state_dict()
    torch.manual_seed(0)
    two = build_backbone("resnet18-cifar", (48, 24)).state_dict()

    assert all(one[name].equal(two[name]) for name in one)


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("alexnet", (32,), r"alexnet cannot take images of 32 x 32 \(.*too small.*sbprep build --image-size"),
        ("half:simplenet", (32,), r"half:simplenet cannot take images of 32 x 32 \(.*Kernel size"),
        ("pit_ti", (96, 48), r"cannot take images of 96 x 96 and 48 x 48 \(it is built for one size\)"),
        ("vit_small", (40,), r"cannot take images of 40 x 40 \(it sees patches of 16 x 16, whole ones\)"),
        ("timm:mixer_s16_224", (96, 48), r"network timm:mixer_s16_224 cannot take .*built for one size"),
        ("timm:gcvit_xxtiny", (8,), r"timm:gcvit_xxtiny cannot take images of 8 x 8 \(.*division by zero"),
        ("timm:halonet26t", (96,), r"cannot take images of 96 x 96 \(its layers do not fit\)"),
        ("timm:resnt50", (32,), "timm .* has no such model, did you mean resnet50"),
        ("timm:hf-hub:someone/resnet18", (32,), "has no such model"),
        ("resnet19", (32,), "network 'resnet19', did you mean resnet18"),
        ("half:simplnet", (32,), "did you mean half:simplenet"),
        (
            "simplenet",
            (32,),
            "'simplenet' is one of split_brain's halves.* resnet18-cifar for 32 x 32 .* resnet18 for 96",
        ),
        ("vit_small", (32, 14), r"images of 14 x 14, the local views beside those of 32 x 32 \(it sees patches of 16"),
        ("timm:", (32,), "network 'timm:'"),
    ],
)
def test_a_backbone_that_cannot_be_is_refused_with_the_remedy(name: str, sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        on_meta(name, *sizes)


@pytest.mark.parametrize("name", ["vit_small", "alexnet", "half:resnet18", "timm:vit_tiny_patch16_224"])
def test_only_resnets_have_blocks_to_begin_as_identities(name: str) -> None:
    with pytest.raises(ConfigError, match=r"is no ResNet. Use --no-zero-init"):
        on_meta(name, 64, zero_init=True)


def test_without_timm_the_extra_is_named_and_our_own_networks_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)

    with pytest.raises(ConfigError, match=r"pip install 'splitbrain\[backbones\]'"):
        on_meta("pit_ti", 96)
    assert on_meta("resnet18-cifar", 32).width == 512


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("method", ["simsiam", "self_classifier"])
def test_every_backbone_is_a_network_of_both_methods(name: str, method: str) -> None:
    assert PretrainConfig(method=method, network=name).network == name  # type: ignore[arg-type]
