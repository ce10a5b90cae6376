"""Several processes, one run: torchrun."""
