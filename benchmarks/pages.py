"""Tables that a script puts into a page."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["put"]


def put(page: str, tables: Mapping[tuple[str, str], str]) -> str:
    """The page with each table between its two marks.

    Raises:
        SystemExit: a mark is not there exactly once, or they are in the wrong order.
    """
    for (start, end), table in tables.items():
        if page.count(start) != 1 or page.count(end) != 1 or page.index(end) < page.index(start):
            raise SystemExit(f"The page needs {start} and then {end}, once each. Nothing was written.")
        before, _, rest = page.partition(start)
        page = f"{before}{start}\n{table}\n{end}{rest.partition(end)[2]}"
    return page
