"""Few-shot fine-tuning: k labels a class, several draws, a mean with its interval; pretrained, or from scratch.

No image of the reported split has a part in any choice. There is no early stopping unless `hold_out` takes labels for
it out of the k: the number of steps follows from the number of labels alone.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sbformat.errors import ConfigError
from sbformat.manifest import Manifest, open_manifest
from sbtrain import checkpoint
from sbtrain.build import build_method
from sbtrain.config import PretrainConfig
from sbtrain.corrupt import uniform
from sbtrain.data import Batch, Order, Rows
from sbtrain.few_shot import draw_rows, hold_out, top_counts
from sbtrain.few_shot_config import FinetuneConfig
from sbtrain.few_shot_result import FinetuneResult, Shot
from sbtrain.labeled import VARIANTS, Drawn, Labeled, features_of, flipped, joined, variant_of_features
from sbtrain.methods import Method
from sbtrain.methods.supervised import Supervised, linear_head
from sbtrain.optim import build_optimizer, learning_rate
from sbtrain.run_folder import data_record, read_config, read_run
from sbtrain.runtime import RunError, Runtime

Say = Callable[[str], None]
#: Checks without a lower held-out loss after which a fit stops.
PATIENCE = 3
_FLIP_STREAM = 16
"""Of `uniform`: the draws of flips are others than those of any corruption."""


@dataclass(frozen=True)
class Pretrained:
    """A run to begin from: its config, and networks as its newest checkpoint that verifies has them."""

    config: PretrainConfig
    manifest: Manifest
    method: Method
    step: int

    def fresh(self, from_scratch: bool) -> Method:
        """Return networks to train: the run's, or of the same kind with new weights from torch's generator."""
        return build_method(self.config, self.manifest) if from_scratch else copy.deepcopy(self.method)


def open_pretrained(run_dir: Path, shards: Path, config: FinetuneConfig, say: Say) -> Pretrained:
    """Load a pretraining run for the images under `shards`.

    Raises
    ------
    RunError
        There is no run, it has no checkpoint yet, or the shards are of another kind than the run's.
    CheckpointError
        All its checkpoints are damaged.
    """
