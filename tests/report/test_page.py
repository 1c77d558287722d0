"""Pages: one file, nothing from outside, everything escaped, written whole or not at all."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from privet import report
from privet.errors import ArgumentError
from privet.statistics import Estimate, roc_curve


class Reader(HTMLParser):
    """Collects what a browser would fetch, and checks that elements close in order."""

    VOID = frozenset({"meta", "link", "img", "br", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def sample_page() -> report.Page:
    generator = np.random.default_rng(0)
    curve = roc_curve(generator.normal(1, 1, 200), generator.normal(0, 1, 300))
    estimate = Estimate(0.62, 0.58, 0.66, 0.95, 200)
    return report.Page(
        title="A <title> & more",
        lead="lead",
        cards=(report.Card("0.62", "area", "leak"),),
        sections=(
            report.Section(
                "Heading",
                (
                    report.Text(("one", "<script>alert(1)</script>")),
                    report.Note("note", "body"),
                    report.Figure(report.roc_figure([report.Curve("a < b", curve)], 1e-3), "caption", 'say "it"'),
                    report.Gallery("few", (report.Picture(report.picture(np.eye(4)), "eye", "member"),)),
                    report.Table("table", ("name", "area"), (("row", report.Cell(estimate, (0.4, 0.8), 0.5)),)),
                ),
            ),
        ),
        provenance=(("Seed", "0"),),
    )


def test_the_page_is_well_formed_and_fetches_nothing() -> None:
    html = report.render_html(sample_page())
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    assert all(address.startswith(("data:", "#")) for address in reader.fetched)
    assert not re.search(r"@import|url\((?!#)|https?:", html)


def test_text_is_escaped() -> None:
    html = report.render_html(sample_page())
    assert "<script>" not in html
    assert "A &lt;title&gt; &amp; more" in html
    assert "a &lt; b" in html


def test_drawings_take_every_colour_from_the_style_sheet() -> None:
    curves = [report.Curve(f"curve {number}", roc_curve([2.0, 1.0], [1.0, 0.0])) for number in range(6)]
    svg = report.roc_figure(curves, 1e-3)
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b(?!\")", re.sub(r'(href="|url\()#\w+', "", svg))
    style = Path(report.__file__).with_name("templates").joinpath("page.css").read_text()
    for variable in set(re.findall(r"var\((--[\w-]+)\)", svg)):
        assert style.count(f"{variable}:") == 2, "each colour has a light and a dark value"


def test_drawing_is_the_same_every_time() -> None:
    curve = [report.Curve("a", roc_curve([2.0, 1.0], [1.0, 0.0]))]
    assert report.roc_figure(curve, 0.01) == report.roc_figure(curve, 0.01)


def test_a_picture_keeps_its_pixels() -> None:
    import base64
    import io

    from PIL import Image

    pixels = np.random.default_rng(0).random((3, 5, 7))
    address = report.picture(pixels)
    read = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))
    assert np.array_equal(read, np.rint(np.moveaxis(pixels, 0, -1) * 255))


def test_positions_stay_on_the_scale() -> None:
    cell = report.Cell(Estimate(0.5, 0.0, 1.0, 0.95, 3), (0.4, 0.6))
    assert [cell.position(value) for value in (0.0, 0.45, 0.5, 1.0)] == [0.0, 25.0, 50.0, 100.0]


def test_writing_replaces_whole_files_and_leaves_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    assert report.write_html(sample_page(), path) == path
    first = path.read_text()
    report.write_html(report.Page("Other", "lead"), path)
    assert path.read_text() != first
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_bad_blocks_are_refused() -> None:
    with pytest.raises(ArgumentError, match="2 cells"):
        report.Table("caption", ("a", "b"), (("only one",),))
    with pytest.raises(ArgumentError, match="curves"):
        report.roc_figure([], 0.01)
    with pytest.raises(ArgumentError, match="smallest"):
        report.roc_figure([report.Curve("a", roc_curve([1.0], [0.0]))], 0.0)
    with pytest.raises(ArgumentError, match="pixels"):
        report.picture(np.zeros((2, 4, 4)))
