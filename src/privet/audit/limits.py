"""What an audit refuses before it begins, and what it warns of afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from privet.audit.result import RATES, AttackResult
from privet.errors import ArgumentError, SampleTooSmallError

__all__ = ["check_counts", "check_planted_share", "check_whole", "sample_warnings"]


def check_counts(members: int, non_members: int, *, least: int) -> None:
    """Refuse fewer records than any statement holds for.

    Raises:
        SampleTooSmallError: there are fewer than ``least`` of either.
    """
    if min(members, non_members) < least:
        raise SampleTooSmallError(
            f"{members:,} members and {non_members:,} non-members are too few for any statement about a leak; give at "
            f"least {least} of each, and 1,000 of each for one at small false positive rates."
        )


def check_planted_share(share: Any) -> float:
    """Return the share if it lies between a thousandth and a half.

    Raises:
        ArgumentError: if it does not.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0.001 <= share <= 0.5:
        raise ArgumentError("planted_share", share, "a share of the members from 0.001 to 0.5, such as 0.05")
    return float(share)


def check_whole(name: str, value: Any, least: int) -> int:
    """Return the value if it is a whole number of at least ``least``.

    Raises:
        ArgumentError: if it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ArgumentError(name, value, f"a whole number of at least {least}")
    return int(value)


def sample_warnings(attacks: Sequence[AttackResult], non_members: int) -> tuple[str, ...]:
    """What the number of records, or what an attack can see, does not allow to be said, a sentence each."""
    missed = [one.name for one in attacks if not (one.leaks or one.planted_found or one.required)]
    warnings = []
    if missed:
        warnings.append(f"Missed the planted leak, so that finding nothing says little: {', '.join(missed)}.")
    for rate in RATES:
        shown = [one.rates[rate] for one in attacks if rate in one.rates]
        if not shown:
            warnings.append(
                f"Nothing is said at a false positive rate of {rate:.1%}: {non_members:,} non-members cannot show it, "
                f"{round(1 / rate):,} can."
            )
        elif all(one.coarse for one in shown):
            warnings.append(
                f"The rates at a false positive rate of {rate:.1%} rest on fewer than ten wrongly accused records: "
                f"read them with care, or give {round(10 / rate):,} non-members."
            )
        if shown and not any(one.reached for one in shown):
            warnings.append(
                f"No threshold of any attack has a false positive rate of {rate:.1%}: more records than that share the "
                "highest score."
            )
    return tuple(warnings)
