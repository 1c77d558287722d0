"""What is refused of shadows because it would tell membership by itself: counts that are left, a target among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from privet.attacks.membership import label_only, label_only_rotated, lira, lira_rotated, rmia, rmia_rotated
from privet.errors import DataError

RECORDS = 400
ROTATED: list[Callable[..., Any]] = [lira_rotated, rmia_rotated, label_only_rotated]


def coins(shadows: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    return generator.random((shadows, RECORDS)) < 0.5


def votes(shadows: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Signals that say nothing, and are votes as well."""
    return (generator.random((shadows, RECORDS)) < 0.9).astype(np.float64)


@pytest.mark.parametrize("rotated", ROTATED)
@pytest.mark.parametrize("dropped", [0, 1])
def test_shadows_of_other_blocks_that_complete_each_other_are_refused(
    rotated: Callable[..., Any], dropped: int
) -> None:
    generator = np.random.default_rng(0)
    half = generator.random((8, RECORDS)).argsort(0) < 4  # each record in exactly half of the shadows
    with pytest.raises(DataError, match="put shadows that complete each other into one block"):
        rotated(votes(8 - dropped, generator), half[dropped:], np.arange(8 - dropped))


@pytest.mark.parametrize("rotated", ROTATED)
def test_records_that_all_shadows_prefer_are_refused(rotated: Callable[..., Any]) -> None:
    generator = np.random.default_rng(1)
    often = generator.random((16, RECORDS)) < np.where(np.arange(RECORDS) % 2, 0.2, 0.8)
    with pytest.raises(DataError, match="of one block"):
        rotated(votes(16, generator), often, np.repeat(np.arange(4), 4))


@pytest.mark.parametrize("rotated", ROTATED)
@pytest.mark.parametrize("seed", range(5))
def test_independent_shadows_and_complete_blocks_are_taken(rotated: Callable[..., Any], seed: int) -> None:
    generator = np.random.default_rng(seed)
    rotated(votes(24, generator), coins(24, generator), np.arange(24))
    half = coins(4, generator)
    rotated(votes(8, generator), np.concatenate((half, ~half)), np.tile(np.arange(4), 2))
    lone = np.concatenate((half, ~half, coins(1, generator)))  # the last block unfinished
    rotated(votes(9, generator), lone, np.append(np.tile(np.arange(4), 2), 4))


@pytest.mark.parametrize("attack", [lira, rmia])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_target_among_its_own_shadows_is_refused(attack: Callable[..., Any], kind: type[np.floating]) -> None:
    generator = np.random.default_rng(2)
    half = coins(2, generator)
    membership, signals = np.concatenate((half, ~half)), generator.normal(size=(4, RECORDS, 2)).astype(kind)
    with pytest.raises(DataError, match="those of shadow 2, which would be judged by itself"):
        attack(signals, membership, signals[2].astype(np.float64))
    attack(signals, membership, generator.normal(size=(RECORDS, 2)))


def test_answers_that_are_all_alike_are_a_coincidence() -> None:
    generator = np.random.default_rng(3)
    half = coins(2, generator)
    membership, row = np.concatenate((half, ~half)), generator.normal(size=RECORDS)
    assert not lira(np.tile(row, (4, 1)), membership, row).any()  # a training that does nothing
    ones = np.ones((4, RECORDS))
    ones[1, 0] = 0.0
    label_only(ones, membership, ones[0])  # votes are often equal
