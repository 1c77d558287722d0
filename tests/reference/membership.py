"""LiRA, RMIA and label-only once more, by loops over single numbers: slow, and plain to read."""

from __future__ import annotations

import itertools
import math
from typing import Any

import mpmath
import numpy as np

from privet.attacks.membership.lira import Variance

LEAST = 1e-4


def split(signals: Any, membership: Any, record: int, query: int) -> tuple[list[float], list[float]]:
    inside = [float(signals[k, record, query]) for k in range(len(signals)) if membership[k, record]]
    outside = [float(signals[k, record, query]) for k in range(len(signals)) if not membership[k, record]]
    return inside, outside


def squares(values: list[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values)


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def groups(centres: list[float]) -> list[int]:
    centres = [round(centre, 6) for centre in centres]
    count = min(20, max(len(centres) // 100, 1))
    ordered, edges, before = sorted(centres), [], 0
    for rank in range(1, count):
        edge = ordered[len(centres) * rank // count]
        below = sum(centre < edge for centre in centres)
        if min(below - before, len(centres) - below) >= len(centres) / count / 2:
            edges.append(edge)
            before = below
    return [sum(edge <= centre for edge in edges) for centre in centres]


def normal_fit(
    pairs: list[tuple[list[float], list[float]]], variance: Variance, side: int
) -> list[tuple[float, float]]:
    """Mean and variance of each record."""
    lists = [pair[side] for pair in pairs]
    if variance is Variance.PER_RECORD:
        return [(mean(values), max(squares(values) / (len(values) - 1), LEAST)) for values in lists]
    free = sum(len(values) - 1 for values in lists)
    means = [mean(values) for values in lists]
    shared = sum(squares(values) for values in lists) / free if free else squares(means) / len(means)
    return [(one, max(shared, LEAST)) for one in means]


def neighbour_fit(pairs: list[tuple[list[float], list[float]]]) -> tuple[list[tuple[float, float]], ...]:
    steps = [mean(inside) - mean(outside) for inside, outside in pairs]
    centres = [0.5 * (mean(inside) + mean(outside)) for inside, outside in pairs]
    group = groups(centres)
    fits: tuple[list[tuple[float, float]], ...] = ([], [])
    for record, pair in enumerate(pairs):
        alike = [other for other in range(len(pairs)) if group[other] == group[record]]
        free = [sum(len(pairs[other][side]) - 1 for other in alike) for side in (0, 1)]
        usual = mean([steps[other] for other in alike])
        within = [
            sum(squares(pairs[other][side]) for other in alike) / free[side] if free[side] else None for side in (0, 1)
        ]
        between = sum((steps[other] - usual) ** 2 for other in alike) / sum(
            1 / len(pairs[other][0]) + 1 / len(pairs[other][1]) for other in alike
        )
        first, second = within
        first, second = (second if first is None else first), (first if second is None else second)
        pooled = [max(between if one is None else one, LEAST) for one in (first, second)]

        def error(other: int, pooled: list[float] = pooled) -> float:
            return pooled[0] / len(pairs[other][0]) + pooled[1] / len(pairs[other][1])

        spread = max(mean([(steps[other] - usual) ** 2 - error(other) for other in alike]), 0.0)
        step = usual + spread / (spread + error(record)) * (steps[record] - usual)
        for side, sign in ((0, 0.5), (1, -0.5)):
            values = pair[side]
            variance = (16 * pooled[side] + squares(values)) / (16 + len(values) - 1) * (1 + 1 / len(values))
            fits[side].append((centres[record] + sign * step, variance))
    return fits


def cell(phi: float, unit: float) -> tuple[float, float]:
    steps = round(1 / unit)
    shown = round(steps / (1 + math.exp(-phi)))
    low = math.log((shown - 0.5) / (steps - shown + 0.5)) if shown > 0 else -math.inf
    high = math.log((shown + 0.5) / (steps - shown - 0.5)) if shown < steps else math.inf
    return low, high


def upper_tail(z: float, student: bool) -> Any:
    if math.isinf(z):
        return mpmath.mpf(0 if z > 0 else 1)
    z = mpmath.mpf(z)
    if not student:
        return mpmath.erfc(z / mpmath.sqrt(2)) / 2
    half = mpmath.betainc(2, mpmath.mpf("0.5"), 0, 4 / (4 + z * z), regularized=True) / 2
    return half if z > 0 else 1 - half


def log_mass(low: float, high: float, student: bool) -> float:
    with mpmath.workdps(40):
        if low + high < 0:
            low, high = -high, -low
        return float(mpmath.log(upper_tail(low, student) - upper_tail(high, student)))


def log_density(z: float, student: bool) -> float:
    return -2.5 * math.log(1 + z * z / 4) if student else -0.5 * z * z


def one_ratio(phi: float, fit_in: Any, fit_out: Any, unit: float | None, student: bool) -> float:
    (mean_in, var_in), (mean_out, var_out) = fit_in, fit_out
    most = max(mean_in, mean_out)
    if unit is None:
        phi = min(phi, most) if student else phi
        found = [
            log_density((phi - m) / math.sqrt(v), student) - math.log(v) / 2
            for m, v in ((mean_in, var_in), (mean_out, var_out))
        ]
    else:
        low, high = cell(phi, unit)
        down = min(most - phi, 0.0) if student and not math.isinf(high) else 0.0
        found = [
            log_mass((low + down - m) / math.sqrt(v), (high + down - m) / math.sqrt(v), student)
            for m, v in ((mean_in, var_in), (mean_out, var_out))
        ]
    return found[0] - found[1]


def lira_query(signals: Any, membership: Any, target: Any, query: int, variance: Variance, unit: Any) -> list[float]:
    """The log ratios of one query; target (P,)."""
    pairs = [split(signals, membership, record, query) for record in range(signals.shape[1])]
    student = variance is Variance.NEIGHBOURS
    fits = neighbour_fit(pairs) if student else [normal_fit(pairs, variance, side) for side in (0, 1)]
    return [one_ratio(float(phi), *fit, unit, student) for phi, *fit in zip(target, *fits, strict=True)]


def lira(signals: Any, membership: Any, target: Any, variance: Variance, offline: bool, unit: Any) -> np.ndarray:
    """signals (K, P, Q), target (P, Q)."""
    _, records, queries = signals.shape
    score = np.zeros(records)
    weights = [1 / queries] * queries
    if variance is Variance.NEIGHBOURS:

        def features(inside: Any, outside: Any) -> np.ndarray:
            found = np.zeros(signals.shape)
            for query in range(queries):
                lists = [
                    tuple([float(v) for v, c in zip(signals[:, p, query], which[:, p], strict=True) if c])
                    for p in range(records)
                    for which in (inside, outside)
                ]
                pairs = [(list(a), list(b)) for a, b in zip(lists[::2], lists[1::2], strict=True)]
                fits = neighbour_fit(pairs)
                for k in range(len(signals)):
                    for p in range(records):
                        phi = float(signals[k, p, query])
                        found[k, p, query] = one_ratio(phi, fits[0][p], fits[1][p], unit, True)
            return found

        weights = list(learned_weights(membership, queries, features))
    for query in range(queries):
        if offline:
            pairs = [split(signals, membership, record, query) for record in range(records)]
            for record, (m, v) in enumerate(normal_fit(pairs, variance, 1)):
                phi = float(target[record, query])
                phi = phi if unit is None else cell(phi, unit)[0]
                with mpmath.workdps(40):
                    score[record] -= float(mpmath.log(upper_tail((phi - m) / math.sqrt(v), False))) / queries
        else:
            ratios = lira_query(signals, membership, target[:, query], query, variance, unit)
            score += weights[query] * np.array(ratios)
    return score


def learned_weights(membership: Any, queries: int, features: Any) -> np.ndarray:
    inside = membership.sum(0)
    equal = np.full(queries, 1 / queries)
    if queries == 1 or min(inside) < 2 or min(len(membership) - inside) < 2:
        return equal
    first = np.zeros(membership.shape, bool)  # every other one of a record's IN and of its OUT shadows
    for record in range(membership.shape[1]):
        seen = {True: 0, False: 0}
        for k in range(len(membership)):
            kind = bool(membership[k, record])
            first[k, record] = seen[kind] % 2 == 0
            seen[kind] += 1
    ratios = np.where(
        first[:, :, None],
        features(membership & ~first, ~membership & ~first),
        features(membership & first, ~membership & first),
    )
    a, b = ratios[membership], ratios[~membership]
    covariance = (np.cov(a.T) + np.cov(b.T)) / 2
    size = np.trace(covariance) / queries
    if size == 0:
        return equal
    covariance += 0.01 * size * np.eye(queries)
    step = a.mean(0) - b.mean(0)
    best, chosen = 0.0, np.zeros(queries)
    for kept in itertools.chain.from_iterable(itertools.combinations(range(queries), n + 1) for n in range(queries)):
        index = list(kept)
        some = np.linalg.solve(covariance[np.ix_(index, index)], step[index])
        gain = float(some @ step[index])
        if (some >= 0).all() and gain > best:
            best, chosen = gain, np.zeros(queries)
            chosen[index] = some
    return chosen / chosen.sum() if best else equal


def rmia(signals: Any, membership: Any, target: Any, offline: float | None) -> np.ndarray:
    """Log ratios; signals (K, P, Q), target (P, Q)."""
    _, records, queries = signals.shape
    found = np.zeros(records)
    with mpmath.workdps(40):
        for record, query in itertools.product(range(records), range(queries)):
            sides = [
                [1 / (1 + mpmath.exp(-value)) for value in side] for side in split(signals, membership, record, query)
            ]
            outside = mpmath.fsum(sides[1]) / len(sides[1])
            if offline is None:
                average = (mpmath.fsum(sides[0]) / len(sides[0]) + outside) / 2
            else:
                average = ((1 + offline) * outside + (1 - offline)) / 2
            p = 1 / (1 + mpmath.exp(-float(target[record, query])))
            found[record] += float(mpmath.log(p / average)) / queries
    return found


def share(log_ratio: Any, reference: Any, gamma: float) -> np.ndarray:
    """All pairs."""
    others = [other for other, chosen in zip(log_ratio, reference, strict=True) if chosen]
    return np.array([sum(one - other >= math.log(gamma) for other in others) / len(others) for one in log_ratio])


def label_only(votes: Any, membership: Any, target: Any) -> np.ndarray:
    """votes (K, P, Q), target (P, Q)."""
    shadows, records, queries = votes.shape

    def ratio(vote: Any, record: int, query: int, inside: Any, outside: Any) -> float:
        shares = []
        for which in (inside, outside):
            right = sum(int(votes[k, record, query]) for k in range(shadows) if which[k, record])
            shares.append((right + 1) / (int(which[:, record].sum()) + 2))
        return math.log(shares[0] / shares[1]) if vote else math.log((1 - shares[0]) / (1 - shares[1]))

    def features(inside: Any, outside: Any) -> np.ndarray:
        found = np.zeros(votes.shape)
        for k, p, q in itertools.product(range(shadows), range(records), range(queries)):
            found[k, p, q] = ratio(votes[k, p, q], p, q, inside, outside)
        return found

    weights = learned_weights(membership, queries, features)
    return np.array(
        [
            sum(weights[q] * ratio(target[p, q], p, q, membership, ~membership) for q in range(queries))
            for p in range(records)
        ]
    )
