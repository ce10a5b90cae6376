"""Numbers with their nouns, as messages have them."""

from __future__ import annotations


def counted(count: int, noun: str, several: str = "") -> str:
    """Return "1 step", or "2,000 steps"; `several` where that is not `noun` with an s.

    Examples
    --------
    >>> counted(1, "epoch"), counted(1200, "batch", "batches")
    ('1 epoch', '1,200 batches')
    """
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"


def every(count: int, noun: str) -> str:
    """Return "all 12 fits are", or "the only fit is"."""
    return f"the only {noun} is" if count == 1 else f"all {counted(count, noun)} are"
