"""The training loop, top to bottom. Everything about a step is a function of its number, so any run can be resumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sbtrain import checkpoint
from sbtrain.alarms import ENOUGH_STEPS, Alarms, Mode
from sbtrain.config import PretrainConfig
from sbtrain.data import Loader
from sbtrain.graphs import GraphedStep
from sbtrain.methods import Method
from sbtrain.metrics import Line, MetricsFile, NoMetrics, Stopwatch, Totals
from sbtrain.monitor import Monitor, MonitorConfig
from sbtrain.optim import learning_rate
from sbtrain.retention import prune
from sbtrain.runtime import RunError, Runtime, StopRequest
from sbtrain.step import Step

#: Between two checkpoints, at most: whatever ends a process without a word takes no more than this with it.
SAVE_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class Habits:
    """What a run does besides learning; none of it changes the weights."""

    log_every: int = 50
    """Steps between lines of metrics.jsonl: these wait for the device, as progress does and every ``bad_steps`` steps."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; where that takes longer than `SAVE_SECONDS` some come between, to resume from alone."""
    keep_last: int = 2
    keep_best: bool = False
    """Keep the checkpoint of lowest mean training loss as well."""
    stop_after: int | None = None
    """End, resumably, when this many steps are done in all."""
    graphs: bool = False
    """Replay steps as CUDA graphs."""
    monitor: MonitorConfig | None = None
    """Look at the features now and then."""
    alarm: Mode = "warn"
    """What happens where features collapse or steps are not finite."""


@dataclass(frozen=True)
class Ended:
    """How a call of `train` ended."""

    step: int
    steps: int
    signal: int | None
    rollbacks: int = 0
    """Times that the run went back to a checkpoint in this call."""

    @property
    def complete(self) -> bool:
        """True where every step is done."""
        return self.step == self.steps


class Progress(Protocol):
    """Shows a person how a run goes."""

    def due(self) -> bool:
        """Return True where something should be shown now."""

    def show(self, line: Line) -> None:
        """Show it."""


