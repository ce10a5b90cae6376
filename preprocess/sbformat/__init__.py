"""The contract between sbprep and sbtrain: schema, manifest, shard reading, sample order (docs/format.md)."""

__version__ = "0.1.0"
