"""The tour behind ``privet demo``. A stop is one function in one file; adding it to ``STOPS`` is all it needs."""

from privet.cli.tour.walk import STOPS, walk

__all__ = ["STOPS", "walk"]
