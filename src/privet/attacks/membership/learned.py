"""Attackers that learn, from the target's answers, how it answers about members."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privet.attacks.membership.answers import Answers
from privet.attacks.membership.halves import Halves, check_whole, halves
from privet.attacks.membership.scores import MembershipScores
from privet.errors import ArgumentError, DataError
from privet.statistics import Estimate, clopper_pearson

__all__ = ["METHODS", "LearnedAttack", "Method", "check_methods", "features_of", "learned_attacks"]

Method = tuple[str, Mapping[str, Sequence[Any]]]
"""A kind of classifier, and the values to try for each of its scikit-learn parameters."""

METHODS: tuple[Method, ...] = (
    ("knn", {"n_neighbors": (3, 5, 7)}),
    ("logistic regression", {"C": (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)}),
    ("mlp", {"hidden_layer_sizes": ((64,), (32, 32))}),
    ("random forest", {"max_depth": (5, 10, 20, None)}),
)
"""What is run if nothing else is asked for."""

_NAMES = tuple(name for name, _ in METHODS)
_FOLDS = 3
_ENOUGH = 2_000  # training records, from which on a tenth of them tells when to stop an MLP
_LARGEST = 10  # of the sorted log-probabilities that are looked at: the rest of many classes is mostly noise
_FAR = 50.0  # nats; what is further out tells no more, and would rule every mean and variance


@dataclass(frozen=True, eq=False)
class LearnedAttack:
    """A trained attacker and how it did on records that it had not seen.

    Precision, accuracy and recall are those of the rule "member if its probability is above 1/2" on as many held-out
    members as non-members. Where the rule calls nobody a member, the precision is 0 within [0, 1].

    Attributes:
        scores: of all held-out records.
        parameters: what the grid search chose, on the training half alone.
        precision: the share of members among those called members.
        accuracy: the share of right answers; 1/2 is guessing.
        recall: the share of members that were called members.
    """

    scores: MembershipScores
    parameters: dict[str, Any]
    precision: Estimate
    accuracy: Estimate
    recall: Estimate


def learned_attacks(
    answers: Answers,
    methods: Sequence[Method] = METHODS,
    *,
    seed: int,
    is_member: NDArray[np.bool_] | None = None,
    workers: int = 1,
    confidence: float = 0.95,
) -> tuple[LearnedAttack, ...]:
    """Train classifiers to tell members from non-members by the target's answers, and judge them on other records.

    Members and non-members are each cut in two at random, copies of one record kept together. Scaling, grid search (by
    the area under the ROC curve in three-fold cross-validation) and training see the first half alone, cut down to as
    many members as non-members and to 5,000 of each; every score is about a record of the second half.

    Args:
        answers: what the target said about the pool.
        methods: which classifiers, each with values to try: "knn", "logistic regression", "mlp" or "random forest",
            each at most once; a value is what scikit-learn's classifier takes.
        seed: of the split and of all training; a whole number of at least 0.
        is_member: who counts as a member (P,); None: the pool's members. Shuffled, it makes the null control.
        workers: processes for the grid search.
        confidence: of the intervals, in (0, 1).

    Returns:
        One attack for each method, in their order.

    Raises:
        ArgumentError: if a method, a parameter or a value is not known, or the seed or workers are not as above.
        DataError: if ``is_member`` does not fit the answers.
        SampleTooSmallError: if there are fewer than 20 members or non-members.

    Example:
        >>> generator = np.random.default_rng(0)
        >>> sure = generator.uniform(0.9, 1.0, 200), generator.uniform(0.4, 1.0, 200)  # it knows its members
        >>> logs = np.log(np.stack([np.concatenate(sure), 1.0 - np.concatenate(sure)], 1))
        >>> answers = Answers(logs, np.zeros(400, dtype=np.int64), members=200)
        >>> (attack,) = learned_attacks(answers, [("logistic regression", {"C": [1.0]})], seed=0)
        >>> len(attack.scores.members), attack.accuracy.low > 0.5
        (100, True)

    References:
        Shokri et al., "Membership inference attacks against machine learning models", 2017, section V-C; Salem et al.,
        "ML-Leaks: model and data independent membership inference attacks", 2019, section III.
    """
    chosen = check_methods(methods)
    check_whole("workers", workers, 1)
    members = answers.is_member if is_member is None else np.asarray(is_member)
    if members.shape != answers.labels.shape:
        raise DataError(f"is_member has shape {members.shape}; give {answers.labels.shape}, one a record.")
    parts = halves(members, seed=seed, copies=answers.copies)
    features = features_of(answers)
    return tuple(
        _attack(name, grid, features, parts, seed=seed, workers=workers, confidence=confidence) for name, grid in chosen
    )


def check_methods(methods: Sequence[Method]) -> tuple[Method, ...]:
    """Return the methods under their own names, or refuse them before any work.

    Args:
        methods: names, with ``_`` or a space between words, and the values to try for each parameter.

    Raises:
        ArgumentError: if a name is not known or given twice, scikit-learn's classifier has no such parameter, or there
            are no values to try for one.
    """
    chosen: dict[str, Mapping[str, Sequence[Any]]] = {}
    given: Sequence[Any] = methods  # of a file, perhaps: nothing is taken for granted
    for method in given:
        if not (isinstance(method, tuple | list) and len(method) == 2 and isinstance(method[1], Mapping)):
            raise ArgumentError("methods", method, "pairs of a name and a mapping of parameters to values")
        name, grid = str(method[0]).replace("_", " "), method[1]
        if name not in _NAMES or name in chosen:
            raise ArgumentError("methods", method[0], f"each of {', '.join(_NAMES)} at most once")
        known = _classifier(name, 2, 0).get_params()
        for parameter, values in grid.items():
            if parameter not in known or parameter == "random_state":
                raise ArgumentError("methods", (name, parameter), f"a parameter of scikit-learn's {name}")
            if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray) or len(values) == 0:
                raise ArgumentError("methods", (name, {parameter: values}), "a list of values, at least one")
        chosen[name] = grid
    if not chosen:
        raise ArgumentError("methods", methods, "at least one method")
    return tuple(chosen.items())


def features_of(answers: Answers) -> NDArray[np.float64]:
    """What a learned attacker sees of each answer, one row a record from that row alone.

    Args:
        answers: what the target said about P records.

    Returns:
        (P, 2 + min(C, 10)): the log-odds of the record's own label, its negative loss, and the largest
        log-probabilities, falling, whichever classes they belong to; each kept within 50 nats of 0.
    """
    odds = answers.scaled_confidence()
    falling = -np.sort(-answers.log_probabilities, axis=1)[:, :_LARGEST]
    return np.column_stack((odds, -np.logaddexp(0.0, -odds), falling)).clip(-_FAR, _FAR)


def _attack(
    name: str,
    grid: Mapping[str, Sequence[Any]],
    features: NDArray[np.float64],
    parts: Halves,
    *,
    seed: int,
    workers: int,
    confidence: float,
) -> LearnedAttack:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = _classifier(name, len(parts.training), seed)
    pipeline = make_pipeline(StandardScaler(), classifier)  # scaled within each fold, never by what is held out
    step = pipeline.steps[-1][0]
    search = GridSearchCV(
        pipeline,
        {f"{step}__{parameter}": list(values) for parameter, values in grid.items()},
        scoring="roc_auc",
        cv=StratifiedKFold(_FOLDS, shuffle=True, random_state=seed % 2**32),
        n_jobs=workers,
        error_score="raise",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            search.fit(features[parts.training], parts.is_member[parts.training])
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ArgumentError("methods", (name, dict(grid)), "values that scikit-learn takes", reason) from error
    scores = search.predict_proba(features[parts.held])[:, 1]
    precision, accuracy, recall = _judged(scores, parts, seed, confidence)
    parameters = {key.removeprefix(f"{step}__"): value for key, value in search.best_params_.items()}
    return LearnedAttack(parts.scores(name, scores), parameters, precision, accuracy, recall)


def _judged(
    scores: NDArray[np.float64], parts: Halves, seed: int, confidence: float
) -> tuple[Estimate, Estimate, Estimate]:
    """Precision, accuracy and recall on as many held-out members as non-members."""
    sides = scores[: len(parts.held_members)], scores[len(parts.held_members) :]
    size = min(map(len, sides))
    generator = np.random.default_rng(seed)
    called, wrongly = (int(np.count_nonzero(generator.permutation(side)[:size] > 0.5)) for side in sides)
    if called + wrongly:
        precision = clopper_pearson(called, called + wrongly, confidence)
    else:
        precision = Estimate(0.0, 0.0, 1.0, confidence, 1)
    accuracy = clopper_pearson(called + size - wrongly, 2 * size, confidence)
    return precision, accuracy, clopper_pearson(called, size, confidence)


def _classifier(name: str, records: int, seed: int) -> Any:
    """The classifier of this name as it is before the grid search, for a training half of so many records."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier

    state = seed % 2**32
    if name == "knn":
        return KNeighborsClassifier()
    if name == "logistic regression":
        return LogisticRegression(max_iter=1_000)
    if name == "mlp":
        return MLPClassifier(alpha=1.0, early_stopping=records >= _ENOUGH, random_state=state)
    return RandomForestClassifier(random_state=state)
