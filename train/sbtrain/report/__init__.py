"""One page and one Markdown file from finished or unfinished runs: read, compare with what is published, show."""

from sbtrain.report.build import Built, build_report

__all__ = ["Built", "build_report"]
