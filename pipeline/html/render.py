"""HTML pages in one file each, from Jinja templates that extend page.html."""

from pathlib import Path
from typing import Any

import jinja2

BASE = Path(__file__).parent / "templates"  # page.html: the frame and style of every page


def render(template: Path, **values: Any) -> str:
    """Fill a template. Every value is escaped; a missing one is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, BASE]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**values)
