"""What the loop does besides learning: lines, guards, rollbacks; and that it learns what it learned before."""

import json
import math
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from runs import CPU, checkpoints, lines, outcome, small_parts
from sbformat.manifest import Manifest
from sbtrain import events
from sbtrain.data import Batch, Loader
from sbtrain.loop import Ended, Habits, train
from sbtrain.methods import Method
from sbtrain.metrics import Line, MetricsFile, Stopwatch, Totals
from sbtrain.progress import ProgressPrinter, bytes_text, progress_text
from sbtrain.ranks.world import World
from sbtrain.runtime import RunError, StopRequest
from sbtrain.step import gradient_norm
from sbtrain.tensor_files import load_tensors

HABITS = Habits(log_every=1, checkpoint_every=4, keep_last=9)
GOLDEN = Path(__file__).with_name("golden_losses.json")


class Quiet:
    def due(self) -> bool:
        return False

    def show(self, line: Line) -> None:
        pass


def run(
    manifest: Manifest,
    folder: Path,
    poison: Callable[[Batch], bool] | None = None,
    say: Callable[[str], None] = print,
    habits: Habits = HABITS,
    **fields: Any,
) -> tuple[Ended, Method, Loader]:
    """Train in `folder`; batches for which `poison` is true have a loss that is no number."""
    config, method, loader = small_parts(manifest, **fields)
    clean = method.loss

    def loss(batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        value, logs = clean(batch)
        return (value * math.nan if poison and poison(batch) else value), logs

    method.loss = loss  # type: ignore[method-assign]
    folder.mkdir(exist_ok=True)
    ended = train(config, method, loader, folder, CPU, habits, StopRequest(), say, Quiet())
    return ended, method, loader


def holds(loader: Loader, step: int) -> Callable[[Batch], bool]:
    rows = loader.rows_of(step).tolist()
    return lambda batch: batch.index.tolist() == rows


def test_a_non_finite_step_changes_no_weight_and_is_counted(lab: Manifest, tmp_path: Path) -> None:
    """Step 2 never happens: the weights after 3 steps are those after 2, statistics and moments included."""
    *_, loader = small_parts(lab)

    run(lab, tmp_path / "a", holds(loader, 2), habits=Habits(log_every=1, checkpoint_every=1, keep_last=20))

    before, after = (tmp_path / "a" / "checkpoints" / f"step-{step:08d}" for step in (2, 3))
    for name in ("model.safetensors", "optim.safetensors"):
        assert (before / name).read_bytes() == (after / name).read_bytes()
    found = lines(tmp_path / "a")
    assert [line["skipped"] for line in found] == [0, 0] + [1] * 10
    assert found[2]["loss"] is None
    assert all(line["loss"] is not None for line in found if line["step"] != 3)


def test_a_rollback_never_repeats_its_steps_for_ever(lab: Manifest, tmp_path: Path) -> None:
    said: list[str] = []
    *_, loader = small_parts(lab)
    poisoned = [loader.rows_of(step).tolist() for step in range(4, 8)]
    seen: list[list[int]] = []

    def poison(batch: Batch) -> bool:
        seen.append(batch.index.tolist())
        return batch.index.tolist() in poisoned

    ended, *_ = run(lab, tmp_path / "run", poison, said.append, bad_steps=4, epochs=3)

    assert ended.complete
    assert ended.rollbacks == 1
    assert any("Back to step 4, passing over 4 batches (rollback 1 of 3)" in text for text in said), said
    # 8 batches, back to step 4, then the 14 steps to 18 with the data from batch 8 on.
    assert seen == [loader.rows_of(step).tolist() for step in range(22)]
    assert [line["step"] for line in lines(tmp_path / "run")] == list(range(1, 19))


def test_what_networks_draw_is_a_function_of_the_batch_also_after_a_rollback(lab: Manifest, tmp_path: Path) -> None:
    def drawn(bad: range, name: str) -> list[float]:
        found: list[float] = []

        def poison(batch: Batch) -> bool:
            found.append(float(torch.rand(())))
            return len(found) - 1 in bad

        run(lab, tmp_path / name, poison, lambda _: None, bad_steps=4, epochs=3)
        return found

    plain, rolled_back = drawn(range(0), "plain"), drawn(range(4, 8), "rolled back")

    assert len(set(rolled_back)) == 22
    assert rolled_back[:18] == plain


def test_each_rank_draws_its_own_numbers() -> None:
    """Else its rows of a batch would share their masks with other ranks'."""
    found = []
    for rank in range(3):
        replace(CPU, world=World(rank, 3)).seed_step(0, 7)
        found.append(float(torch.rand(())))

    assert len(set(found)) == 3


def test_a_run_whose_data_are_all_bad_stops_after_its_rollbacks(lab: Manifest, tmp_path: Path) -> None:
    said: list[str] = []

    with pytest.raises(RunError, match="also after going back 2 times"):
        run(lab, tmp_path / "run", lambda _: True, said.append, bad_steps=2, rollbacks=2, epochs=9)

    assert sum("Back to step" in text for text in said) == 2


def test_a_rolled_back_run_resumes_to_the_same_bits(lab: Manifest, tmp_path: Path) -> None:
    """Also where it is stopped among the bad steps: a rollback goes to a regular checkpoint, not to a signal's."""
    *_, loader = small_parts(lab)
    poisoned = [loader.rows_of(step).tolist() for step in range(4, 8)]

    def poison(batch: Batch) -> bool:
        return batch.index.tolist() in poisoned

    habits = Habits(log_every=1, checkpoint_every=4)
    run(lab, tmp_path / "whole", poison, habits=habits, bad_steps=4)

    for stop in (5, 6, 10):  # two of them in a row: those that are kept, were regular ones not kept besides
        run(lab, tmp_path / "parts", poison, habits=replace(habits, stop_after=stop), bad_steps=4)
    run(lab, tmp_path / "parts", poison, habits=habits, bad_steps=4)

    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_a_rollback_leaves_no_checkpoint_of_the_bad_stretch(lab: Manifest, tmp_path: Path) -> None:
    """Else a run killed before its next save would go on in the middle of it."""
    run(lab, tmp_path / "run", lambda _: True, habits=replace(HABITS, stop_after=3), bad_steps=4)
    assert checkpoints(tmp_path / "run") == [0, 3]

    with pytest.raises(RunError):
        run(lab, tmp_path / "run", lambda _: True, bad_steps=4, rollbacks=0)

    assert checkpoints(tmp_path / "run") == [0]


def overflowing(method: Method, at: int) -> None:
    """Let a statistic of BatchNorm overflow at step `at`: while it trains no loss and no gradient shows it."""
    clean, calls = method.loss, 0

    def loss(batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        nonlocal calls
        if calls == at:
            next(m for m in method.modules() if isinstance(m, torch.nn.BatchNorm2d)).running_var.fill_(math.inf)
        calls += 1
        return clean(batch)

    method.loss = loss  # type: ignore[method-assign]


@pytest.mark.parametrize("at", [3, 11], ids=["regular save", "last step"])
def test_weights_that_are_not_finite_are_never_a_regular_checkpoint(at: int, lab: Manifest, tmp_path: Path) -> None:
    said: list[str] = []
    config, method, loader = small_parts(lab)
    overflowing(method, at)

    ended = train(config, method, loader, tmp_path, CPU, HABITS, StopRequest(), said.append, Quiet())

    assert (ended.complete, ended.rollbacks) == (True, 1)
    assert any(f"step {at + 1}: weights were not finite. Back to step {at - 3}" in text for text in said), said
    for path in (tmp_path / "checkpoints").iterdir():
        assert all(bool(t.isfinite().all()) for t in load_tensors(path / "model.safetensors").values())


def test_an_update_that_always_overflows_ends_the_run(lab: Manifest, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"step 1: weights were not finite, also after going back 3 times"):
        run(
            lab, tmp_path / "run", habits=replace(HABITS, checkpoint_every=1), optimizer="sgd", lr=1e3, weight_decay=1e38
        )  # fmt: skip

    assert checkpoints(tmp_path / "run") == [0]


def test_a_run_of_which_the_last_half_was_not_applied_does_not_end_well(lab: Manifest, tmp_path: Path) -> None:
    """The first step puts the weights where no loss is finite; bad_steps, 10, does not divide the 12 steps."""
    with pytest.raises(RunError, match=r"step 12: 11 of 12 steps were not finite, also after going back 3 times"):
        run(lab, tmp_path / "run", lr=1e30)


def test_a_run_says_that_its_last_steps_were_not_applied(lab: Manifest, tmp_path: Path) -> None:
    said: list[str] = []
    *_, loader = small_parts(lab)

    ended, *_ = run(lab, tmp_path / "run", holds(loader, 11), said.append)

    assert (ended.complete, ended.rollbacks) == (True, 0)
    assert "step 12: not finite, so not applied: the last 1 of 12 steps" in said


def test_micro_batches_give_the_gradient_of_the_batch(lab: Manifest) -> None:
    """For a network without BatchNorm, whose statistics are of a micro-batch."""
    _, method, loader = small_parts(lab, method="denoising", network="autoencoder")
    batch = next(loader.batches(0, 1))
    gradients = []
    for count in (1, 4):
        method.zero_grad()
        for part in batch.parts(count):
            (method.loss(part)[0] / count).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None]))

    assert torch.allclose(*gradients, atol=1e-7, rtol=1e-4)


