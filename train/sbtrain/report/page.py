"""The only door to jinja2: a document as one HTML file that loads nothing from anywhere."""

from __future__ import annotations

from importlib import resources

from sbformat.errors import ConfigError
from sbtrain.report.document import Document

TEMPLATE, STYLE = "page.html.jinja", "page.css"


def to_html(document: Document) -> str:
    """Return the page. Every text in it is escaped; pictures are those of `sbtrain.pictures.figures` and data URIs.

    Raises
    ------
    ConfigError
        jinja2 is missing.
    """
    try:
        from jinja2 import DictLoader, Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise ConfigError("reports need jinja2. Install it: pip install 'splitbrain[report]'") from error
    files = resources.files("sbtrain.report")
    source = {name: (files / name).read_text(encoding="utf-8") for name in (TEMPLATE, STYLE)}
    loader = DictLoader({TEMPLATE: source[TEMPLATE]})
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["drawn"] = Markup
    return environment.get_template(TEMPLATE).render(document=document, style=Markup(source[STYLE]))
