"""What a page is made of: frozen values, drawn in the order in which they stand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from privet.errors import ArgumentError
from privet.statistics import Estimate

__all__ = ["Card", "Cell", "Figure", "Gallery", "Note", "Page", "Picture", "Section", "Table", "Text"]


@dataclass(frozen=True)
class Cell:
    """A table cell that draws an estimate as a dot with its interval on a scale.

    Attributes:
        estimate: the value and its interval.
        scale: the two ends of the scale.
        chance: where a guess without information would stand, marked by a line.
        percent: True to write shares as percentages.
    """

    estimate: Estimate
    scale: tuple[float, float] = (0.0, 1.0)
    chance: float | None = None
    percent: bool = False

    def position(self, value: float) -> float:
        """Where a value stands on the scale, in percent of its length, held within it."""
        low, high = self.scale
        return round(100.0 * min(max((value - low) / (high - low), 0.0), 1.0), 2)

    def written(self, value: float) -> str:
        """A value as the reader sees it."""
        return f"{100 * value:.1f}%" if self.percent else f"{value:.3f}"


@dataclass(frozen=True)
class Card:
    """One large figure with what it means.

    Attributes:
        value: the figure as written.
        label: what it is.
        tone: "plain", or "leak" for what gives data away.
    """

    value: str
    label: str
    tone: str = "plain"


@dataclass(frozen=True)
class Text:
    """Paragraphs."""

    kind: ClassVar[str] = "text"
    paragraphs: tuple[str, ...]


@dataclass(frozen=True)
class Note:
    """A remark set apart: what a figure does not say."""

    kind: ClassVar[str] = "note"
    title: str
    body: str


@dataclass(frozen=True)
class Table:
    """Rows under headings; the first cell of a row is its name.

    Raises:
        ArgumentError: if a row has another number of cells than there are columns.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ArgumentError("row", row, f"{len(self.columns)} cells, one for each of {self.columns}")


@dataclass(frozen=True)
class Figure:
    """A drawing as inline SVG, its caption, and the same in words for those who cannot see it."""

    kind: ClassVar[str] = "figure"
    svg: str
    caption: str
    alternative: str


@dataclass(frozen=True)
class Picture:
    """A small picture as a ``data:`` address, its label, and "member", "other" or "" for its frame."""

    address: str
    label: str
    frame: str = ""


@dataclass(frozen=True)
class Gallery:
    """A row of small pictures under one caption."""

    kind: ClassVar[str] = "gallery"
    caption: str
    pictures: tuple[Picture, ...]


Block = Text | Note | Table | Figure | Gallery


@dataclass(frozen=True)
class Section:
    """A heading and the blocks under it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title: what the page is about.
        lead: the finding, in one or two sentences.
        cards: the figures to remember.
        sections: in reading order.
        provenance: (name, value) pairs: what the figures were made from and how to make them again.
    """

    title: str
    lead: str
    cards: tuple[Card, ...] = ()
    sections: tuple[Section, ...] = ()
    provenance: tuple[tuple[str, str], ...] = field(default=())