def test_accumulated_steps_train(lab: Manifest, tmp_path: Path) -> None:
    ended, *_ = run(lab, tmp_path / "run", accumulate=2)

    assert ended.complete
    assert len(lines(tmp_path / "run")) == 12


def test_clipping_bounds_the_norm() -> None:
    weight = torch.nn.Parameter(torch.zeros(4))
    weight.grad = torch.full((4,), 5.0)

    assert gradient_norm([weight], 2.0).item() == 10.0
    assert weight.grad.norm().item() == pytest.approx(2.0)
    assert gradient_norm([weight], 0.0).item() == pytest.approx(2.0)
    assert weight.grad.norm().item() == pytest.approx(2.0)


def test_the_best_checkpoint_is_that_of_lowest_mean_loss(lab: Manifest, tmp_path: Path) -> None:
    habits = Habits(log_every=4, checkpoint_every=4, keep_last=9)
    run(lab, tmp_path / "run", habits=habits)

    losses = [
        json.loads((p / "state.json").read_text())["loss"] for p in sorted((tmp_path / "run/checkpoints").iterdir())
    ]

    assert losses[0] is None
    assert losses[1:] == [line["loss"] for line in lines(tmp_path / "run")]


def test_bfloat16_trains_within_a_percent_of_float32(lab: Manifest, tmp_path: Path) -> None:
    config, method, loader = small_parts(lab)
    run(lab, tmp_path / "full")
    (tmp_path / "half").mkdir()

    train(
        config, method, loader, tmp_path / "half", replace(CPU, dtype=torch.bfloat16), Habits(log_every=1),
        StopRequest(), print, Quiet(),
    )  # fmt: skip

    full, half = (lines(tmp_path / name)[-1]["loss"] for name in ("full", "half"))
    assert half == pytest.approx(full, rel=0.01)
    assert half != full


