"""A reproduction as separate jobs: one shell script a cell, of commands that a person could type."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from sbformat.manifest import Manifest, write_atomically
from sbtrain.config import PretrainConfig
from sbtrain.presets import load_preset
from sbtrain.reproduce.cells import Cell
from sbtrain.reproduce.judges import option_words, splits_of, words
from sbtrain.reproduce.run import Work
from sbtrain.reproduce.sets import MissingShards

_SCRIPT = """\
#!/usr/bin/env bash
# {about}
# Again after any interruption: finished parts are found. Exit code 75: send it again.
{pretrain} || exit $?
{evaluations}
exit "${{failed:-0}}"
"""
_SUBMIT = """\
#!/usr/bin/env bash
# One job after the other here; SUBMIT=sbatch ./submit.sh hands each to a scheduler, with its options in SUBMIT as well.
cd "$(dirname "$0")" || exit
for job in [0-9]*.sh; do
    ${{SUBMIT:-bash}} "$job" || failed=$?
done
if [ -z "$SUBMIT" ]; then bash collect.sh || failed=$?; else echo "When all have ended: bash collect.sh"; fi
exit "${{failed:-0}}"
"""
_COLLECT = """\
#!/usr/bin/env bash
# Tables and report of what the jobs have finished; makes what is missing.
{command}
"""


def write_jobs(work: Work, folder: Path, collect: Sequence[str]) -> list[Path]:
    """Write a script for each cell whose shards are there, ``submit.sh`` and ``collect.sh``.

    Parameters
    ----------
    work : Work
    folder : Path
    collect : sequence of str
        The command that reads the finished runs.

    Returns
    -------
    list of Path
        The scripts of the cells.

    Raises
    ------
    OSError
        They cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9]*.sh"):
        old.unlink()
    written = list[Path]()
    for cell in work.cells:
        try:
            text = _script(work, cell)
        except MissingShards:
            continue
        written.append(_write(folder / f"{len(written) + 1:03d}-{cell.name}.sh", text))
    _write(folder / "submit.sh", _SUBMIT.format())
    _write(folder / "collect.sh", _COLLECT.format(command=shlex.join(collect)))
    return written


def pretrain_words(cell: Cell, manifest: Manifest, run_dir: Path, device: str) -> list[str]:
    """Return the ``sbtrain pretrain`` of a cell."""
    base, typed = load_preset(cell.preset).config, ["sbtrain", "pretrain", "--shards", str(manifest.root.resolve())]
    typed += ["--preset", cell.preset]
    for option in fields(PretrainConfig):
        value = getattr(cell.config, option.name)
        if value != getattr(base, option.name):
            typed += option_words(option.name, value)
    every = str(cell.budget.checkpoint_every)
    return [*typed, "--checkpoint-every", every, "--keep-last", "1", "--device", device, "--run-dir", str(run_dir)]


def _script(work: Work, cell: Cell) -> str:
    run_dir, judged = (work.folder / cell.name).resolve(), work.sets.judged(cell)
    lines = [
        shlex.join(words(config, judged, run_dir, work.device)) + " || failed=$?"
        for _, config in cell.evaluations
        if {*splits_of(config)} <= {*judged.splits}
    ]
    pretrain = shlex.join(pretrain_words(cell, work.sets.of(cell), run_dir, work.device))
    return _SCRIPT.format(about=f"{work.scale.name}: {cell.name}", pretrain=pretrain, evaluations="\n".join(lines))


def _write(path: Path, text: str) -> Path:
    write_atomically(path, text.encode())
    path.chmod(0o755)
    return path
