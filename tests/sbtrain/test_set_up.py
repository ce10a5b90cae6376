"""What a run does to its process before it begins."""

import subprocess
import sys

import pytest

FAULTS = """
import platform, resource, sys, torch
from sbtrain.runtime import set_up

set_up("cpu", "float32", "fast", 0)
for count in range(12):
    if count == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensor = torch.zeros(10 << 20)
    del tensor
print(platform.libc_ver()[0], resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_memory_of_freed_tensors_is_used_again_without_faults_on_a_cpu() -> None:
    path = {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}
    libc, faults = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=path
    ).stdout.split()
    if libc != "glibc":
        pytest.skip(f"the C library is {libc}, which has no such setting")

    # 10 times 40 MB are 102,400 pages of 4,096 bytes; now and then they are taken once more.
    assert int(faults) < 30_000
