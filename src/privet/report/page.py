"""What a page is made of: frozen values, drawn in the order in which they stand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from privet.errors import ArgumentError
from privet.report.numbers import Written, write_estimate
from privet.statistics import Estimate

__all__ = [
    "Banner",
    "Card",
    "Cell",
    "Check",
    "Checks",
    "Figure",
    "Gallery",
    "Note",
    "Page",
    "Picture",
    "Section",
    "Table",
    "Text",
]

TONES = ("plain", "leak", "limit")
"""How a banner or a mark looks: neutral, what gives data away, what limits the finding."""


@dataclass(frozen=True)
class Cell:
    """A table cell that draws an estimate as a dot with its interval on a scale.

    Attributes:
        estimate: the value and its interval.
        scale: the two ends of the scale.
        chance: where a guess without information would stand, marked by a line.
        percent: True to write shares as percentages.
        remark: what belongs to the estimate, on a line of its own under it.
    """

    estimate: Estimate
    scale: tuple[float, float] = (0.0, 1.0)
    chance: float | None = None
    percent: bool = False
    remark: str = ""

    def position(self, value: float) -> float:
        """Where a value stands on the scale, in percent of its length, held within it."""
        low, high = self.scale
        return round(100.0 * min(max((value - low) / (high - low), 0.0), 1.0), 2)

    @property
    def stands_out(self) -> bool:
        """Whether the whole interval lies above chance; only then is it drawn in the colour of a leak."""
        return self.chance is not None and self.estimate.low > self.chance

    @property
    def written(self) -> Written:
        """The estimate as the reader sees it."""
        return write_estimate(self.estimate, percent=self.percent, chance=self.chance)


@dataclass(frozen=True)
class Banner:
    """The verdict of a page: a word to remember, and beside the finding what it does not mean.

    Attributes:
        subject: what was judged.
        word: the verdict in a word or two.
        tone: one of :data:`TONES`.
        caveat: what the verdict does not mean; stands after these words: "It does not mean".
    """

    subject: str
    word: str
    tone: str
    caveat: str

    def __post_init__(self) -> None:
        if self.tone not in TONES:
            raise ArgumentError("tone", self.tone, f"one of {TONES}")


@dataclass(frozen=True)
class Card:
    """One large figure with what it means.

    Attributes:
        value: the figure as written.
        label: what it is.
        tone: one of :data:`TONES`.
        interval: the interval of the figure as written; "" for a figure that is exact.
    """

    value: str
    label: str
    tone: str = "plain"
    interval: str = ""

    def __post_init__(self) -> None:
        if self.tone not in TONES:
            raise ArgumentError("tone", self.tone, f"one of {TONES}")


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


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        mark: the outcome in a word or two.
        tone: of the mark, one of :data:`TONES`.
        title: what was checked.
        body: how, and what came of it.
    """

    mark: str
    tone: str
    title: str
    body: str

    def __post_init__(self) -> None:
        if self.tone not in TONES:
            raise ArgumentError("tone", self.tone, f"one of {TONES}")


@dataclass(frozen=True)
class Checks:
    """A list of checks, each with a mark that can be read without colour."""

    kind: ClassVar[str] = "checks"
    items: tuple[Check, ...]


Block = Text | Note | Table | Figure | Gallery | Checks


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
        banner: the verdict, above the title, and what it does not mean, under the lead; None: a page without a verdict.
    """

    title: str
    lead: str
    cards: tuple[Card, ...] = ()
    sections: tuple[Section, ...] = ()
    provenance: tuple[tuple[str, str], ...] = field(default=())
    banner: Banner | None = None
