"""Augmentation on the device, keyed by sample."""
