"""Every error that sbprep, sbtrain and sbformat raise on purpose.

SplitbrainError
├── ConfigError            an option or a combination of options that cannot work
├── FormatError            what lies on disk is not what the contract says
│   ├── SchemaVersionError     written under another schema version
│   ├── ManifestError          manifest or journal missing, unreadable or contradictory
│   └── ShardError             shard missing, truncated or damaged
├── SourceError            images to read: nothing there, broken archive, changed since the build began
└── BuildError             the build itself: disk full, folder in use, worker died, too many rejects

A message says what was given, what was expected and what to do, with the path and the number.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SplitbrainError(Exception):
    """Root of the tree; command lines turn it into one readable message and exit code 1."""


class ConfigError(SplitbrainError):
    """An option, or a combination of options, cannot work."""


class FormatError(SplitbrainError):
    """What lies on disk is not what the shard contract says."""


class SchemaVersionError(FormatError):
    """A manifest or journal was written under another schema version."""


class ManifestError(FormatError):
    """A manifest or journal is missing, unreadable or contradicts itself."""


class ShardError(FormatError):
    """A shard is missing, truncated or damaged."""


class SourceError(SplitbrainError):
    """The images to read are missing, broken, unsafe or changed since the build began."""


class BuildError(SplitbrainError):
    """The build cannot go on: disk full, folder in use, worker died, too many rejects."""


def suggestion(given: str, names: Iterable[str]) -> str:
    """Return how a message goes on about a name that does not exist: by the nearest that does, and all of them.

    Examples
    --------
    >>> "network 'simplnet'" + suggestion("simplnet", ["simplenet", "resnet18"])
    "network 'simplnet', did you mean simplenet? There are simplenet, resnet18"
    """
    names = list(names)
    close = get_close_matches(given, names, 1)
    return (f", did you mean {close[0]}? There are" if close else ", expected one of") + f" {', '.join(names)}"
