"""Regenerate the brackets of pld.json with dp-accounting: ``./run python tests/golden/pld.py``.

Its pessimistic (connect the dots) and optimistic roundings bound the truth from either side; a finer interval narrows
the bracket and takes longer. Prints each row beside the stored one; the two must overlap.
"""

import json
from pathlib import Path

from privet.accounting import Event, NeighbouringRelation, Poisson
from privet.accounting.reference import reference_epsilon

RELATION = NeighbouringRelation.ADD_OR_REMOVE_ONE


def main(interval: float = 2e-5) -> None:
    rows = json.loads(Path(__file__).with_suffix(".json").read_text())["rows"]
    for rate, noise, steps, delta, lower, upper in rows:
        events = [Event(noise, Poisson(rate), steps)]
        above = reference_epsilon(events, delta, RELATION, interval)
        below = reference_epsilon(events, delta, RELATION, interval, optimistic=True)
        print(f"{rate:.6f} {noise} {steps} {delta:g}: [{below:.5f}, {above:.5f}] stored [{lower}, {upper}]")


if __name__ == "__main__":
    main()
