"""Alarms of pretraining: collapsed runs are told within an epoch, healthy ones are left alone, and nothing else changes."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from builds import small_config
from reports import report
from runs import CPU, command, lines, outcome, small_parts
from sbformat.manifest import open_manifest
from sbformat.schema import TargetSpec
from sbprep.pipeline import build
from sbtrain.alarms import WHAT_TO_DO, Alarms, effective_rank, information, judge, on_a_line, read_signs
from sbtrain.cli import main
from sbtrain.events import NAME
from sbtrain.methods import SelfClassifier
from sbtrain.methods.seen import Seen
from sbtrain.methods.simsiam import overlap
from sbtrain.metrics import CALM, Alarm, Line, Totals
from sbtrain.runtime import RunError
from sbtrain.step import Step

#: Twelve steps an epoch; one takes a tenth of a second.
VIEWS = ("--network", "half:simplenet", "--view-size", "52", "--augmentation", "simsiam_cifar", "--batch-size", "32",
         "--epochs", "1", "--schedule", "constant", "--optimizer", "sgd", "--precision", "float32", "--log-every", "50")  # fmt: skip
#: The rate is so high that a dozen steps suffice.
SIMSIAM = (*VIEWS, "--method", "simsiam", "--projector", "two-layer", "--lr", "1")
SELF_CLASSIFIER = (*VIEWS, "--method", "self_classifier", "--head", "64-32", "--optimizer", "adam", "--lr", "1e-3")


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """384 built-in images. Not to be changed."""
    out = tmp_path_factory.mktemp("views") / "shards"
    config = small_config(None, out, "rgb", image_size=16, target=TargetSpec(size=4), images_per_shard=400, limit=384)
    build(config)
    return out / "rgb"


@pytest.fixture(scope="module")
def collapsed(views: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of a run without the prior, whose alarms came, and what it said. Not to be changed."""
    run_dir = tmp_path_factory.mktemp("collapsed") / "run"
    result = invoke(*command(views, run_dir, *SELF_CLASSIFIER, "--prior", "none", "--log-every", "4"))
    assert result.exit_code == 0, result.output
    return run_dir, result.output


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def kinds(run_dir: Path) -> list[list[str]]:
    return [[alarm["kind"] for alarm in line["alarms"]] for line in lines(run_dir)]


def line(*alarms: Alarm, step: int = 4) -> Line:
    return Line(step, 100, 8, {"loss": 1.0}, {"seconds": 1.0}, alarms)


# ------------------------------------------------------------------------------------------------- what is flagged


@pytest.mark.parametrize("seed", ["0", "1"])
def test_simsiam_without_stop_gradient_is_flagged_within_one_epoch(seed: str, views: Path, tmp_path: Path) -> None:
    """The line at the end of the epoch comes although none is due. More seeds and settings: soak_alarms.py."""
    result = invoke(*command(views, tmp_path / "run", *SIMSIAM, "--lr", "2", "--no-stop-gradient", "--seed", seed))

    assert result.exit_code == 0, result.output
    assert "overlap" in kinds(tmp_path / "run")[-1]
    assert re.search(
        r"step \d+: ALARM: collapse: embeddings come to lie on one line: mean squared cosine", result.output
    )


@pytest.mark.parametrize(
    ("alignment", "overlap", "steps", "flagged"),
    [
        (0.66, 0.80, 14, True),  # 64 steps without the stop-gradient
        (0.66, 0.80, 9, False),  # too few to tell
        (0.99, 0.99, 1, True),  # its end
        (0.77, 0.24, 50, False),  # CIFAR-10 after five passes, 200-NN 36 %
        (0.79, 0.76, 50, False),  # the worst of a healthy run, which passed
        (0.22, 0.04, 50, False),  # new weights
    ],
)
def test_a_line_is_told_by_the_views_of_an_image(alignment: float, overlap: float, steps: int, flagged: bool) -> None:
    assert on_a_line(alignment, overlap, steps) == flagged


def test_self_classifier_without_the_prior_is_flagged_within_one_epoch(collapsed: tuple[Path, str]) -> None:
    run_dir, said = collapsed

    assert all("classes" in found for found in kinds(run_dir)[1:])
    assert len(re.findall(r"ALARM: collapse: \d of 10 classes in use", said)) == 1, "once, not at every line"
    assert lines(run_dir)[-1]["classes_used"] == 1


@pytest.mark.parametrize("seed", ["0", "1"])
@pytest.mark.parametrize("method", [SIMSIAM, SELF_CLASSIFIER], ids=["simsiam", "self-classifier"])
def test_a_healthy_run_raises_no_flag(method: tuple[str, ...], seed: str, views: Path, tmp_path: Path) -> None:
    result = invoke(*command(views, tmp_path / "run", *method, "--seed", seed, "--log-every", "4"))

    assert result.exit_code == 0, result.output
    assert kinds(tmp_path / "run") == [[], [], []]
    assert "ALARM" not in result.output


