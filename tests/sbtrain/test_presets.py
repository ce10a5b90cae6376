"""Presets: the rows of the report's tables as its code ran them, and our own."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from sbformat.errors import ConfigError
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
