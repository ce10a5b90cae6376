"""Two ranks learn what one does, stop together, and end together when one of them is lost."""

import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from builds import environment
from ranked import losses, plain, rank_environment, run_ranks
from runs import checkpoints, litter, outcome
from sbformat.errors import ConfigError
from sbtrain.cli import main
from sbtrain.ranks.launch import from_environment
from sbtrain.ranks.world import ALONE, World
from sbtrain.runtime import EXIT_REQUEUE

RANKED = Path(__file__).parents[1] / "ranked.py"


def invoke(*arguments: str, **variables: str) -> Result:
    return CliRunner().invoke(main, list(arguments), env=variables)


@pytest.fixture(scope="module")
def alone(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[list[int]], list[float]]:
    """Return rows and loss of every step of a one-rank run."""
    folder = tmp_path_factory.mktemp("alone")
    rank = run_ranks(folder, plain(shards, folder / "run"), 1)[0]
    assert rank.code == 0
    return [sorted(rows) for rows in rank.rows], losses(folder / "run")


@pytest.fixture(scope="module")
def pair(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a two-rank run. Not to be changed."""
    folder = tmp_path_factory.mktemp("pair")
    assert [rank.code for rank in run_ranks(folder, plain(shards, folder / "run"))] == [0, 0]
    return folder / "run"


# ------------------------------------------------------------------------------------------------- the same learning


def test_one_then_two_then_one_rank_learn_what_one_does(
    shards: Path, alone: tuple[list[list[int]], list[float]], tmp_path: Path
) -> None:
    """Steps 4 to 8, over the end of an epoch, on two ranks; the whole is compared with a run that nothing disturbed."""
    arguments, seen = plain(shards, tmp_path / "run"), []
    for size, until in ((1, 4), (2, 8), (1, 12)):
        ranks = run_ranks(tmp_path, [*arguments, "--stop-after", str(until)], size)
        assert [rank.code for rank in ranks] == [0] * size
        seen += [sorted(chain(*rows)) for rows in zip(*(rank.rows for rank in ranks), strict=True)]

    assert seen == alone[0]
    assert losses(tmp_path / "run") == pytest.approx(alone[1], abs=1e-5)


def test_every_rank_reads_its_own_rows(shards: Path, tmp_path: Path) -> None:
    first, second = run_ranks(tmp_path, plain(shards, tmp_path / "run", "--stop-after", "2"))

    assert [len(rows) for rows in first.rows + second.rows] == [4] * 4
    assert all(not set(a) & set(b) for a, b in zip(first.rows, second.rows, strict=True))


def test_micro_batches_hold_the_same_rows_on_any_number_of_ranks() -> None:
    whole = np.arange(24).reshape(3, 8)

    parts = [World(rank, 2).places(24, 3).reshape(3, 4) for rank in range(2)]

    assert np.array_equal(np.concatenate(parts, axis=1), whole)


def test_the_first_rank_alone_writes_and_speaks(shards: Path, pair: Path, tmp_path: Path) -> None:
    """A run that is complete only says so."""
    first, second = run_ranks(tmp_path, plain(shards, pair))

    assert "all 12 steps are done" in first.output
    assert "2 ranks, each on CPU" in first.output
    assert second.output == ""
    assert (pair / "results" / "pretrain.json").is_file()


def test_a_step_that_is_not_finite_on_one_rank_is_applied_by_none(shards: Path, tmp_path: Path) -> None:
    """At this rate the first update overflows; the ranks agree on every step that follows, or one of them would wait."""
    arguments = plain(shards, tmp_path / "run", "--lr", "1e38", "--optimizer", "sgd", "--rollbacks", "0")

    ranks = run_ranks(tmp_path, arguments)

    assert [rank.code for rank in ranks] == [1, 1]
    assert "were not finite" in ranks[0].output


# ------------------------------------------------------------------------------------------------------ the end of it


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, EXIT_REQUEUE), (signal.SIGINT, 130)])
def test_a_signal_to_one_rank_stops_all_at_the_same_step(
    number: int, code: int, shards: Path, pair: Path, tmp_path: Path
) -> None:
    arguments = plain(shards, tmp_path / "run")

    ranks = run_ranks(tmp_path, arguments, at=(1, 4, number))

    assert [rank.code for rank in ranks] == [code, code]
    assert [len(rank.rows) for rank in ranks] == [6, 6]
    assert checkpoints(tmp_path / "run")[-1] == 6
    assert [rank.code for rank in run_ranks(tmp_path, arguments)] == [0, 0]
    assert outcome(tmp_path / "run") == outcome(pair)


@pytest.mark.parametrize("dying", [0, 1])
def test_a_rank_that_dies_ends_the_others_in_a_moment(dying: int, shards: Path, tmp_path: Path) -> None:
    begun = time.monotonic()

    ranks = run_ranks(tmp_path, plain(shards, tmp_path / "run"), at=(dying, 4, signal.SIGKILL))

    assert ranks[dying].code == -signal.SIGKILL
    assert ranks[1 - dying].code == 1
    assert f"rank {dying} of 2 has ended: it died" in ranks[1 - dying].output
    assert time.monotonic() - begun < 20


def test_torchrun_starts_again_where_a_rank_died(shards: Path, pair: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    (tmp_path / "out").mkdir()

    done = subprocess.run(
        [*command, str(RANKED), str(tmp_path / "out"), *plain(shards, tmp_path / "run")],
        env=environment(RANK_DIES="1,7", OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "going on from step 6 of 12" in (tmp_path / "out" / "output-0").read_text()
    assert outcome(tmp_path / "run") == outcome(pair)
    assert litter(tmp_path / "run") == []


# ---------------------------------------------------------------------------------------------------- what is refused


def test_other_images_on_one_rank_are_refused_on_all(shards: Path, tmp_path: Path) -> None:
    own = [plain(shards, tmp_path / "run", "--shards", str(shards / name)) for name in ("lab", "rgb")]

    ranks = run_ranks(tmp_path, own)

    assert [rank.code for rank in ranks] == [1, 1]
    for rank in ranks:
        assert "prepared images (digest): rank 1 of 2 has " in rank.output
        assert "rank 0 has " in rank.output
    assert not (tmp_path / "run").exists()


def test_other_options_on_one_rank_are_refused_on_all(shards: Path, tmp_path: Path) -> None:
    own = [plain(shards, tmp_path / "run", "--stop-after", after) for after in ("5", "6")]

    ranks = run_ranks(tmp_path, own)

    assert [rank.code for rank in ranks] == [1, 1]
    assert all("options (digest): rank 1 of 2" in rank.output for rank in ranks)


def test_shards_that_one_rank_misses_are_told_by_all(shards: Path, tmp_path: Path) -> None:
    own = [plain(shards, tmp_path / "run", "--shards", str(path)) for path in (shards / "lab", tmp_path / "nothing")]

    ranks = run_ranks(tmp_path, own)

    assert [rank.code for rank in ranks] == [1, 1]
    assert "rank 1 of 2: " in ranks[0].output
    assert all(str(tmp_path / "nothing") in rank.output for rank in ranks)


def test_a_run_folder_that_the_first_rank_cannot_take_ends_all(shards: Path, pair: Path, tmp_path: Path) -> None:
    ranks = run_ranks(tmp_path, plain(shards, pair, "--epochs", "3"))

    assert [rank.code for rank in ranks] == [1, 1]
    assert "holds another run" in ranks[0].output
    assert "rank 0 of 2: " in ranks[1].output


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--batch-size", "9"], "does not divide by 2 ranks x 1 micro-batches. Use a multiple of 2"),
        (["--accumulate", "8"], "does not divide by 2 ranks x 8 micro-batches. Use a multiple of 16"),
        (["--compile"], "compile with 2 ranks"),
        (["--graphs"], "graphs with 2 ranks"),
        (["--dry-run"], "dry-run with 2 ranks"),
    ],
)
def test_what_ranks_cannot_do_is_refused_before_they_meet(
    more: list[str], text: str, shards: Path, tmp_path: Path
) -> None:
    result = invoke(*plain(shards, tmp_path / "run", *more), **rank_environment(1, 2, 1))

    assert result.exit_code == 2
    assert text in " ".join(result.output.split())


def test_other_commands_are_of_one_process(tmp_path: Path) -> None:
    result = invoke("finetune", "--run", str(tmp_path), **rank_environment(0, 2, 1))

    assert result.exit_code == 2
    assert "Start it without torchrun" in result.output


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"WORLD_SIZE": "2"}, "RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT not set"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        (rank_environment(2, 2, 1), "RANK is 2, WORLD_SIZE 2"),
    ],
)
def test_variables_that_contradict_one_another_are_named(variables: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        from_environment(variables)


def test_one_process_is_a_world_of_its_own() -> None:
    assert from_environment({}) is ALONE
    assert from_environment({"WORLD_SIZE": "1", "RANK": "0"}) is ALONE
    assert "RANK" not in os.environ
