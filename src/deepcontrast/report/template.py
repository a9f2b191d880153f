"""Templates of the pages, filled."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

import jinja2


def fill(name: str, content: Mapping[str, object]) -> str:
    """Return a template of this folder, filled: text is escaped, and a name it misses is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(content) + "\n"


def _source(name: str) -> str:
    return files("deepcontrast.report").joinpath(name).read_text(encoding="utf-8")