def test_a_loss_that_stays_at_ln_c_is_flagged() -> None:
    """Rows of logits that are equal; a loss that only passes by is none."""
    z = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    spread = torch.randn(64, 10, generator=torch.Generator().manual_seed(1))
    pinned, learning = (read_signs(Seen(z, z, logits)) for logits in (1e-4 * spread, 0.1 * spread))
    assert pinned is not None
    assert learning is not None

    assert [alarm.kind for alarm in judge(pinned, {"loss": math.log(10) + 1e-3}, 50)] == ["loss"]
    assert judge(pinned, {"loss": 2.0}, 50) == []
    assert judge(learning, {"loss": math.log(10)}, 50) == []


def test_ln_c_of_several_classifiers_is_their_mean(views: Path) -> None:
    """Of the published four, 1,000 to 8,000 classes, equal rows give 1.04 more than ln 1,000."""
    _, method, loader = small_parts(open_manifest(views.parent, "rgb"), network="half:simplenet", view_size=52,
                                    method="self_classifier", head="16", classes="4,8,16", batch_size=16,
                                    augmentation="simsiam_cifar")  # fmt: skip
    assert isinstance(method, SelfClassifier)
    torch.nn.init.zeros_(method.head[0].weight)  # type: ignore[arg-type]
    torch.nn.init.ones_(method.head[0].bias)  # type: ignore[arg-type]

    loss = method.loss(next(loader.batches(0, 1)))[0].item()

    assert loss == pytest.approx(math.log(8), abs=1e-4)
    assert method.seen is not None
    signs = read_signs(method.seen)
    assert signs is not None
    assert [alarm.text for alarm in judge(signs, {"loss": loss}, 50) if alarm.kind == "loss"] == [
        "collapse: loss 2.0794 stays at ln C = 2.0794: every image has the same probabilities"
    ]


def test_recent_means_are_of_enough_steps_and_the_same_after_a_checkpoint() -> None:
    """Ten steps and more at a time, or since the time before."""
    found: list[list[tuple[float | None, float]]] = []
    for resumed in (False, True):
        totals, seen = Totals(torch.device("cpu")), []
        for step in range(1, 31):
            totals.add(["loss"], torch.tensor([float(step)]), torch.tensor(True))
            if step in (4, 12, 15, 24, 30):
                means, steps = totals.recent_means(10)
                seen.append((means["loss"], steps))
            if resumed and step == 15:
                after = Totals(torch.device("cpu"))
                after.load(totals.names, totals.read(), totals.recent)
                totals = after
        found.append(seen)

    assert found[0] == [(2.5, 4), (6.5, 12), (8, 15), (18.5, 12), (21.5, 18)]
    assert found[1] == found[0]


def test_logs_of_another_version_begin_anew_and_skipped_steps_stay_counted() -> None:
    totals = Totals(torch.device("cpu"))
    totals.load(["loss", "feature_std"], [9.0, 5.0, 6.0, 2.0])
    mark = totals.read()

    totals.add(["loss", "overlap", "alignment"], torch.tensor([3.0, 0.5, float("inf")]), torch.tensor(True))

    assert totals.means_since(mark) == {"loss": 3.0, "overlap": 0.5, "alignment": 0.0}
    assert (totals.skipped, totals.applied_since(mark)) == (2, 1)


def test_one_image_has_no_overlap() -> None:
    assert overlap(torch.ones(1, 8)) == pytest.approx(0, abs=1e-6)
    assert overlap(torch.ones(4, 8)) == pytest.approx(1)
    assert overlap(torch.eye(4, 8)) == pytest.approx(0, abs=1e-6)


def test_a_few_dimensions_are_flagged() -> None:
    """Three; eight pass, as healthy runs have them."""
    found = []
    for dimensions in (3, 8):
        z = torch.randn(64, dimensions, generator=torch.Generator().manual_seed(0)) @ torch.eye(dimensions, 16)
        signs = read_signs(Seen(z, z))
        assert signs is not None
        found.append([alarm.kind for alarm in judge(signs, {}, 50)])

    assert found == [["rank"], []]


def test_one_point_is_flagged() -> None:
    z = torch.ones(64, 16) + 0.01 * torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    signs = read_signs(Seen(z, z))
    assert signs is not None

    assert [alarm.kind for alarm in judge(signs, {"loss": -1.0}, 50)] == ["std", "rank"]


def test_steps_that_are_not_finite_are_flagged(views: Path) -> None:
    """With what training goes on by: the guard has not applied them."""
    config, method, loader = small_parts(open_manifest(views.parent, "rgb"), network="half:simplenet", method="simsiam",
                                         projector="report", view_size=52)  # fmt: skip
    step = Step(config, method, CPU)
    next(method.parameters()).detach()[0] = math.inf
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    step(next(loader.batches(0, 1)), 1e-3)

    seen = Alarms("warn", method, 12, lambda _: None).add(method, line(), {}, 0, step.totals.skipped_since([]), 2)

    text = "not finite, so not applied: 1 of the steps since the last line; gone back to a checkpoint, 2 in a row"
    assert seen.alarms == (Alarm("nan", text),)
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())


