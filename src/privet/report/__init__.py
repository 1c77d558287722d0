"""Reports: plain data in, one self-contained page out. Loads no torch and asks nothing of the network."""

from privet.report.figures import Curve, Line, line_figure, picture, roc_figure
from privet.report.page import Card, Cell, Figure, Gallery, Note, Page, Picture, Section, Table, Text
from privet.report.render import render_html, write_html

__all__ = [
    "Card",
    "Cell",
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
    "line_figure",
    "picture",
    "render_html",
    "roc_figure",
    "write_html",
]
