"""Shadows for tests: random signals, memberships in blocks that complete each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu


@dataclass(frozen=True, eq=False)
class Drawn:
    signals: NDArray[Any]  # (K, P, Q)
    membership: NDArray[np.bool_]
    blocks: NDArray[np.int64]
    target: NDArray[Any]  # (P, Q)

    def without(self, row: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """What is left for shadow ``row`` as the target."""
        others = self.blocks != self.blocks[row]
        return self.signals[others], self.membership[others]


def balanced(blocks: int, size: int, records: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Of each block of shadows one is trained on each record."""
    found = np.zeros((blocks, size, records), bool)
    chosen = generator.integers(size, size=(blocks, records))
    np.put_along_axis(found, chosen[:, None], True, axis=1)
    return found.reshape(-1, records)


def draw(
    seed: int, blocks: int, size: int = 2, records: int = 5, queries: int = 1, shift: float = 1.0, extreme: float = 0.0
) -> Drawn:
    """Signals around 2, higher by ``shift`` for members; a share ``extreme`` of them is 700 or -700."""
    generator = np.random.default_rng(seed)
    membership = balanced(blocks, size, records, generator)
    level = 2.0 + 1.5 * generator.normal(size=(records, 1))
    shape = (blocks * size, records, queries)
    signals = level + shift * membership[:, :, None] + generator.normal(size=shape)
    target = level + shift * (generator.random((records, 1)) < 0.5) + generator.normal(size=shape[1:])
    for array in (signals, target):
        wild = generator.random(array.shape) < extreme
        array[wild] = generator.choice([-700.0, 700.0], int(wild.sum()))
    order = generator.permutation(len(signals))  # blocks need not lie side by side
    return Drawn(signals[order], membership[order], np.repeat(np.arange(blocks), size)[order], target)


def drawn(least_blocks: int = 2, queries: int = 3) -> st.SearchStrategy[Drawn]:
    return st.builds(
        draw,
        seed=st.integers(0, 2**32 - 1),
        blocks=st.integers(least_blocks, 4),
        size=st.integers(2, 3),
        records=st.integers(1, 6),
        queries=st.integers(1, queries),
        shift=st.sampled_from([0.0, 1.0, 5.0]),
        extreme=st.sampled_from([0.0, 0.0, 0.1]),
    )


def false_alarms(score: Callable[[Drawn], Any], runs: int = 300, alternative: str = "greater") -> float:
    """The share of runs without any leak in which members score higher (lower) at a nominal 5%.

    ``score`` gives scores (P,) and which of the records were trained on (P,).
    """
    alarms = 0
    for seed in range(runs):
        scores, is_member = score(draw(seed, blocks=4, records=120, shift=0.0))
        alarms += mannwhitneyu(scores[is_member], scores[~is_member], alternative=alternative).pvalue < 0.05
    return alarms / runs


def area(scores: Any, is_member: Any) -> float:
    """Under the ROC curve."""
    found = mannwhitneyu(scores[is_member], scores[~is_member])
    return float(found.statistic / is_member.sum() / (~is_member).sum())


def uneven(seed: int, records: int = 3_000, blocks: int = 4) -> Drawn:
    """As in a network: records that are hard to learn give themselves away more, and vary more."""
    generator = np.random.default_rng(seed)
    some = draw(seed, blocks, records=records, shift=0.0)
    hard = generator.random((1, records, 1))
    signals = (
        8
        - 6 * hard
        + 3 * hard * some.membership[:, :, None]
        + (0.5 + hard) * (generator.normal(size=some.signals.shape))
    )
    return Drawn(signals, some.membership, some.blocks, some.target)


def rounded(phi: Any, decimals: int) -> Any:
    """What scaled confidences are behind a rounding defense."""
    unit = 10.0**-decimals
    share = np.clip(np.round(1 / (1 + np.exp(-phi)), decimals), unit / 4, 1 - unit / 4)
    return np.log(share) - np.log1p(-share)
