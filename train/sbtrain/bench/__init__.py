"""Loader, steps and augmentation beside others."""