def test_twenty_steps_give_the_losses_that_they_gave_before(lab: Manifest, tmp_path: Path) -> None:
    """Catches silent drift. Tolerance 1e-2 of 6 to 9: two threads in place of one differ by 1e-3, other processors by more."""
    run(lab, tmp_path / "run", habits=Habits(log_every=1, stop_after=20), epochs=4, lr=1e-4)
    found = [line["loss"] for line in lines(tmp_path / "run")]

    assert found == pytest.approx(json.loads(GOLDEN.read_text()), abs=1e-2)


# ------------------------------------------------------------------------------------------------ what is written


def test_means_are_of_the_steps_applied() -> None:
    totals = Totals(torch.device("cpu"))
    for value, finite in ((1.0, True), (math.nan, False), (3.0, True)):
        totals.add(["loss"], torch.tensor([value]), torch.tensor(finite))
    mark = totals.read()
    totals.add(["loss"], torch.tensor([7.0]), torch.tensor(True))

    assert totals.means_since([]) == {"loss": pytest.approx(11 / 3)}
    assert totals.means_since(mark) == {"loss": 7.0}
    assert totals.skipped == 1


def _line(step: int) -> Line:
    return Line(step, 10, 8, {"loss": 1.5, "lr": 0.1}, {"seconds": 1.0, "images_per_s": 8.0, "data_wait": 0.25})


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path, 0, print)
    for step in (1, 2, 3):
        file.append(_line(step))
    file.close()
    with (tmp_path / "metrics.jsonl").open("ab") as torn:
        torn.write(b'{"step": 4, "lo')

    MetricsFile(tmp_path, 2, print).close()

    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    file = MetricsFile(tmp_path, 0, print)
    file.append(_line(200))
    file.append(_line(400))
    file.close()

    found = list(loading.LegacyEventFileLoader(str(tmp_path / events.NAME)).Load())

    assert found[0].file_version == "brain.Event:2"
    assert [event.step for event in found[1:]] == [200, 400]
    scalars = {value.tag: value.simple_value for value in found[1].summary.value}
    assert scalars["loss"] == 1.5
    assert scalars["speed/images_per_s"] == 8.0


