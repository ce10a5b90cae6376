"""Few-shot fine-tuning: k labels a class, several draws, a mean with its interval, pretrained beside from scratch.

No image of the reported split has a part in any choice. There is no early stopping unless `hold_out` gives it labels of
its own, which come out of the k; else the number of steps follows from the number of labels alone.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

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
from sbtrain.few_shot import Interval, Protocol, draw_rows, hold_out, interval
from sbtrain.labeled import Labeled, Resident
from sbtrain.methods import Method
from sbtrain.methods.supervised import Supervised, linear_head
from sbtrain.optim import Optimizer, Schedule, build_optimizer, learning_rate
from sbtrain.run_folder import data_record, read_run
from sbtrain.runtime import RunError, Runtime