def train(
    config: PretrainConfig,
    method: Method,
    loader: Loader,
    run_dir: Path,
    runtime: Runtime,
    habits: Habits,
    stop: StopRequest,
    say: Callable[[str], None],
    progress: Progress,
    flops: tuple[float | None, float | None] = (None, None),
    monitor: Monitor | None = None,
) -> Ended:
    """Train `method` from its newest checkpoint, or from the start, to the end or to a signal.

    Parameters
    ----------
    flops : tuple
        FLOPs of an image, and the device's peak in FLOP/s; for the log alone.
    monitor : Monitor, optional
        Looks at the features, for the log alone.

    Raises
    ------
    RunError
        Losses, gradients or weights stay non-finite after every rollback, or features have collapsed and ``habits.alarm``
        is "stop".
    CheckpointError
        All checkpoints are damaged.
    OSError
        The very first checkpoint cannot be written.
    """
    steps = config.epochs * loader.steps_per_epoch
    warmup = config.warmup + config.warmup_epochs * loader.steps_per_epoch
    folder, world = run_dir / "checkpoints", runtime.world
    learn = (GraphedStep if habits.graphs else Step)(config, method, runtime)
    guard, totals, monitor = learn.guard, learn.totals, monitor or Monitor()
    alarms = Alarms(habits.alarm, method, loader.steps_per_epoch, say, world.first)
    watch = Stopwatch(config.batch_size, loader.waiting, runtime.device, *flops)
    line_mark: list[float] = []  # readings of `totals` at the last line and at the last regular checkpoint
    save_mark: list[float] = []
    step = shift = rollbacks = went_back = 0  # batch of step s: number s + shift, as rollbacks skip data

    def save(regular: bool) -> None:
        nonlocal save_mark, rollbacks
        loss = None
        if regular:
            loss, save_mark = totals.means_since(save_mark).get("loss"), totals.read()
            if guard.in_row == 0:
                rollbacks = 0
        marks = {
            "names": totals.names, "sums": totals.read(), "line": line_mark, "save": save_mark, "recent": totals.recent,
        }  # fmt: skip
        state = {
            "totals": marks, "bad": guard.in_row, "shift": shift, "rollbacks": rollbacks, "loss": loss,
            "regular": regular,
        }  # fmt: skip
        if not world.first:
            return
        metrics.sync()
        checkpoint.save(folder, step, method, learn.optimizer, state)
        prune(folder, step, habits.keep_last, habits.keep_best)

    def try_to_save(regular: bool = True) -> None:
        try:
            save(regular)
        except OSError as error:  # a full disk must not end a run: the older checkpoints are still whole
            say(f"checkpoint of step {step} was not written: {error}. Training goes on; make room")

    def restore(regular: bool = False) -> int | None:
        nonlocal line_mark, save_mark, shift, rollbacks
        found = checkpoint.latest_for_all(world, folder, say, regular)
        if found is None:
            return None
        found.load_model(method)
        found.load_optimizer(learn.optimizer)
        learn.reset()
        state, marks = found.state, found.state["totals"]
        totals.load(marks["names"], marks["sums"], marks.get("recent"))
        line_mark, save_mark, shift, rollbacks = marks["line"], marks["save"], state["shift"], state["rollbacks"]
        guard.in_row = state["bad"]
        return found.step

    resumed = restore()
    step = resumed or 0
    metrics = MetricsFile(run_dir, step, say) if world.first else NoMetrics()
    if resumed is None:
        save(regular=True)  # a disk that cannot take it is found out now, and a rollback has somewhere to go
    else:
        say(f"going on from step {step:,} of {steps:,}")
    saved, saved_at, asked = step, time.monotonic(), None
    batches = loader.batches(step + shift, steps + shift)
    method.train()
    watch.restart()
    try:
        while step < steps and (asked := world.stopping(stop.signal)) is None and step != habits.stop_after:
            # ------------------------------------------------------------------------------------------ one step
            batch = next(batches)
            lr = learning_rate(
                step, steps, loader.steps_per_epoch, config.lr, config.schedule, warmup, config.decay,
                config.warmup_lr, config.final_lr,
            )  # fmt: skip
            runtime.seed_step(config.seed, step + shift)  # of the batch: also after a rollback
            learn(batch, lr)
            watch.tick()
            step += 1
            # ------------------------------------------------------------------------ once in a while: the rest
            saving = step % habits.checkpoint_every == 0 or step == steps
            if trouble := _trouble(learn, step, steps, config.bad_steps, saving):
                where, rolled, skipped = step, rollbacks + 1, shift
                step = restore(regular=True) or 0
                if world.first:
                    prune(folder, step, habits.keep_last, habits.keep_best)  # those within the bad stretch
                if rolled > config.rollbacks:
                    raise RunError(_given_up(where, trouble, config.rollbacks, folder))
                # Another stretch of data: with the same one it would happen again, for ever.
                rollbacks, shift, guard.in_row = rolled, skipped + where - step, 0
                went_back += 1
                say(
                    f"step {where}: {trouble}. Back to step {step}, passing over "
                    f"{where - step} batches (rollback {rolled} of {config.rollbacks})"
                )
                batches.close()
                batches = loader.batches(step + shift, steps + shift)
                metrics.cut(step)
                watch.restart()
                saved = step
                continue
            if step % habits.log_every == 0 or step == steps or monitor.due(step, steps) or alarms.due(step):
                line = _line(step, steps, lr, loader, totals, line_mark, watch)
                recent = totals.recent_means(ENOUGH_STEPS)
                line = alarms.add(method, line, *recent, totals.skipped_since(line_mark), rollbacks)
                line = monitor.add(method, line)
                line_mark = totals.read()
                metrics.append(line)
                progress.show(line)
                alarms.tell(line)
                watch.restart()
            elif progress.due():
                progress.show(_line(step, steps, lr, loader, totals, line_mark, watch))
            if saving or time.monotonic() - saved_at >= SAVE_SECONDS:
                try_to_save(regular=saving)
                saved, saved_at = step, time.monotonic()
            if step == steps and (bad := guard.in_row):
                say(f"step {step}: not finite, so not applied: the last {bad} of {steps} steps")
        if saved != step:
            try_to_save(regular=False)
    finally:
        batches.close()
        metrics.close()
    return Ended(step, steps, asked or stop.signal, went_back)


def _line(
    step: int, steps: int, lr: float, loader: Loader, totals: Totals, mark: list[float], watch: Stopwatch
) -> Line:
    values = {**totals.means_since(mark), "lr": lr, "epoch": step / loader.steps_per_epoch, "skipped": totals.skipped}
    return Line(step, steps, loader.batch_size, values, watch.read())


def _trouble(learn: Step, step: int, steps: int, bad_steps: int, saving: bool) -> str | None:
    """Return what is so wrong that the run has to go back. Waits for the device at few steps."""
    last = step == steps
    if (last or step % bad_steps == 0) and (bad := learn.guard.in_row):
        if bad >= bad_steps:
            return f"{bad} steps in a row were not finite"
        # A run shorter than that, or one that has gone back into a bad stretch, would end well without having learned.
        if last and 2 * learn.totals.skipped >= steps:
            return f"{learn.totals.skipped:.0f} of {steps} steps were not finite"
    if saving and not learn.guard.weights_finite():
        return "weights were not finite"
    return None


def _given_up(step: int, trouble: str, rollbacks: int, folder: Path) -> str:
    return (
        f"step {step}: {trouble}, also after going back {rollbacks} times and passing over other data each time. Look for "
        f"damage with --verify; else begin anew with a lower --lr or --weight-decay, or --clip 1, or remove the newest of "
        f"{folder} to go on from an older one"
    )
