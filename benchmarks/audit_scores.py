"""What evidence costs: LiRA beside a loop over scipy, RMIA beside all pairs, resampled areas beside scikit-learn's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from benchmarks.harness import Call, Work
from privet.attacks.membership import Variance, label_only_rotated, lira, lira_rotated, rmia, rmia_rotated
from privet.output_form import OutputForm
from privet.statistics import auc_interval

NAME = "audit-scores"
_ROUNDED = OutputForm(decimals=1, probabilities=True)
_SHADOWS, _RECORDS, _AUDITED, _REFERENCE, _SCORES, _RESAMPLES = 16, 20_000, 50_000, 10_000, 5_000, 1_000
_MANY, _POOL, _QUERIES = 64, 10_000, 9
Three = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]


def works() -> list[Work]:
    """Scores of one target, of every shadow as the target, and the interval of an area."""
    return [_lira(), _rmia(), _rotated(), _resampled()]


@cache
def _shadows(shadows: int, records: int, queries: int = 1) -> Three:
    """Scaled confidences, memberships in pairs that complete each other, and a target's own confidences."""
    generator = np.random.default_rng(0)
    half = generator.random((shadows // 2, records)) < 0.5
    membership = np.stack([half, ~half], 1).reshape(shadows, records)
    level = generator.normal(6.0, 3.0, (records, 1))
    signals = level + 1.5 * membership[:, :, None] + generator.normal(size=(shadows, records, queries))
    target = level + 1.5 * (generator.random((records, 1)) < 0.5) + generator.normal(size=(records, queries))
    return signals.astype(np.float32), membership, target.astype(np.float32)


def _prepared(call: Callable[..., object], *shape: int, **keywords: Any) -> Callable[[], Call]:
    def set_up() -> Call:
        three = _shadows(*shape)
        return lambda: call(*three, **keywords)

    return set_up


def _lira() -> Work:
    shape = _SHADOWS, _RECORDS
    methods = {
        "scipy loop": _prepared(_scipy_loop, *shape),
        "lira": _prepared(lira, *shape),
        "lira, one variance": _prepared(lira, *shape, variance=Variance.SHARED),
        "lira, own variances": _prepared(lira, *shape, variance=Variance.PER_RECORD),
        "lira, rounded answers": _prepared(lira, *shape, form=_ROUNDED),
    }
    return Work(f"lira-{_SHADOWS}x{_RECORDS}", methods, baseline="scipy loop", rounds=3)


def _scipy_loop(signals: NDArray[Any], membership: NDArray[np.bool_], target: NDArray[Any]) -> list[float]:
    """Record by record, as published implementations score."""
    found = []
    for record in range(signals.shape[1]):
        column, inside = signals[:, record, 0], membership[:, record]
        log_in, log_out = (
            norm.logpdf(target[record, 0], np.mean(some), np.std(some) + 1e-30)
            for some in (column[inside], column[~inside])
        )
        found.append(float(log_in - log_out))
    return found


def _rmia() -> Work:
    shape = _SHADOWS, _AUDITED + _REFERENCE
    reference = np.arange(_AUDITED + _REFERENCE) >= _AUDITED
    methods = {
        "all pairs in blocks": _prepared(_all_pairs, *shape),
        "rmia": _prepared(rmia, *shape, reference=reference),
    }
    return Work(f"rmia-{_AUDITED}x{_REFERENCE}", methods, baseline="all pairs in blocks", rounds=5)


def _all_pairs(signals: NDArray[Any], membership: NDArray[np.bool_], target: NDArray[Any]) -> NDArray[np.float64]:
    """The formula as it stands, 500 rows of its pairs at a time."""
    p = 1.0 / (1.0 + np.exp(-signals[:, :, 0].astype(np.float64)))
    inside, outside = (np.mean(p, axis=0, where=which) for which in (membership, ~membership))
    ratio = 1.0 / (1.0 + np.exp(-target[:, 0].astype(np.float64))) / (0.5 * (inside + outside))
    audited, reference = ratio[:_AUDITED], ratio[_AUDITED:]
    blocks = np.split(audited, _AUDITED // 500)
    return np.concatenate([np.mean(block[:, None] / reference >= 2.0, axis=1) for block in blocks])


def _rotated() -> Work:
    shape = _MANY, _POOL
    return Work(
        f"rotated-{_MANY}x{_POOL}",
        {
            "one target at a time": _prepared(_one_at_a_time, *shape),
            "lira_rotated": _prepared(_lira_rotated, *shape),
            "lira_rotated, rounded answers": _prepared(_lira_rotated, *shape, form=_ROUNDED),
            f"lira_rotated, {_QUERIES} queries": _prepared(_lira_rotated, *shape, _QUERIES),
            "rmia_rotated": _prepared(_rmia_rotated, *shape),
            f"label_only_rotated, {_QUERIES} queries": _prepared(_label_only_rotated, *shape, _QUERIES),
        },
        baseline="one target at a time",
        rounds=3,
    )


def _one_at_a_time(signals: NDArray[Any], membership: NDArray[np.bool_], _: NDArray[Any]) -> NDArray[np.float64]:
    blocks = np.arange(_MANY) // 2
    rows = []
    for row in range(_MANY):
        others = blocks != blocks[row]
        rows.append(lira(signals[others], membership[others], signals[row]))
    return np.stack(rows)


def _lira_rotated(
    signals: NDArray[Any],
    membership: NDArray[np.bool_],
    _: NDArray[Any],
    form: OutputForm = OutputForm(),  # noqa: B008
) -> NDArray[np.float64]:
    return lira_rotated(signals, membership, np.arange(_MANY) // 2, form=form)


def _rmia_rotated(signals: NDArray[Any], membership: NDArray[np.bool_], _: NDArray[Any]) -> object:
    return rmia_rotated(signals, membership, np.arange(_MANY) // 2)


def _label_only_rotated(signals: NDArray[Any], membership: NDArray[np.bool_], _: NDArray[Any]) -> NDArray[np.float64]:
    return label_only_rotated(signals > 4.0, membership, np.arange(_MANY) // 2)


def _resampled() -> Work:
    def scores() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        generator = np.random.default_rng(0)
        return generator.normal(0.3, 1.0, _SCORES), generator.normal(size=_SCORES)

    def ours() -> Call:
        members, non_members = scores()
        return lambda: auc_interval(members, non_members, seed=0, resamples=_RESAMPLES)

    def peer() -> Call:
        members, non_members = scores()
        return lambda: _sklearn_resampled(members, non_members)

    methods = {"resampling with roc_auc_score": peer, "auc_interval": ours}
    name = f"{_RESAMPLES}-bootstraps-of-{_SCORES}+{_SCORES}"
    return Work(name, methods, baseline="resampling with roc_auc_score", rounds=3)


def _sklearn_resampled(members: NDArray[Any], non_members: NDArray[Any]) -> NDArray[np.float64]:
    generator = np.random.default_rng(0)
    truth = np.repeat([1, 0], _SCORES)
    areas = []
    for _ in range(_RESAMPLES):
        drawn = [some[generator.integers(_SCORES, size=_SCORES)] for some in (members, non_members)]
        areas.append(roc_auc_score(truth, np.concatenate(drawn)))
    ends: NDArray[np.float64] = np.quantile(areas, [0.025, 0.975])
    return ends
