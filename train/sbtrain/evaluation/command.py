"""What the evaluating commands share: a run judged config by config, and how a command ends that is stopped."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sbtrain.__main__ import EXIT_INTERRUPTED
from sbtrain.evaluation.cluster_config import ClusterConfig
from sbtrain.evaluation.finetune_config import FinetuneConfig
from sbtrain.evaluation.fitting import Interrupted
from sbtrain.evaluation.pretrained import Pretrained, hold_pretrained
from sbtrain.evaluation.probe_config import ProbeConfig
from sbtrain.evaluation.results import FitFile
from sbtrain.progress import ProgressPrinter
from sbtrain.run_folder import read_config
from sbtrain.runtime import EXIT_REQUEUE, Runtime, StopRequest, set_up

C = TypeVar("C", FinetuneConfig, ProbeConfig, ClusterConfig)
R = TypeVar("R", bound=FitFile[Any, Any, Any])
Say = Callable[[str], None]


@contextmanager
def interruptible(stopped: str, run_dir: Path | None = None) -> Iterator[tuple[ProgressPrinter, StopRequest]]:
    """Yield what says sentences, and what tells whether a signal came.

    `stopped` is said where one did, unless nothing has come to the results of `run_dir`; the process ends with 130 after
    Ctrl-C, with 75 after the others.
    """
    before = _results(run_dir)
    stop = StopRequest()
    with stop.listening(), ProgressPrinter() as progress:
        try:
            yield progress, stop
        except (Interrupted, KeyboardInterrupt):
            nothing = run_dir is not None and _results(run_dir) == before
            progress.say("Stopped before anything new was finished: the same command goes on" if nothing else stopped)
            sys.exit(EXIT_INTERRUPTED if stop.signal in (signal.SIGINT, None) else EXIT_REQUEUE)


def _results(run_dir: Path | None) -> dict[str, int]:
    files = [] if run_dir is None else (run_dir / "results").glob("*.json")
    return {path.name: path.stat().st_mtime_ns for path in files}


def _labeled(config: FinetuneConfig | ProbeConfig | ClusterConfig, run_dir: Path) -> dict[str, str]:
    """Return option -> split that has to be there, with labels."""
    if not isinstance(config, ClusterConfig):
        return {"--split": config.split, "--eval-split": config.eval_split}
    own = config.method == "classifier" or (
        config.method == "auto" and read_config(run_dir).method == "self_classifier"
    )
    return {"--split": config.split, **({} if own else {"--learn-split": config.learn_split})}


def judged(
    run_dir: Path,
    shards: Path,
    device: str,
    config: C,
    compare: bool,
    judge: Callable[[Pretrained, C, Runtime, Say, Callable[[], bool]], R],
    remarks: Callable[[Pretrained, C], list[str]],
    done: Callable[[R], str],
    stopped: str,
) -> tuple[Pretrained, list[R]]:
    """Judge a pretraining run, and new weights where they are to stand beside it.

    Parameters
    ----------
    run_dir, shards, device
        As the options say.
    config : C
        What is asked for.
    compare : bool
        Of the run and of new weights, whatever the config says of them.
    judge : callable
        Makes the fits that are missing.
    remarks : callable
        Returns what a reader has to know and no table shows.
    done : callable
        Returns what is said of a result that is complete.
    stopped : str
        Said where a signal came.

    Returns
    -------
    Pretrained
    list
        A result a config.
    """
    configs = [replace(config, from_scratch=scratch) for scratch in (False, True)] if compare else [config]
    runtime = set_up(device, config.precision, "exact", config.seed)
    with (
        interruptible(stopped, run_dir) as (progress, stop),
        hold_pretrained(run_dir, shards, config.split, runtime, progress.say, _labeled(config, run_dir)) as pretrained,
    ):
        for remark in remarks(pretrained, configs[0]):
            progress.say(remark)
        results = []
        for each in configs:
            result = judge(pretrained, each, runtime, progress.say, lambda: stop.signal is not None)
            progress.say(f"{result.path}: {done(result)}")
            results.append(result)
    return pretrained, results
