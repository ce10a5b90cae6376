"""Alarms while a run learns: embeddings that collapse, classes that nobody uses, steps that are not finite.

SimSiam and Self-Classifier can reach a low loss by giving every image the same answer. Each line of metrics.jsonl is
judged, and there is one at the end of every epoch, by what the last batch left behind (`sbtrain.methods.seen`) and by
means over the last steps: no random number is drawn, no label is read. What a line says is a function of weights, batch
and sums that a checkpoint holds, so a resumed run writes the same. Thresholds are fixed; docs/training.md ("Alarms") has
what was measured on either side.

Axes: B images, P numbers an embedding, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from sbtrain.methods import Method
from sbtrain.methods.seen import Seen
from sbtrain.methods.self_classifier import usage
from sbtrain.methods.simsiam import spread
from sbtrain.metrics import CALM, Alarm, Line
from sbtrain.runtime import RunError

Mode = Literal["warn", "stop", "off"]

#: Images whose embeddings are looked at: 64 x 64 products take a millisecond, and ranks are of 64 at any batch size.
ROWS = 64
#: Deviation of normalized embeddings, in 1 / sqrt(P), that is a collapse: X. Chen and K. He, CVPR 2021, section 4.1.
LEAST_STD = 0.1
#: Dimensions that SimSiam's embeddings have to span, in shares of the images looked at: 4 of 64. Healthy runs pass through
#: 5.3, so it sees an advanced collapse alone. Not Self-Classifier's, which are to end in as many as there are classes.
LEAST_RANK = 4 / 64
#: SimSiam, means over the last steps. Mean squared cosine of different images' embeddings, `overlap`: from the first on they
#: lie on one line; from the second on it is a collapse where two views of an image are no closer than that: 1 - alignment
#: above so many times 1 - overlap. Neither rank nor overlap alone tells: healthy runs pass through 5 of 64 dimensions and an
#: overlap of 0.76 while their views agree. In the first few steps of a run the second is not asked: it is noise.
ONE_LINE, NEAR_LINE, VIEWS_APART, ENOUGH_STEPS = 0.85, 0.5, 1.05, 10
#: Entropy of the chosen classes in units of ln C: at 0.1 of 10 classes, 95 % of the images are in one.
LEAST_USAGE = 0.1
#: Equal rows of logits give a loss of ln C. It begins near it as well, so images must be told apart by next to nothing:
#: nats that the probabilities say of which image it is.
NEAR_LN_C, LEAST_INFORMATION = 0.01, 1e-3
WHAT_TO_DO = 'What to do: docs/training.md, "Alarms"'
#: Kind of alarm -> what is said once it is over.
OVER = {
    "std": "embeddings differ again",
    "rank": "embeddings span enough dimensions again",
    "overlap": "embeddings of different images differ again",
    "classes": "several classes are in use again",
    "loss": "classes tell images apart again",
    "nan": "all steps are finite again",
}


@dataclass(frozen=True)
class Signs:
    """Numbers of one batch."""

    std: float
    """Deviation of normalized embeddings, in 1 / sqrt(P)."""
    rank: float
    """Effective rank of normalized embeddings, in [1, rows]."""
    rows: int
    backbone_rank: float
    usage: float | None = None
    """Entropy of the chosen classes in [0, 1], Self-Classifier."""
    used: int = 0
    classes: int = 0
    information: float = 0.0
    """Nats that the probabilities of classes say of the image."""
    flat_loss: float | None = None
    """See `Seen`."""

    def values(self) -> dict[str, float | None]:
        """Return those that a line of metrics.jsonl has."""
        found: dict[str, float | None] = {
            "embedding_std": self.std, "embedding_rank": self.rank, "backbone_rank": self.backbone_rank,
        }  # fmt: skip
        return found if self.usage is None else {**found, "classes_used": float(self.used)}


class Alarms:
    """Judges the lines of a run.

    Parameters
    ----------
    mode : {"warn", "stop", "off"}
        warn: said and written; stop: a collapse ends the run as well.
    method : Method
    epoch : int
        Steps of an epoch.
    say : callable
        Takes a sentence.
    first : bool
        Of several ranks the first one judges, by its own images.
    """

    def __init__(self, mode: Mode, method: Method, epoch: int, say: Callable[[str], None], first: bool = True) -> None:
        self._mode, self._epoch, self._say, self._first = mode, epoch, say, first
        # Targets of the other methods are pixels: a constant answer costs them loss, and nothing draws them to it.
        self._watched = mode != "off" and hasattr(method, "seen")
        self._on: dict[str, tuple[int, str]] = {}
        """Alarm that is on -> lines since without it, and what it said."""

    def due(self, step: int) -> bool:
        """Return True at the end of an epoch: then there is a line of metrics, so that every epoch has one."""
        return self._watched and step % self._epoch == 0

    def add(
        self,
        method: Method,
        line: Line,
        means: Mapping[str, float | None],
        steps: float,
        skipped: float,
        rollbacks: int,
    ) -> Line:
        """Return `line` with the signs of the last batch and what is wrong.

        Parameters
        ----------
        means : mapping
            Of the logs over the last `steps` steps.
        steps : float
            `ENOUGH_STEPS` or more where the run has taken so many.
        skipped : float
            Steps since the last line that were not applied.
        rollbacks : int
            Times that the run has gone back to the checkpoint before.
        """
        if self._mode == "off" or not self._first:
            return line
        found = _not_finite(skipped, rollbacks)
        seen = getattr(method, "seen", None)
        signs = None if seen is None else read_signs(seen)
        if signs is None:
            return replace(line, alarms=tuple(found))
        found = [*judge(signs, means, steps), *found]
        return replace(line, values=line.values | signs.values(), alarms=tuple(found))

    def tell(self, line: Line) -> None:
        """Say what has begun and what is over, once each, and at the end of the run what is still on.

        Raises
        ------
        RunError
            The features have collapsed, and that is to stop the run.
        """
        now = {alarm.kind: alarm.text for alarm in line.alarms or ()}
        new = [kind for kind in now if kind not in self._on]
        for kind in new:
            self._say(f"step {line.step:,}: ALARM: {now[kind]}")
        self._on = {kind: (calm + 1, text) for kind, (calm, text) in self._on.items()}
        self._on |= {kind: (0, text) for kind, text in now.items()}
        for kind in [kind for kind, (calm, _) in self._on.items() if calm >= CALM]:
            del self._on[kind]
            self._say(f"step {line.step:,}: alarm over: {OVER[kind]}")
        if line.step == line.steps:
            for kind in [kind for kind in self._on if kind not in new]:
                self._say(f"step {line.step:,}: ALARM still on at the end: {self._on[kind][1]}. {WHAT_TO_DO}")
        collapsed = [text for kind, text in now.items() if kind != "nan"]
        if collapsed and self._mode == "stop":
            raise RunError(
                f"step {line.step:,}: {collapsed[0]}. Stopped, as --alarm stop asks. Begin anew with a lower --lr, more "
                f"--warmup-epochs or a larger --batch-size; the same command with --alarm warn goes on from the newest "
                f"checkpoint"
            )


def read_signs(seen: Seen) -> Signs | None:
    """Return the numbers of a batch; None where they are not finite. Waits for the device."""
    z, h = (rows[:ROWS].cpu().float() for rows in (seen.embedding, seen.backbone))
    logits = None if seen.logits is None else seen.logits.cpu().float()
    if not all(bool(torch.isfinite(rows).all()) for rows in (z, h, logits) if rows is not None):
        return None
    about = {"std": float(spread(z)), "rank": effective_rank(z), "backbone_rank": effective_rank(h), "rows": len(z)}
    if logits is None:
        return Signs(**about)  # type: ignore[arg-type]
    B, C = logits.shape
    return Signs(
        **about,  # type: ignore[arg-type]
        usage=float(usage(logits)) * math.log(C) / math.log(max(2, min(B, C))),
        used=len(torch.unique(logits.argmax(1))),
        classes=C,
        information=information(logits),
        flat_loss=math.log(C) if seen.flat_loss is None else seen.flat_loss,
    )


def judge(signs: Signs, means: Mapping[str, float | None], steps: float) -> list[Alarm]:
    """Return what is wrong with a batch of such signs and such `means` of the last `steps`."""
    found, least = [], LEAST_RANK * signs.rows
    if signs.std < LEAST_STD:
        text = f"embeddings are nearly one point: deviation {signs.std:.3f} of 1/sqrt(d), expected {LEAST_STD} or more"
        found.append(Alarm("std", f"collapse: {text}"))
    alignment, overlap, loss = (means.get(name) for name in ("alignment", "overlap", "loss"))
    if alignment is not None and overlap is not None and on_a_line(alignment, overlap, steps):
        text = f"mean squared cosine of different images {overlap:.2f}, mean cosine of an image's two views {alignment:.2f}"
        found.append(Alarm("overlap", f"collapse: embeddings come to lie on one line: {text}"))
    if signs.usage is None and signs.rank < least:
        text = f"embeddings of {signs.rows} images span {signs.rank:.1f} dimensions, expected {least:.1f} or more"
        found.append(Alarm("rank", f"collapse: {text}"))
    if signs.usage is not None and signs.usage < LEAST_USAGE:
        text = f"{signs.used} of {signs.classes} classes in use, entropy {signs.usage:.2f} of 1"
        found.append(Alarm("classes", f"collapse: {text}, expected {LEAST_USAGE} or more"))
    goal = signs.flat_loss
    if loss is not None and goal is not None and signs.information < LEAST_INFORMATION:
        if abs(loss / goal - 1) < NEAR_LN_C:
            text = f"loss {loss:.4f} stays at ln C = {goal:.4f}"
            found.append(Alarm("loss", f"collapse: {text}: every image has the same probabilities"))
    return found


def on_a_line(alignment: float, overlap: float, steps: float) -> bool:
    """Return whether SimSiam's embeddings, by means of so many `steps`, say next to nothing of which image they are of."""
    apart = steps >= ENOUGH_STEPS and 1 - alignment > VIEWS_APART * (1 - overlap)
    return overlap > ONE_LINE or (overlap > NEAR_LINE and apart)


