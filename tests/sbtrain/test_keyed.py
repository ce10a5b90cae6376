"""Random numbers keyed by sample: their range at its ends."""

import torch

from sbtrain.keyed import uniform


def test_the_greatest_number_is_below_1() -> None:
    """Row 553,205 draws the 24 bits that are all 1: rounded to float32, the middle of their interval would be 1."""
    u = uniform(torch.tensor([553_205]), 4, seed=0, epoch=0)

    assert u[0, 0] == 1 - 2**-24
