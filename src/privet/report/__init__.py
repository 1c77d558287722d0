"""Reports: plain data in, one self-contained page out. Loads no torch and asks nothing of the network."""

from privet.report.figures import Curve, Line, line_figure, picture, roc_figure
from privet.report.numbers import Written, write_estimate
from privet.report.page import (
    Banner,
    Card,
    Cell,
    Check,
    Checks,
    Figure,
    Gallery,
    Note,
    Page,
    Picture,
    Section,
    Table,
    Text,
)
from privet.report.render import render_html, write_html

__all__ = [
    "Banner",
    "Card",
    "Cell",
    "Check",
    "Checks",
    "Curve",
    "Figure",
    "Gallery",
    "Line",
    "Note",
    "Page",
    "Picture",
    "Section",
    "Table",
    "Text",
    "Written",
    "line_figure",
    "picture",
    "render_html",
    "roc_figure",
    "write_estimate",
    "write_html",
]