def effective_rank(rows: Tensor) -> float:
    """Return exp of the entropy of the singular values of normalized rows (B, P), divided by their sum, in [1, B].

    Q. Garrido et al., "RankMe", ICML 2023, section 3.1, with rows of length 1.
    """
    unit = functional.normalize(rows.double(), dim=1)
    # Roots of the eigenvalues of the rows' products: in double precision, as rounding would look like dimensions.
    values = torch.linalg.eigvalsh(unit @ unit.T).clamp(min=0).sqrt()
    share = values / values.sum().clamp(min=1e-300)
    return float(torch.special.entr(share).sum().exp())


def information(logits: Tensor) -> float:
    """Return the mutual information, in nats, of image and class by the softmax of logits (B, C), each image as likely.

    At the temperature of the losses' softmax over classes in the published settings, 0.1.
    """
    p = functional.softmax(logits.double() / 0.1, dim=1)
    return float(torch.special.entr(p.mean(0)).sum() - torch.special.entr(p).sum(1).mean())


def _not_finite(skipped: float, rollbacks: int) -> list[Alarm]:
    back = f"gone back to a checkpoint, {rollbacks} in a row" if rollbacks else ""
    lost = f"not finite, so not applied: {skipped:.0f} of the steps since the last line" if skipped else ""
    return [Alarm("nan", "; ".join(text for text in (lost, back) if text))] if lost or back else []
