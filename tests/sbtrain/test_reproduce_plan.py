"""What is reproduced: every published line has a row, and rows share runs."""

from dataclasses import replace

import pytest

from sbformat.errors import ConfigError
from sbformat.schema import TargetSpec
from sbtrain.evaluation.finetune_config import FinetuneConfig
from sbtrain.presets import load_preset
from sbtrain.report.published import published_table
from sbtrain.reproduce.plan import TABLES, Setting, Table, cells_of, tables_of
from sbtrain.reproduce.scales import SCALES, scale_of


def setting(scale: str = "full", **changes: object) -> Setting:
    made = Setting(scale=scale_of(scale), split="unlabeled", eval_split="val", target=TargetSpec())
    return replace(made, **changes)  # type: ignore[arg-type]


def table(name: str, scale: str = "full") -> Table:
    (found,) = tables_of(name, setting(scale))
    return found


@pytest.mark.parametrize(("name", "published"), [("table1", "split-brain-1"), ("table2", "split-brain-2")])
@pytest.mark.parametrize("scale", ["full", "small"])
def test_every_published_line_has_a_row_with_its_numbers(name: str, published: str, scale: str) -> None:
    ours = [row.published for row in table(name, scale).rows if row.published]

    assert ours == [row.values for row in published_table(published).rows]


def test_table_1_has_nine_cells_the_autoencoder_and_a_control_for_each_network() -> None:
    rows = table("table1").rows
    controls = [row for row in rows if row.about["control"]]

    assert len(rows) - len(controls) == 10
    assert {row.about["network"] for row in controls} == {"fc-alexnet", "resnet18", "simplenet", "autoencoder"}
    assert all(config.from_scratch for row in controls for cell in row.cells for _, config in cell.evaluations)


@pytest.mark.parametrize("scale", SCALES)
def test_simplenet_has_a_control_in_every_color_space_on_the_run_that_it_is_compared_with(scale: str) -> None:
    rows = [row for row in table("table1", scale).rows if row.about["network"] == "simplenet"]
    runs = {
        control: {
            row.about["colorspace"]: [cell.name for cell in row.cells]
            for row in rows
            if row.about["control"] == control
        }
        for control in (False, True)
    }

    assert list(runs[True]) == ["rgb", "lab", "rescaled_lab"]
    assert runs[True] == runs[False]


def test_table_2_has_seven_numbers_of_labels_each_with_a_control_on_one_run() -> None:
    rows = table("table2").rows

    assert [row.samples for row in rows if not row.about["control"]] == [1, 2, 4, 8, 16, 32, 64]
    assert len(rows) == 14
    assert {cell.name for row in rows for cell in row.cells} == {"resnet18-rescaled_lab-seed0"}


def test_the_noise_grid_has_three_kinds_at_four_levels() -> None:
    cells = [cell for row in table("noise").rows for cell in row.cells]

    assert len({(cell.config.noise, cell.config.noise_level) for cell in cells}) == len(cells) == 12


def test_the_targets_grid_has_three_sizes_two_single_and_three_dual_bins() -> None:
    targets = {cell.target for row in table("targets").rows for cell in row.cells}

    assert len(targets) == 18
    assert {target.size for target in targets} == {12, 16, 25}
    assert {target.single for target in targets} == {100, 200}
    assert {target.dual for target in targets} == {10, 16, 25}


def test_the_ablations_cross_schedule_with_rate_and_compare_inputs_at_equal_compute() -> None:
    configs = [cell.config for row in table("ablations").rows for cell in row.cells]

    crossed = {(config.schedule, config.lr) for config in configs[:4]}
    assert crossed == {(s, lr) for s in ("epoch-decay", "one-cycle") for lr in (1e-4, 2e-3)}
    assert [config.input for config in configs[4:]] == ["stored", "lab"]
    assert len({(config.epochs, config.batch_size, config.limit) for config in configs}) == 1


@pytest.mark.parametrize("scale", ["full", "small"])
def test_a_rate_that_falls_by_the_epoch_has_epochs_to_fall_in(scale: str) -> None:
    configs = [cell.config for row in table("ablations", scale).rows for cell in row.cells]

    assert all(config.epochs >= 3 for config in configs if config.schedule == "epoch-decay")


def test_the_ablations_see_as_many_images_as_the_networks_of_table_1() -> None:
    configs = [cell.config for name in ("table1", "ablations") for cell in cells_of([table(name, "small")])]

    assert {c.epochs * c.limit for c in configs if c.network == "simplenet"} == {50_000}


def test_fine_tuning_at_full_scale_follows_the_code_of_the_report_rather_than_its_text() -> None:
    configs = {
        (config.batch_size, config.decay, config.protocol)
        for cell in cells_of([table("table1")])
        for _, config in cell.evaluations
        if isinstance(config, FinetuneConfig)
    }

    assert configs == {(32, 0.5, "report")}


def test_the_full_scale_pretrains_exactly_the_presets_of_the_report() -> None:
    cells = cells_of(tables_of("table1", setting()))

    assert len(cells) == 10
    for cell in cells:
        expected = replace(load_preset(cell.preset).config, split="unlabeled", seed=0)
        assert cell.config == expected


@pytest.mark.parametrize("scale", SCALES)
def test_tables_share_their_runs(scale: str) -> None:
    cells = cells_of(tables_of("all", setting(scale)))
    by_name = {cell.name: cell for cell in cells}

    assert len(by_name) == len(cells) == len({(cell.colorspace, cell.target, cell.config) for cell in cells})
    assert {cell.name for cell in cells_of(tables_of("table2", setting(scale)))} <= set(by_name)


@pytest.mark.parametrize("name", TABLES)
def test_a_run_has_the_same_folder_whichever_table_asks_for_it(name: str) -> None:
    folders = {(cell.colorspace, cell.target, cell.config): cell.name for cell in cells_of(tables_of("all", setting()))}

    for cell in cells_of(tables_of(name, setting())):
        assert folders[cell.colorspace, cell.target, cell.config] == cell.name


def test_each_pretraining_seed_draws_labels_of_its_own() -> None:
    cells = cells_of(tables_of("table1", setting("small", seeds=2)))
    lab = [cell for cell in cells if cell.name.startswith("simplenet-lab")]

    assert [cell.config.seed for cell in lab] == [0, 1]
    assert [{config.seed for _, config in cell.evaluations} for cell in lab] == [{0}, {1}]


def test_unknown_tables_and_scales_are_named_beside_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"table 'table3', expected one of table1, table2, .* all"):
        tables_of("table3", setting())
    with pytest.raises(ConfigError, match="scale 'big', expected one of full, small, tiny"):
        scale_of("big")
