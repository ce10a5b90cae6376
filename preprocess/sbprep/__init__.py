"""Offline preparation: images in, verified HDF5 shards out (docs/architecture.md)."""
