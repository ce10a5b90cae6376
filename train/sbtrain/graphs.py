"""Steps replayed as one CUDA graph: at the report's batch of 64 a large GPU waits for launches, some 500 kernels a step.

Asked for with ``--graphs``. NOT YET RUN ON A GPU: written to the rules of torch's documentation ("CUDA graphs", whole
network capture), tested on a CPU only as far as it refuses. So nothing uses it unasked.

Forward, backward, clipping, the guarded update and the sums are captured together. Batches are copied into fixed tensors
and the learning rate is a tensor, as a graph knows addresses, not values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from sbformat.errors import ConfigError
from sbtrain.config import PretrainConfig
from sbtrain.data import Batch
from sbtrain.methods import Method
from sbtrain.runtime import Runtime
from sbtrain.step import Step

#: Steps taken one kernel after another before the capture: they make the optimizer's state and choose kernels.
WARM_UP = 3


class GraphedStep(Step):
    """Takes its first steps as `Step` does and replays a graph from then on.

    Parameters
    ----------
    config, method, runtime
        As of `Step`.
    say : callable
        Takes one sentence if the step cannot be captured; steps go on one kernel after another.

    Raises
    ------
    ConfigError
        No CUDA device, or a step that a graph would freeze.
    """

    def __init__(self, config: PretrainConfig, method: Method, runtime: Runtime, say: Callable[[str], None]) -> None:
        refuse(config, runtime)
        super().__init__(config, method, runtime)
        # torch would warn that the first steps are not captured.
        setattr(self.optimizer, "_warned_capturable_if_run_uncaptured", True)  # noqa: B010 - it declares no such name
        self._say = say
        self._stream = torch.cuda.Stream(runtime.device)  # type: ignore[no-untyped-call, unused-ignore]
        self._lr = torch.zeros((), device=runtime.device)
        self._batch: Batch | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._steps = 0
        self._gave_up = False

    def __call__(self, batch: Batch, lr: float) -> None:
        """Learn from `batch`, of the same shape at every step, at learning rate `lr`."""
        held = self._hold(batch)
        self._lr.fill_(lr)
        self._steps += 1
        if self._graph is None and self._steps > WARM_UP and not self._gave_up:
            self._capture(held)
        if self._graph is not None:
            self._graph.replay()
        else:
            self._learn_apart(held)

    def reset(self) -> None:
        """Capture anew: the sums and moments that the graph knows were replaced."""
        self._graph, self._steps = None, 0

    def _hold(self, batch: Batch) -> Batch:
        if self._batch is None:
            fields = {name: torch.empty_like(rows) for name, rows in batch.fields.items()}
            self._batch = replace(batch, index=torch.empty_like(batch.index), fields=fields)
        self._batch.index.copy_(batch.index)
        for name, rows in batch.fields.items():
            self._batch[name].copy_(rows)
        return self._batch

    def _learn_apart(self, batch: Batch) -> None:
        # Torch asks for warm-up on the stream of the capture.
        current = torch.cuda.current_stream(self.runtime.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._prepare_groups()
            self.learn(batch)
        current.wait_stream(self._stream)

    def _capture(self, batch: Batch) -> None:
        graph = torch.cuda.CUDAGraph()
        self._prepare_groups()
        try:
            # Thread-local: the loader's thread pins memory meanwhile, which a global capture would forbid.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self.learn(batch)
        except RuntimeError as error:
            self._gave_up = True
            self._say(f"no CUDA graph, steps run one kernel after another: {error}")
            return
        self._graph = graph

    def _prepare_groups(self) -> None:
        # Loading an optimizer's state copies its groups, so they are set whenever they will be read.
        for group in self.optimizer.param_groups:
            group["lr"], group["capturable"] = self._lr, True


def refuse(config: PretrainConfig, runtime: Runtime) -> None:
    """Raise where steps of `config` cannot be one graph.

    Raises
    ------
    ConfigError
        With the reason.
    """
    if runtime.device.type != "cuda":
        raise ConfigError(f"graphs, but the device is {runtime.device.type}: only CUDA has them. Leave --graphs out")
    if config.method == "denoising":
        raise ConfigError("graphs, but the noise depends on the epoch, which a graph would freeze. Leave --graphs out")
    if config.compile:
        raise ConfigError("graphs and compile together have not been tried. Leave one of them out")
