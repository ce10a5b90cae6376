"""An encoder to take away: safetensors with a card, ONNX, `torch.export`.

Every file is loaded again and its output compared before it gets its name, so what is there works.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sbformat.durable import fsync_path, make_folder, write_atomically
from sbformat.errors import FormatError
from sbtrain.evaluation.pretrained import Pretrained, holds
from sbtrain.export.card import FORMAT, LOADING, NAME, VERSION, WEIGHTS, card
from sbtrain.export.encoder import ExportedEncoder
from sbtrain.export.formats import FILES, FORMATS, Format, check_libraries, load_weights, written
from sbtrain.runtime import RunError


def export(
    pretrained: Pretrained,
    out: Path,
    say: Callable[[str], None],
    layer: str | None = None,
    pool: int = 0,
    formats: tuple[Format, ...] = FORMATS,
) -> dict[str, Any]:
    """Write the encoder of a run up to `layer` into the folder `out`.

    Parameters
    ----------
    pretrained : Pretrained
        Its method is taken apart; do not use it afterwards.
    out : Path
    say : callable
    layer, pool
        See `ExportedEncoder`.
    formats : tuple of {"safetensors", "onnx", "torch"}
        Beside the card, which is always written, and last. Files of an earlier export in `out` are replaced or removed.

    Returns
    -------
    dict
        What the card says.

    Raises
    ------
    ConfigError
        No such layer, or a library is missing.
    RunError
        The shards are not the run's, the folder cannot be written, or a file gives another output than the encoder.
    """
    check_libraries(formats)
    _check_normalization(pretrained)
    encoder = ExportedEncoder(pretrained.method.cpu(), pretrained.manifest, layer, pool)
    about = card(pretrained, encoder, pool)
    try:
        make_folder(out)
        for left in out.glob(".export-*"):  # of a killed process
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as folder:
            files, checks = {}, {}
            for kind in formats:
                path = Path(folder) / FILES[kind]
                checks[kind] = written(kind, encoder, about, path)
                say(f"{FILES[kind]}: written and loaded again")
                files[path.name] = {"sha256": _sha256(path), "bytes": path.stat().st_size}
                path.chmod(0o644)  # safetensors lets nobody else read
                fsync_path(path)
            for name in FILES.values():
                if name in files:
                    (Path(folder) / name).replace(out / name)
                else:
                    (out / name).unlink(missing_ok=True)  # of an export that this one replaces
        loading = {kind: LOADING[kind] for kind in formats}
        about |= {"files": files, "checks": checks, "load": loading}
        write_atomically(out / NAME, (json.dumps(about, indent=1) + "\n").encode())
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({error}). Make room, or choose another --out") from error
    return about


def load_encoder(path: Path | str) -> ExportedEncoder:
    """Rebuild an exported encoder from its weights and card alone.

    Parameters
    ----------
    path : Path or str
        The folder that ``sbtrain export`` wrote, or the ``encoder.json`` in it.

    Returns
    -------
    ExportedEncoder
        In eval mode, on the CPU: ``encoder(image)`` with uint8 (N, 3, S, S), and ``image_range`` where
        ``encoder.inputs`` names it.

    Raises
    ------
    FormatError
        The card or the weights are missing, damaged, of another version or not of one export.
    """
    path = Path(path)
    path = path / NAME if path.is_dir() else path
    about = _read_card(path)
    weights = path.with_name(WEIGHTS)
    try:
        expected = about["files"][WEIGHTS]["sha256"]
    except KeyError:
        raise FormatError(f"{path}: was exported without weights. Export them: --format safetensors") from None
    try:
        found = _sha256(weights)
    except OSError as error:
        raise FormatError(f"{weights}: cannot be read ({error.strerror}). Export the encoder again") from error
    if found != expected:
        raise FormatError(f"{weights}: sha256 {found[:16]}…, its card says {expected[:16]}…. Export the encoder again")
    return load_weights(about, weights)


def _read_card(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_bytes())
        if (about["format"], about["version"]) != (FORMAT, VERSION):
            raise FormatError(f"{path}: {about['format']} {about['version']}, this version reads {FORMAT} {VERSION}")
    except FileNotFoundError:
        raise FormatError(f"{path}: missing. Write it: sbtrain export --run RUN --out {path.parent}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: not the card of an encoder ({error}). Export the encoder again") from error
    return dict(about)


def _check_normalization(pretrained: Pretrained) -> None:
    config, data = pretrained.config, pretrained.record["data"]
    if config.normalize == "standard" and not holds(pretrained.manifest, config.split, data):
        raise RunError(
            f"{pretrained.manifest.root}: other images than {pretrained.run_dir} was trained on, whose statistics "
            f"normalize its inputs. Give the run's own shards: --shards"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
