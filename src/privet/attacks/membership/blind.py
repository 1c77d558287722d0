"""An attacker that never meets the model: what it finds is a difference between the two sets, not a leak."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privet.attacks.membership.halves import halves
from privet.attacks.membership.looks import looks_of
from privet.attacks.membership.pool import Pool
from privet.attacks.membership.scores import MembershipScores
from privet.errors import DataError

__all__ = ["blind"]

Floats = NDArray[np.float64]

_MOST_HELD = 5_000  # a side; they tell an area of 0.54 from 0.52 already
_MOST_VALUES = 4_096  # of a record that the linear view weighs one by one
_FEW_VALUES = 64  # of a record, up to which the other views see each of them
_DIRECTIONS = 16  # of the largest variance, that they see of wider records
_STRENGTH = 1e-3  # inverse penalty of the linear views: of many weak values, most of the shift is in their sum
_ROUNDS, _LEAVES, _LEAF_SIZE = 60, 7, 50  # of the trees: shallow, for a difference worth finding is in many records
_CATEGORIES = 255  # that the trees tell apart; the labels of more classes they take as numbers
_FOLDS, _VIEWS = 3, 3
_VALUES_AT_ONCE = 2**22
_FAR = 1e15  # larger values, squared, are beyond float32


def blind(pool: Pool, *, seed: int, is_member: NDArray[np.bool_] | None = None) -> MembershipScores:
    """Tell members from non-members by the records themselves: inputs and labels, never the target.

    If this succeeds on records that it has not seen, the two sets differ in distribution, and no attack on the target
    can be told from that difference.

    Three views of a record are trained on one half: a linear one of every value and the label, for shifts of a mean; a
    quadratic one of how the record looks (see :func:`~privet.attacks.membership.looks.looks_of`) and of its coarse
    content, for shifts of a spread, such as noise and brightness; and boosted trees on the same and the label, for the
    balance of the classes, wrong labels and the grid that values stand on. How much each view counts is fitted by
    three-fold cross-validation within that half. At most 5,000 a side are learned from, and at most 5,000 a side are
    scored; all fitting, of scales and directions too, is on the half that is learned from.

    Args:
        pool: the records.
        seed: of the split and of all training; a whole number of at least 0.
        is_member: who counts as a member (P,); None: the pool's members.

    Returns:
        The scores of held-out records; attack "blind".

    Raises:
        ArgumentError: if the seed is no whole number of at least 0.
        DataError: if ``is_member`` does not fit the pool.
        SampleTooSmallError: if there are fewer than 20 members or non-members.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> inputs = torch.randn(400, 3, generator=generator)
        >>> inputs[:200] += 1.0  # the members come from elsewhere
        >>> labels = torch.zeros(200, dtype=torch.int64)
        >>> scores = blind(Pool.of((inputs[:200], labels), (inputs[200:], labels), classes=2), seed=0)
        >>> bool(np.median(scores.members) > np.median(scores.non_members))
        True

    References:
        Das, Zhang and Tramèr, "Blind baselines beat membership inference attacks for foundation models", 2024.
    """
    members = pool.is_member if is_member is None else np.asarray(is_member)
    if members.shape != (pool.size,):
        raise DataError(f"is_member has shape {members.shape}; give ({pool.size},), one a record.")
    parts = halves(members, seed=seed, copies=pool.copies, most_held=_MOST_HELD)
    training, held = _Records.of(pool, parts.training, seed), _Records.of(pool, parts.held, seed)
    truth = members[parts.training]
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly converged scores are scores
        weights = _weights(training, truth, seed)
        return parts.scores("blind", _Views.of(training, truth, seed).see(held) @ weights)


def _weights(training: _Records, truth: NDArray[np.bool_], seed: int) -> Floats:
    """How much each view counts (V,), none of them negatively: fitted on what each says of records it has not seen."""
    from sklearn.linear_model import LogisticRegression

    fold = np.arange(len(truth)) % _FOLDS  # the records come shuffled
    said = np.empty((len(truth), _VIEWS))
    for number in range(_FOLDS):
        left = fold == number
        said[left] = _Views.of(training[~left], truth[~left], seed).see(training[left])
    spread = np.maximum(said.std(0), 1e-12)
    views = list(range(_VIEWS))
    while len(views) > 1:
        found = LogisticRegression(C=1.0).fit(said[:, views] / spread[views], truth).coef_[0]
        if found.min() >= 0.0:
            break
        del views[int(found.argmin())]
    else:
        found = np.ones(1)
    weights = np.zeros(_VIEWS)
    weights[views] = found / spread[views]
    return weights


@dataclass(frozen=True, eq=False)
class _Records:
    """Rows of a pool as numbers; each is a function of its own record alone."""

    values: NDArray[np.float32]  # (n, D), D <= _MOST_VALUES
    looks: NDArray[np.float32]  # (n, F)
    labels: NDArray[np.int64]
    classes: int

    @classmethod
    def of(cls, pool: Pool, rows: NDArray[np.intp], seed: int) -> _Records:
        values, looks = [], []
        size = max(1, _VALUES_AT_ONCE // max(1, pool.inputs[0].numel()))
        for start in range(0, len(rows), size):
            chunk = torch.from_numpy(rows[start : start + size])
            inputs = pool.inputs[chunk.to(pool.inputs.device)].detach().cpu()
            values.append(_narrowed(inputs.reshape(len(chunk), inputs[0].numel()).float().clamp(-_FAR, _FAR), seed))
            looks.append(looks_of(inputs))
        return cls(torch.cat(values).numpy(), torch.cat(looks).numpy(), pool.labels.numpy()[rows], pool.classes)

    def __getitem__(self, rows: NDArray[np.bool_]) -> _Records:
        return _Records(self.values[rows], self.looks[rows], self.labels[rows], self.classes)

    def linear(self) -> NDArray[np.float32]:
        """Every value, and the label as one of as many as there are classes."""
        return np.hstack((self.values, self.labels[:, None] == np.arange(self.classes)), dtype=np.float32)

    def coarse(self, directions: Any) -> NDArray[np.float32]:
        """The label, the looks, and the few values or the directions that stand for many."""
        seen = self.values if directions is None else directions.transform(self.values)
        return np.hstack((self.labels[:, None], self.looks, seen), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class _Views:
    """The views, trained; higher means "member"."""

    linear: Any
    quadratic: Any
    trees: Any
    directions: Any  # None where every value is seen

    @classmethod
    def of(cls, records: _Records, truth: NDArray[np.bool_], seed: int) -> _Views:
        from sklearn.base import clone
        from sklearn.decomposition import PCA
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer, StandardScaler

        state, directions = seed % 2**32, None
        if records.values.shape[1] > _FEW_VALUES:
            count = min(_DIRECTIONS, len(truth) - 1)
            directions = PCA(count, svd_solver="randomized", random_state=state).fit(records.values)
        line = LogisticRegression(C=_STRENGTH, max_iter=200)
        linear = make_pipeline(StandardScaler(), line)
        quadratic = make_pipeline(StandardScaler(), FunctionTransformer(_squared), StandardScaler(), clone(line))
        trees = HistGradientBoostingClassifier(
            max_iter=_ROUNDS,
            max_leaf_nodes=_LEAVES,
            min_samples_leaf=_LEAF_SIZE,
            categorical_features=[0] if records.classes <= _CATEGORIES else None,
            early_stopping=False,
            random_state=state,
        )
        coarse = records.coarse(directions)
        return cls(
            linear.fit(records.linear(), truth),
            quadratic.fit(coarse[:, 1:], truth),
            trees.fit(coarse, truth),
            directions,
        )

    def see(self, records: _Records) -> Floats:
        """What each view says of each record (n, _VIEWS)."""
        coarse = records.coarse(self.directions)
        said = (
            self.linear.decision_function(records.linear()),
            self.quadratic.decision_function(coarse[:, 1:]),
            self.trees.decision_function(coarse),
        )
        return np.stack(said, 1).astype(np.float64)


def _squared(values: NDArray[np.float32]) -> NDArray[np.float32]:
    near = values.clip(-4.0, 4.0)  # standard deviations: a few far records are not to rule the rest
    return np.hstack((near, np.square(near)))


def _narrowed(values: Tensor, seed: int) -> Tensor:
    """Wider records are added up, with random signs, into so many values as are looked at one by one."""
    width = values.shape[1]
    if width <= _MOST_VALUES:
        return values
    groups = -(-width // _MOST_VALUES)
    signs = torch.randint(0, 2, (width,), generator=torch.Generator().manual_seed(seed)).float() * 2.0 - 1.0
    padded = torch.nn.functional.pad(values * signs, (0, groups * _MOST_VALUES - width))
    return padded.reshape(len(values), groups, _MOST_VALUES).sum(1)