def test_the_checksum_is_crc32c() -> None:
    """RFC 3720, appendix B.4: 32 bytes of zeros give 8a9136aa."""
    masked = events._masked_crc(bytes(32))
    crc = (masked - 0xA282EAD8) & 0xFFFFFFFF

    assert (crc << 15 | crc >> 17) & 0xFFFFFFFF == 0x8A9136AA
    assert struct.calcsize("<Q") == 8


def test_a_progress_line_says_how_far_how_fast_and_how_long() -> None:
    text = progress_text(_line(5), rate=8.0)

    assert text == "step 5/10  50% · loss 1.5000 · 8 images/s · data wait 25.0% · 5 s left"


def test_a_progress_line_on_cuda_has_flops_mfu_and_memory() -> None:
    line = replace(_line(5), speed={**_line(5).speed, "tflops": 300.0, "mfu": 0.3, "peak_memory_gb": 20.0})

    assert "300.0 TFLOP/s (MFU 30%) · 20.0 GB" in progress_text(line, 8.0)


def test_nobody_watching_gets_a_line_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    printer = ProgressPrinter()
    for step in range(1, 11):
        printer.show(_line(step))

    assert capsys.readouterr().err.count("\n") == 1


def test_the_time_left_is_told_when_the_first_steps_are_past(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, *(second for second in (11.0, 22.0, 33.0) for _ in range(2))])
    monkeypatch.setattr("sbtrain.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    printer = ProgressPrinter()
    for step in (1, 2, 3):
        printer.show(_line(step))

    assert ["left" in line for line in capsys.readouterr().err.splitlines()] == [False, False, True]


@pytest.mark.parametrize(("count", "text"), [(31_000, "31 kB"), (1e6, "1 MB"), (14.2e9, "14.2 GB")])
def test_bytes_are_told_in_units_of_their_size(count: float, text: str) -> None:
    assert bytes_text(count) == text


def test_speed_is_of_the_steps_since_the_last_line(lab: Manifest) -> None:
    *_, loader = small_parts(lab)
    watch = Stopwatch(8, loader.waiting, torch.device("cpu"))
    for _ in range(3):
        watch.tick()

    speed = watch.read()

    assert speed["images_per_s"] * speed["seconds"] == pytest.approx(24)
    assert set(speed) == {"seconds", "images_per_s", "data_wait"}


def test_a_run_begins_with_a_checkpoint(lab: Manifest, tmp_path: Path) -> None:
    run(lab, tmp_path / "run", habits=Habits(stop_after=0))

    assert checkpoints(tmp_path / "run") == [0]
