"""Compiled kernels on the disk are those of the constants in force."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builds import ROOT, environment

pytestmark = pytest.mark.jit

#: Prints a digest of some converted colors, and how many kernels came from the cache.
CODE = """
import hashlib, numpy as np
from sbprep import _kernels
rgb, lab = np.arange(192, dtype=np.uint8).reshape(8, 8, 3), np.empty((3, 8, 8), np.float32)
_kernels.lab_from_rgb(rgb, np.linspace(0, 1, 256, dtype=np.float32), lab)
print(hashlib.sha256(lab.tobytes()).hexdigest(), sum(_kernels.lab_from_rgb.stats.cache_hits.values()))
"""


def test_a_change_of_the_color_convention_alone_compiles_anew(tmp_path: Path) -> None:
    copy = shutil.copytree(ROOT / "preprocess", tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))
    colorimetry = copy / "sbformat/colorimetry.py"

    def run() -> list[str]:
        variables = environment(PYTHONPATH=str(copy), NUMBA_CACHE_DIR=str(tmp_path / "cache"))
        result = subprocess.run(
            [sys.executable, "-c", CODE], env=variables, capture_output=True, text=True, check=True, timeout=60
        )
        return result.stdout.split()

    first, again = run(), run()
    colorimetry.write_text(colorimetry.read_text().replace("0.95047", "0.96047"))
    changed = run()

    assert (first[1], again[1], changed[1]) == ("0", "1", "0")
    assert first[0] == again[0] != changed[0]
