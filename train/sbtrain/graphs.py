"""Steps replayed as one CUDA graph: at the report's batch of 64 a large GPU waits for launches, some 500 kernels a step.

Asked for with ``--graphs``. NOT YET RUN ON A GPU: written to the rules of torch's documentation ("CUDA graphs", whole
network capture), tested on a CPU only as far as it refuses. So nothing uses it unasked.

Forward, backward, clipping, the guarded update and the sums are captured together. Batches with their epoch are copied
into fixed tensors and the learning rate is a tensor, as a graph knows addresses, not values. Gradients live in the graph's
own memory: it was captured from none, each replay writes the same ones. Noise is a function of row and epoch; what networks
draw themselves comes from torch's generator, whose seed and offset a replay reads anew: `Runtime.seed_step` sets both.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sbformat.errors import ConfigError
from sbtrain.config import PretrainConfig
from sbtrain.data import Batch
from sbtrain.methods import Method
from sbtrain.runtime import RunError, Runtime
from sbtrain.step import Step

#: Steps taken one kernel after another before the capture: they make the optimizer's state and choose kernels.
WARM_UP = 3


class GraphedStep(Step):
    """Takes its first steps as `Step` does and replays a graph from then on.

    Parameters
    ----------
    config, method, runtime
        As of `Step`.

    Raises
    ------
    ConfigError
        No CUDA device, or the networks are compiled.
    """

    def __init__(self, config: PretrainConfig, method: Method, runtime: Runtime) -> None:
        refuse(config, runtime)
        super().__init__(config, method, runtime)
        # torch would warn that the first steps are not captured.
        setattr(self.optimizer, "_warned_capturable_if_run_uncaptured", True)  # noqa: B010 - it declares no such name
        self._stream = torch.cuda.Stream(runtime.device)  # type: ignore[no-untyped-call, unused-ignore]
        self._batch: Batch | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._steps = 0

    def __call__(self, batch: Batch, lr: float) -> None:
        """Learn from `batch`, of the same shape at every step, at learning rate `lr`.

        Raises
        ------
        RunError
            The step cannot be captured.
        """
        held = self._hold(batch)
        self.set_lr(lr)
        self._steps += 1
        if self._graph is None and self._steps > WARM_UP:
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
            epoch = torch.zeros((), dtype=torch.int64, device=self.runtime.device)
            self._batch = replace(batch, index=torch.empty_like(batch.index), fields=fields, epoch=epoch)
        assert isinstance(self._batch.epoch, Tensor)
        self._batch.epoch.fill_(batch.epoch)
        self._batch.index.copy_(batch.index)
        for name, rows in batch.fields.items():
            self._batch[name].copy_(rows)
        return self._batch

    def _learn_apart(self, batch: Batch) -> None:
        # Torch asks for warm-up on the stream of the capture.
        current = torch.cuda.current_stream(self.runtime.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self.learn(batch)
        current.wait_stream(self._stream)

    def _capture(self, batch: Batch) -> None:
        graph = torch.cuda.CUDAGraph()
        for group in self.optimizer.param_groups:  # again after a checkpoint was loaded: that copies them
            group["capturable"] = True
        try:
            # Thread-local: the loader's thread pins memory meanwhile, which a global capture would forbid.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self.learn(batch)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # Not gone on from: a capture that broke leaves torch's allocator and generators waiting for its end. Ending it
            # raises an error of its own, which only says that there was one before.
            raise RunError(
                f"this step cannot be one CUDA graph: {error.__context__ or error}. Leave --graphs out: the run goes on "
                f"from its newest checkpoint, to the same bits"
            ) from error
        self._graph = graph


def refuse(config: PretrainConfig, runtime: Runtime) -> None:
    """Raise where steps of `config` cannot be one graph.

    Raises
    ------
    ConfigError
        With the reason.
    """
    if runtime.device.type != "cuda":
        raise ConfigError(f"graphs, but the device is {runtime.device.type}: only CUDA has them. Leave --graphs out")
    if config.compile:
        raise ConfigError("graphs and compile together have not been tried. Leave one of them out")
