"""Presets: the rows of the report's tables as its code ran them, and our own."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from sbformat.errors import ConfigError
from sbformat.manifest import Manifest
from sbtrain.bench.synthetic import write_synthetic
from sbtrain.build import build_method
from sbtrain.cli import main
from sbtrain.config import PretrainConfig
from sbtrain.presets import load_preset, preset_names, resolve

#: Row of Table 1 -> epochs of pretraining, top-1 in percent.
TABLE_1 = {
    "fc-alexnet-rgb": (5, "9.43"),
    "fc-alexnet-lab": (5, "3.01"),
    "fc-alexnet-rescaled_lab": (5, "9.58"),
    "resnet18-rgb": (7, "12.27"),
    "resnet18-lab": (7, "13.51"),
    "resnet18-rescaled_lab": (7, "14.04"),
    "simplenet-rgb": (11, "10.81"),
    "simplenet-lab": (11, "10.93"),
    "simplenet-rescaled_lab": (11, "12.66"),
}


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_config_and_says_what_was_published(name: str) -> None:
    preset = load_preset(name)

    assert isinstance(preset.config, PretrainConfig)
    assert "published" in preset.about
    assert "%" in preset.about


@pytest.mark.parametrize(("row", "numbers"), TABLE_1.items())
def test_the_reports_rows_do_what_its_code_did(row: str, numbers: tuple[int, str]) -> None:
    network, colorspace = row.rsplit("-", 1)
    preset = load_preset(f"report/{row}")
    config = preset.config

    assert (config.method, config.network, preset.colorspace) == ("split_brain", network, colorspace)
    assert (config.optimizer, config.lr, config.batch_size) == ("adam", 1e-4, 64)
    assert (config.schedule, config.decay, config.weight_decay, config.clip) == ("epoch-decay", 0.1, 0, 0)
    assert config.input == ("stored" if colorspace == "rgb" else "lab")
    assert config.normalize == "unit"
    assert config.epochs == numbers[0]
    assert f"top-1 {numbers[1]} %" in preset.about


def test_the_reports_baseline_is_salt_and_pepper_on_a_twentieth() -> None:
    config = load_preset("report/denoising").config

    assert (config.method, config.noise, config.noise_level) == ("denoising", "salt-and-pepper", 0.05)
    assert config.reconstruction == "bce"


#: Row of the Self-Classifier report's table, and of its text -> network, head, epochs, what was published.
CLUSTERING = {
    "resnet18-1hl": ("resnet18", "1hl", 100, "NMI 61.1, AMI 61.0, ARI 50.5, ACC 68.7 %, linear 87.89 %"),
    "resnet18-2hl": ("resnet18", "2hl", 100, "NMI 60.3, AMI 60.2, ARI 49.9, ACC 67.9 %"),
    "alexnet-2hl": ("alexnet", "2hl", 100, "NMI 41.9, AMI 41.8, ARI 28.4, ACC 46.5 %"),
    "alexnet-2hl-200": ("alexnet", "2hl", 200, "NMI 48.8, AMI 48.7, ARI 34.7, ACC 52.0 %"),
}


@pytest.mark.parametrize(("row", "about"), CLUSTERING.items())
def test_rows_of_the_self_classifier_report_do_what_its_code_did(row: str, about: tuple[str, str, int, str]) -> None:
    preset = load_preset(f"report/self-classifier-{row}")
    config = preset.config

    assert (config.network, config.head, config.epochs) == about[:3]
    assert about[3] in preset.about
    assert (config.optimizer, config.lr, config.warmup_lr, config.final_lr) == ("larc", 4.8, 0.3, 0.0048)
    assert (config.tau_row, config.tau_col, config.eps, config.weight_decay) == (0.1, 0.05, 1e-8, 1e-6)
    assert (config.queue, config.queue_replace, config.classes, config.batch_size) == (1000, False, "10", 64)
    assert config.view_size == 224


#: Row of the SimSiam report's tables -> network, size of views, what was published.
SIMSIAM = {
    "cifar10-resnet18": ("resnet18-report", 32, "88.59 % val, 88.89 % test"),
    "noise-resnet18": ("resnet18-report", 32, "83.87 % val, 83.12 % test"),
    "stl10-resnet18": ("resnet18", 224, "70.23 % test, 65.73 % without"),
    "stl10-efficientnet_b0": ("efficientnet_b0", 224, "69.84 % test, 65.30 % without"),
    "stl10-vit_small": ("vit_small_2021", 224, "60.45 % test, 53.74 % without"),
    "stl10-pit_ti": ("pit_ti", 224, "64.21 % test, 58.14 % without"),
    "celeba-resnet18": ("resnet18", 224, "Jaccard 54.05 % macro, 64.48 % micro, AUC .9310 macro, .9592 micro"),
    "celeba-pit_ti": ("pit_ti", 224, "Jaccard 53.89 % macro, 64.16 % micro, AUC .9303 macro, .9578 micro"),
}


@pytest.mark.parametrize(("row", "about"), SIMSIAM.items())
def test_rows_of_the_simsiam_report_do_what_it_says(row: str, about: tuple[str, int, str]) -> None:
    preset = load_preset(f"report/simsiam-{row}")
    config = preset.config

    assert (config.network, config.view_size) == about[:2]
    assert about[2] in preset.about
    assert (config.optimizer, config.lr, config.weight_decay) == ("adam", 1e-3 * 512 / 256, 1e-5)
    assert (config.batch_size, config.accumulate, config.projector) == (512, 8, "report")


def test_the_papers_rates_follow_their_batches() -> None:
    simsiam, imagenet = (load_preset(f"paper/simsiam-{name}").config for name in ("cifar10", "imagenet"))
    first, second = (load_preset(f"paper/self-classifier-{name}").config for name in ("cifar10", "imagenet"))

    assert (simsiam.lr, imagenet.lr) == (0.03 * 512 / 256, 0.05 * 512 / 256)
    assert (simsiam.epochs, simsiam.weight_decay, simsiam.projector) == (800, 5e-4, "two-layer")
    assert imagenet.zero_init
    assert (first.tau_row, first.tau_col, first.prior, first.classes) == (0.3, 0.3, "targets", "30x30")
    assert (first.optimizer, first.final_lr, first.classifier) == ("sgd", first.lr / 100, "orthonormal")
    assert (second.classes, second.queue, second.final_lr) == ("1000,2000,4000,8000", 262_144, second.lr / 1000)


@pytest.mark.parametrize("name", [n for n in preset_names() if "simsiam" in n or "self-classifier" in n])
def test_presets_of_views_build_and_count(name: str, rgb_of_any_size: Manifest) -> None:
    """Their networks take the sizes of their views."""
    config = replace(load_preset(name).config, split="unlabeled")

    with torch.device("meta"):
        method = build_method(config, rgb_of_any_size)

    assert method.layers()[-1] == "backbone"


@pytest.fixture(scope="module")
def rgb_of_any_size(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_synthetic(tmp_path_factory.mktemp("any") / "rgb", {"unlabeled": 8}, "rgb", 32)


@pytest.mark.parametrize(
    ("preset", "given", "message"),
    [
        (
            None,
            {"tau_row": 0.2},
            "tau_row 0.2, but method split_brain has no such field: it belongs to self_classifier",
        ),
        (None, {"noise": "salt-and-pepper"}, "belongs to denoising.*--method denoising"),
        ("paper/simsiam-cifar10", {"head": "2hl"}, "method simsiam has no such field: it belongs to self_classifier"),
        ("paper/simsiam-cifar10", {"normalize": "standard"}, "belongs to split_brain and denoising"),
        ("modern/self-classifier-cifar10", {"stop_gradient": False}, "belongs to simsiam"),
    ],
)
def test_a_field_of_another_method_is_refused(preset: str | None, given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(preset, given)


def test_a_presets_fields_of_another_method_may_have_their_default(tmp_path: Path) -> None:
    """Files written by earlier versions list every field."""
    path = tmp_path / "mine.toml"
    path.write_text('loss = "classification"\nmethod = "denoising"\nnetwork = "autoencoder"\n')
    assert load_preset(str(path)).config.method == "denoising"

    path.write_text('loss = "regression"\nmethod = "denoising"\nnetwork = "autoencoder"\n')
    with pytest.raises(ConfigError, match="loss 'regression', but method denoising"):
        load_preset(str(path))


def test_a_printed_preset_shows_the_fields_of_its_method_alone() -> None:
    output = CliRunner().invoke(main, ["presets", "paper/simsiam-cifar10"]).output

    assert "stop_gradient = true" in output
    assert not {"tau_row", "noise_level", "normalize"} & {line.split(" =")[0] for line in output.splitlines()}


@pytest.mark.parametrize("name", [name for name in preset_names() if name.startswith("modern/")])
def test_our_schedules_learn_in_every_epoch_but_the_last_steps(name: str) -> None:
    assert load_preset(name).config.schedule in ("one-cycle", "cosine")


def test_options_win_over_the_preset() -> None:
    config, _ = resolve("report/simplenet-lab", {"lr": 0.5, "epochs": 1})

    assert (config.lr, config.epochs, config.batch_size) == (0.5, 1, 64)


def test_no_preset_is_the_defaults() -> None:
    assert resolve(None, {}) == (PretrainConfig(), None)


def test_an_unknown_preset_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean report/simplenet-lab"):
        load_preset("report/simplnet-lab")


def test_a_preset_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('about = "mine"\ncolorspace = "lab"\nlr = 0.25\n')

    preset = load_preset(str(path))

    assert (preset.config.lr, preset.colorspace, preset.about) == (0.25, "lab", "mine")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "field 'epoch', did you mean epochs"),
        ('optimizer = "adm"', "optimizer 'adm', did you mean adam"),
        ("epochs = 1.5", "epochs 1.5, expected int"),
        ("lr = -1", "lr -1, expected more than 0"),
        ("lr = nan", "lr nan, expected a finite number"),
        ('network = "resnet"', "network 'resnet'"),
        ("batch_size = 10\naccumulate = 3", "does not divide into 3 micro-batches"),
        ('colorspace = "hsv"', "colorspace 'hsv', expected one of"),
        ("lr = ", "mine.toml"),
    ],
)
def test_a_preset_with_a_mistake_is_refused_with_what_was_expected(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        load_preset(str(path))


def test_presets_are_listed_with_their_numbers() -> None:
    output = CliRunner().invoke(main, ["presets"]).output

    assert all(name in output for name in preset_names())
    assert "top-1 14.04 %, top-5 30.15 %" in output


def test_a_printed_preset_is_one_itself(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["presets", "report/resnet18-lab"])
    (tmp_path / "copy.toml").write_text(result.output)

    assert load_preset(str(tmp_path / "copy.toml")).config == load_preset("report/resnet18-lab").config