# ----------------------------------------------------------------------------------------------------- the numbers


def test_the_rank_of_equal_directions_is_their_number() -> None:
    assert effective_rank(torch.eye(8).repeat(4, 1)) == pytest.approx(8)
    assert effective_rank(torch.ones(32, 8)) == pytest.approx(1, abs=1e-5)


def test_information_is_ln_c_for_sure_and_balanced_classes() -> None:
    assert information(10 * torch.eye(4)) == pytest.approx(math.log(4))
    assert information(torch.ones(8, 4)) == pytest.approx(0, abs=1e-12)


# --------------------------------------------------------------------------------------------------- what it tells


def test_an_alarm_is_said_when_it_begins_and_when_it_is_over() -> None:
    said: list[str] = []
    alarms = Alarms("warn", torch.nn.Identity(), 12, said.append)  # type: ignore[arg-type]
    on = line(Alarm("overlap", "collapse: flat"))

    for each in (on, line(), on, *[line(step=9)] * CALM, line()):
        alarms.tell(each)

    assert said == ["step 4: ALARM: collapse: flat", "step 9: alarm over: embeddings of different images differ again"]


def test_an_alarm_that_is_on_at_the_end_is_said_again() -> None:
    said: list[str] = []
    alarms = Alarms("warn", torch.nn.Identity(), 12, said.append)  # type: ignore[arg-type]
    for step in (96, 98):
        alarms.tell(line(Alarm("overlap", "collapse: flat"), step=step))
    alarms.tell(line(step=100))  # one line without it: it is not over

    assert said[:1] == ["step 96: ALARM: collapse: flat"]
    assert said[1:] == [f"step 100: ALARM still on at the end: collapse: flat. {WHAT_TO_DO}"]


def test_stop_ends_the_run(views: Path, tmp_path: Path) -> None:
    arguments = command(views, tmp_path / "run", *SELF_CLASSIFIER, "--prior", "none", "--log-every", "4")
    result = invoke(*arguments, "--alarm", "stop")

    assert result.exit_code == 1
    assert "Stopped, as --alarm stop asks" in result.output
    assert kinds(tmp_path / "run")[-1] == ["classes"], "the line with the alarm is there"
    assert lines(tmp_path / "run")[-1]["step"] < 12


def test_stop_leaves_steps_that_are_not_finite_to_the_guard() -> None:
    alarms = Alarms("stop", torch.nn.Identity(), 12, lambda _: None)  # type: ignore[arg-type]
    alarms.tell(line(Alarm("nan", "1 step")))

    with pytest.raises(RunError, match="collapse: flat"):
        alarms.tell(line(Alarm("overlap", "collapse: flat")))


def test_events_and_the_report_show_it(collapsed: tuple[Path, str], tmp_path: Path) -> None:
    run_dir, _ = collapsed
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    events = [event for event in loading.EventFileLoader(str(run_dir / NAME)).Load() if event.HasField("summary")]
    shown = [value.tensor.float_val[0] for event in events for value in event.summary.value if value.tag == "alarms"]
    assert shown == [float(len(found)) for found in kinds(run_dir)]

    _, page, _ = report(run_dir, out=tmp_path / "page.html")

    row = r"run collapse: \d of 10 classes in use, entropy 0.\d\d of 1, expected 0.1 or more [48] to 12 "
    assert re.search(row, re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page)))


# ------------------------------------------------------------------------------------ training does not know of it


def test_training_is_the_same_to_the_bit(collapsed: tuple[Path, str], views: Path, tmp_path: Path) -> None:
    more = (*SELF_CLASSIFIER, "--prior", "none", "--log-every", "4", "--alarm", "off")
    assert invoke(*command(views, tmp_path / "run", *more)).exit_code == 0

    assert outcome(tmp_path / "run")[0] == outcome(collapsed[0])[0]
    assert all("alarms" not in line and "embedding_rank" not in line for line in lines(tmp_path / "run"))


def test_a_stopped_run_writes_the_same_lines(collapsed: tuple[Path, str], views: Path, tmp_path: Path) -> None:
    arguments = command(views, tmp_path / "run", *SELF_CLASSIFIER, "--prior", "none", "--log-every", "4")
    assert invoke(*arguments, "--stop-after", "5").exit_code == 0
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output

    assert outcome(tmp_path / "run") == outcome(collapsed[0])


def test_other_methods_have_no_line_more(shards: Path, tmp_path: Path) -> None:
    """Six steps an epoch: lines come where they are asked for, and say that nothing is wrong."""
    assert invoke(*command(shards / "lab", tmp_path / "run", "--log-every", "5")).exit_code == 0

    found = lines(tmp_path / "run")
    assert [(line["step"], line["alarms"]) for line in found] == [(5, []), (10, []), (12, [])]
    assert json.dumps(found).count("embedding") == 0
