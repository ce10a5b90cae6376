"""What results of judging have in common: a file of fits, what several draws say, Markdown tables.

A file is known by what it was made of: config, run, images, device and versions give its name. So the same command finds
the fits that it has done before, and more of them go into the same file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from sbformat.manifest import json_digest
from sbtrain.evaluation.few_shot import Interval, gain, interval
from sbtrain.run_folder import kept_result, write_result
from sbtrain.runtime import RunError

VERSION = 1


class Scored(Protocol):
    """What is right about classes."""

    @property
    def top1(self) -> float:
        """Share of reported images whose class is the best."""

    @property
    def top5(self) -> float:
        """Share of reported images whose class is among the best five."""


class Asked(Protocol):
    """A config."""

    @property
    def name(self) -> str:
        """Part of a result's name; may be empty."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""


S = TypeVar("S", bound=Scored)
C = TypeVar("C", bound=Asked)
K = TypeVar("K")
F = TypeVar("F")


@dataclass(frozen=True)
class Draws(Generic[S]):
    """All draws of one thing."""

    fits: tuple[S, ...]

    @property
    def top1(self) -> Interval:
        """Of the draws."""
        return interval([fit.top1 for fit in self.fits])

    @property
    def top5(self) -> Interval:
        """Of the draws."""
        return interval([fit.top5 for fit in self.fits])

    def gain(self, control: Draws[S]) -> Interval:
        """Return the interval of the differences in top-1, draw by draw; an only fit stands beside every draw."""
        return gain([fit.top1 for fit in self.fits], [fit.top1 for fit in control.fits])


class FitFile(Generic[C, K, F]):
    """``results/<kind>-….json``: read where it is there, written whole after every fit.

    Parameters
    ----------
    run_dir : Path
    config : C
    about : dict
        Everything else that the numbers depend on, as JSON values.

    Raises
    ------
    RunError
        The file is damaged.
    """

    kind: ClassVar[str]
    """What its name begins with, and its format ends with."""
    fit_type: ClassVar[Callable[..., Any]]
    amounts: ClassVar[tuple[str, ...]] = ("draws",)
    """Fields of the config that say which fits are asked for, not what they are."""
    counts: ClassVar[str] = "counts"
    """What the file calls that which a fit counts of classes, where it does."""

    def __init__(self, run_dir: Path, config: C, about: dict[str, Any]) -> None:
        self.config, self._run_dir = config, run_dir
        fields = {name: value for name, value in config.to_json().items() if name not in self.amounts}
        self._head = {"format": f"sbtrain-{self.kind}", "version": VERSION, "config": fields, **about}
        self.name = "-".join(filter(None, [self.kind, config.name, json_digest(self._head)[:8]]))
        self.path = run_dir / "results" / f"{self.name}.json"
        there = kept_result(self.path, self._head)
        try:
            fits: list[F] = [self.fit_type(**fit) for fit in there["fits"]]
        except TypeError as error:
            raise RunError(f"{self.path}: not a result of this command ({error}). Move it away") from error
        self._fits: dict[K, F] = {self.key(fit): fit for fit in fits}
        self._counts: dict[str, Any] | None = there.get(self.counts)

    def key(self, fit: F) -> K:
        """Return what tells a fit from the others."""
        raise NotImplementedError

    def keys(self) -> list[K]:
        """Return the keys of all fits that the config asks for, in the order in which they are made."""
        raise NotImplementedError

    def place(self, key: K) -> Any:
        """Return what fits are sorted by in the file."""
        return key

    def summary(self, fits: Sequence[F]) -> dict[str, Any]:
        """Return what all fits together say, as JSON values."""
        raise NotImplementedError

    def missing(self) -> list[K]:
        """Return the keys of what the config asks for and is not there."""
        return [key for key in self.keys() if key not in self._fits]

    def add(self, fit: F, counts: dict[str, Any] | None = None) -> None:
        """Take in one fit, and write the file, which keeps the counts of the newest one."""
        self._fits[self.key(fit)], self._counts = fit, counts
        write_result(self._run_dir, self.name, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return everything in the file, fits in their order; of fits that count nothing there are no counts."""
        fits = [self._fits[key] for key in sorted(self._fits, key=self.place)]
        counts = {} if self._counts is None else {self.counts: self._counts}
        listed = [asdict(fit) for fit in fits]  # type: ignore[call-overload]
        return {**self._head, **self.summary(fits), "fits": listed, **counts}


def markdown(header: list[str], rows: list[list[str]], texts: int = 0) -> str:
    """Return an aligned Markdown table: its first `texts` columns hold words and begin at the left, the others numbers."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        " | ".join(cell.ljust(widths[i]) if i < texts else cell.rjust(widths[i]) for i, cell in enumerate(row))
        for row in [header, *rows]
    ]
    rule = " | ".join("-" * width if i < texts else "-" * (width - 1) + ":" for i, width in enumerate(widths))
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])
