"""What a source of images is: a listing (which images, in which order) and a way to read any part of it.

The parent process lists once; workers get the same small `Source` object and the part of the listing that
belongs to their shard. Nothing else crosses the process border.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sbformat.schema import SPLITS

__all__ = ["SPLITS", "Item", "Listing", "Rejected", "Source", "Split"]


@dataclass(frozen=True, slots=True)
class Rejected:
    """An image that cannot be used, in place of its content.

    ``code`` is one of the reason codes of docs/format.md; ``detail`` says what was found, in words.
    """

    code: str
    detail: str


#: What a source gives for one listed image: an encoded file, pixels (H, W, 3) uint8 sRGB, or the reason for neither.
Item = bytes | NDArray[np.uint8] | Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The images of one split in listing order; row i is line i of the split's ``sources.txt``.

    Attributes
    ----------
    names : list of str, N
        Path relative to the source, ``archive#member`` or ``batch file#row``: unique, stable between runs.
    sizes : int64 (N,)
        Encoded bytes of each image; a change of size between listing and reading is a reject.
    stamps : int64 (N,)
        Modification time in ns of the file that holds each image: a resumed build compares them.
    labels : int32 (N,) class index, uint8 (N, A) binary attributes, or None
    keys : int64 (N,) or (N, k), or None
        Where the source finds the image (byte offset, row of a batch file, ...): its own business.
    """

    names: Sequence[str]
    sizes: NDArray[np.int64]
    stamps: NDArray[np.int64]
    labels: NDArray[Any] | None = None
    keys: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: NDArray[np.int64]) -> Listing:
        """Return the listing of these rows, in this order."""
        return replace(
            self,
            names=[self.names[i] for i in rows],
            sizes=self.sizes[rows],
            stamps=self.stamps[rows],
            labels=None if self.labels is None else self.labels[rows],
            keys=None if self.keys is None else self.keys[rows],
        )

    @staticmethod
    def joined(parts: Sequence[Listing]) -> Listing:
        """Return one listing of all `parts` (at least one, of one source) in their order."""
        first = parts[0]
        return Listing(
            names=[name for part in parts for name in part.names],
            sizes=np.concatenate([part.sizes for part in parts]),
            stamps=np.concatenate([part.stamps for part in parts]),
            labels=None
            if first.labels is None
            else np.concatenate([part.labels for part in parts if part.labels is not None]),
            keys=None if first.keys is None else np.concatenate([part.keys for part in parts if part.keys is not None]),
        )


class Source(Protocol):
    """A readable set of images: small, picklable, immutable.

    ``sequential`` says that reading any part costs a pass over the whole (a compressed tar or .npz), which is over
    when the first item comes; the build then reads several shards in one pass.
    """

    @property
    def sequential(self) -> bool:
        """True where a read costs a pass over everything."""
        ...

    def read(self, part: Listing) -> Iterator[Item]:
        """Yield one item for each row of `part`, in the order of `part`. A bad image is a `Rejected`, never a raise.

        Raises
        ------
        MachineError
            The disk, the network or the system fails (`failures`): that says nothing about the image.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One split of a data set: where its images are, which they are and what their labels mean.

    ``label_names`` are the class names (labels int32 (N,)) or attribute names (labels uint8 (N, A)); None: unlabeled.
    ``kind`` names the adapter (``folder``, ``tar``, ``cifar10``, ...), for the manifest.
    """

    kind: str
    source: Source
    listing: Listing
    label_names: tuple[str, ...] | None = None
