"""Write a page as one HTML file that needs no network."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from privet.atomic_file import replacing
from privet.report.page import Page

__all__ = ["render_html", "write_html"]


def render_html(page: Page) -> str:
    """The page as HTML text: styles, drawings and pictures inline, light and dark, for any width."""
    environment = Environment(
        loader=PackageLoader("privet.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(page=page)


def write_html(page: Page, path: str | Path) -> Path:
    """Write the page to ``path``, whole or not at all, making its folder if need be.

    Returns:
        The path that was written.

    Raises:
        FileWriteError: the system refuses the file or its folder.
    """
    text = render_html(page)
    with replacing(path, make_folder=True) as file:
        file.write(text.encode())
    return Path(path)
