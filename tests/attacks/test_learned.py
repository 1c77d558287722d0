"""Learned attackers: what they find holds for records they have not seen, and nothing they learn from is scored."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from privet.attacks.membership import METHODS, Answers, LearnedAttack, learned_attacks
from privet.attacks.membership import halves as halves_room
from privet.attacks.membership import learned as room
from privet.attacks.membership.halves import Halves, halves
from privet.attacks.membership.learned import check_methods, features_of
from privet.errors import ArgumentError, DataError, SampleTooSmallError
from privet.output_form import OutputForm
from privet.statistics import auc_interval

FEW = (
    ("knn", {"n_neighbors": (3,)}),
    ("logistic regression", {"C": (1.0,)}),
    ("mlp", {"hidden_layer_sizes": ((8,),)}),
    ("random forest", {"max_depth": (5, None), "n_estimators": (20,)}),
)
FOREST = (FEW[3],)


def answers(members: int, non_members: int, *, leak: float, seed: int = 0, classes: int = 4) -> Answers:
    """Logits at random; those of members favour their label by ``leak``."""
    generator = np.random.default_rng(seed)
    size = members + non_members
    labels = generator.integers(0, classes, size)
    logits = generator.standard_normal((size, classes))
    logits[np.arange(members), labels[:members]] += leak
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return Answers(logs, labels, members)


def rows_of(attack: LearnedAttack) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    rows, others = attack.scores.member_rows, attack.scores.non_member_rows
    assert rows is not None
    assert others is not None
    return rows, others


@settings(max_examples=50)
@given(
    members=st.integers(20, 200),
    non_members=st.integers(20, 200),
    seed=st.integers(0, 2**32),
    copied=st.integers(0, 5),
    order=st.randoms(use_true_random=False),
)
def test_no_record_and_no_copy_of_it_is_on_both_sides(
    members: int, non_members: int, seed: int, copied: int, order: Any
) -> None:
    truth = [True] * members + [False] * non_members
    order.shuffle(truth)
    is_member = np.array(truth)
    copies = np.arange(len(truth))
    for _ in range(copied):  # pairs of copies, on the same side or not
        copies[order.randrange(len(truth))] = copies[order.randrange(len(truth))]
    parts = halves(is_member, seed=seed, copies=copies)
    for side, held in ((is_member, parts.held_members), (~is_member, parts.held_non_members)):
        learned = parts.training[side[parts.training]]
        assert side[held].all()
        assert not set(copies[learned]) & set(copies[held])
        assert abs(len(held) - side.sum() / 2) <= 1 + copied
    assert parts.is_member[parts.training].sum() * 2 == len(parts.training)
    assert len(np.unique(parts.training)) == len(parts.training)
    again = halves(is_member, seed=seed, copies=copies)
    assert np.array_equal(again.training, parts.training)
    assert np.array_equal(again.held, parts.held)


def test_a_leak_is_found_by_every_method() -> None:
    found = learned_attacks(answers(300, 300, leak=2.0), FEW, seed=0)
    assert [attack.scores.attack for attack in found] == [name for name, _ in METHODS]
    for attack in found:
        area = auc_interval(attack.scores.members, attack.scores.non_members, seed=0, confidence=0.999)
        assert area.low > 0.6
        assert attack.accuracy.low > 0.55
        assert attack.precision.value > 0.6
        assert attack.recall.value > 0.6


def null_holds(found: tuple[LearnedAttack, ...]) -> bool:
    """Whether nothing is found, at a confidence of 0.999 for each interval."""
    for attack in found:
        area = auc_interval(attack.scores.members, attack.scores.non_members, seed=0, confidence=0.999)
        if not (area.low <= 0.5 <= area.high and attack.accuracy.low <= 0.5 <= attack.accuracy.high):
            return False
    return True


def test_a_null_is_not_found() -> None:
    assert null_holds(learned_attacks(answers(300, 300, leak=0.0), FEW, seed=0, confidence=0.999))


def test_members_that_are_shuffled_are_a_null() -> None:
    leak = answers(300, 300, leak=2.0)
    shuffled = np.random.default_rng(5).permutation(leak.is_member)
    assert null_holds(learned_attacks(leak, FEW, seed=0, is_member=shuffled, confidence=0.999))


def test_scoring_the_training_half_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(is_member: NDArray[np.bool_], **split: Any) -> Halves:
        parts = halves(is_member, **split)
        learned = np.sort(parts.training)
        return Halves(parts.training, learned[is_member[learned]], learned[~is_member[learned]], is_member)

    null = answers(300, 300, leak=0.0)
    assert null_holds(learned_attacks(null, FOREST, seed=0, confidence=0.999))
    monkeypatch.setattr(room, "halves", seen)
    assert not null_holds(learned_attacks(null, FOREST, seed=0, confidence=0.999))


def test_copies_on_both_sides_would_be_caught() -> None:
    once = answers(300, 300, leak=0.0)
    twice = np.concatenate((np.repeat(np.arange(300), 2), np.repeat(np.arange(300, 600), 2)))
    logs, labels = once.log_probabilities[twice], once.labels[twice]
    known = Answers(logs, labels, 600, copies=twice)
    assert null_holds(learned_attacks(known, FOREST, seed=0, confidence=0.999))
    unknown = Answers(logs, labels, 600)
    assert not null_holds(learned_attacks(unknown, FOREST, seed=0, confidence=0.999))


@pytest.mark.parametrize("method", FEW, ids=[name for name, _ in FEW])
def test_what_is_held_out_teaches_nothing(method: room.Method) -> None:
    before = answers(60, 50, leak=1.0)
    (first,) = learned_attacks(before, [method], seed=3)
    rows, _ = rows_of(first)
    logs = before.log_probabilities.copy()
    changed = rows[:10]
    logs[changed] = np.log([0.001, 0.001, 0.001, 0.997])  # far from all others: scales fitted on it would move
    (second,) = learned_attacks(Answers(logs, before.labels, 60), [method], seed=3)
    assert np.array_equal(rows_of(second)[0], rows)
    assert np.allclose(second.scores.members[10:], first.scores.members[10:], rtol=0, atol=1e-12)
    assert np.allclose(second.scores.non_members, first.scores.non_members, rtol=0, atol=1e-12)
    assert not np.allclose(second.scores.members[:10], first.scores.members[:10])
    assert second.parameters == first.parameters


def test_each_score_stands_in_the_row_of_its_record() -> None:
    given_ = answers(90, 70, leak=1.0)
    (attack,) = learned_attacks(given_, [FEW[1]], seed=0)
    rows, others = rows_of(attack)
    assert (len(rows), len(others)) == (45, 35)
    # Held-out records that swap their answers swap their scores.
    logs, labels = given_.log_probabilities.copy(), given_.labels.copy()
    for values in (logs, labels):
        values[rows[[0, 7]]] = values[rows[[7, 0]]]
        values[90 + others[[1, 4]]] = values[90 + others[[4, 1]]]
    (swapped,) = learned_attacks(Answers(logs, labels, 90), [FEW[1]], seed=0)
    expected, other = attack.scores.members.copy(), attack.scores.non_members.copy()
    expected[[0, 7]], other[[1, 4]] = expected[[7, 0]], other[[4, 1]]
    assert np.allclose(swapped.scores.members, expected)
    assert np.allclose(swapped.scores.non_members, other)


def test_rows_count_within_the_members_that_were_given() -> None:
    shuffled = np.random.default_rng(1).permutation(np.arange(120) < 60)
    parts = halves(shuffled, seed=0)
    scores = parts.scores("made up", parts.held.astype(np.float64))
    assert scores.member_rows is not None
    assert scores.non_member_rows is not None
    assert np.array_equal(np.flatnonzero(shuffled)[scores.member_rows], scores.members)
    assert np.array_equal(np.flatnonzero(~shuffled)[scores.non_member_rows], scores.non_members)


def test_precision_accuracy_and_recall_are_those_of_balanced_sides() -> None:
    few = answers(400, 60, leak=2.0)
    (attack,) = learned_attacks(few, [FEW[1]], seed=0)
    assert (len(attack.scores.members), len(attack.scores.non_members)) == (200, 30)
    assert attack.recall.n == 30
    assert attack.accuracy.n == 60
    called = attack.precision.n
    right, wrong = attack.recall.value * 30, called - attack.recall.value * 30
    assert wrong == np.count_nonzero(attack.scores.non_members > 0.5)
    assert attack.precision.value == pytest.approx(right / called)
    assert attack.accuracy.value == pytest.approx((right + 30 - wrong) / 60)


def test_guessing_one_side_always_is_accuracy_one_half(monkeypatch: pytest.MonkeyPatch) -> None:
    constant = Answers(np.full((500, 2), np.log(0.5)), np.zeros(500, dtype=np.int64), 400)
    (attack,) = learned_attacks(constant, [FEW[1]], seed=0)
    assert attack.accuracy.value == 0.5
    assert (attack.precision.low, attack.precision.high) == (0.0, 1.0)
    assert len(np.unique(np.concatenate((attack.scores.members, attack.scores.non_members)))) == 1


def test_large_pools_are_learned_from_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halves_room, "MOST", 40)
    parts = halves(np.arange(300) < 200, seed=0)
    assert len(parts.training) == 80
    assert (len(parts.held_members), len(parts.held_non_members)) == (100, 50)
    cut = halves(np.arange(300) < 200, seed=0, most_held=30)
    assert (len(cut.held_members), len(cut.held_non_members)) == (30, 30)
    assert set(cut.held) < set(parts.held)


def test_the_same_seed_makes_the_same_attack() -> None:
    leak = answers(60, 60, leak=1.0)
    first, second = (learned_attacks(leak, FEW, seed=7) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.scores.members, other.scores.members)
        assert one.parameters == other.parameters
    other_seed = learned_attacks(leak, [FEW[1]], seed=8)[0]
    assert not np.array_equal(rows_of(first[1])[0], rows_of(other_seed)[0])


@pytest.mark.slow  # worker processes start slowly
def test_workers_change_nothing() -> None:
    leak = answers(60, 60, leak=1.0)
    for one, other in zip(*(learned_attacks(leak, FEW, seed=7, workers=count) for count in (1, 2)), strict=True):
        assert np.array_equal(one.scores.members, other.scores.members)
        assert one.parameters == other.parameters


def test_the_grid_is_searched() -> None:
    (attack,) = learned_attacks(answers(100, 100, leak=1.0), [("knn", {"n_neighbors": (1, 15)})], seed=0)
    assert attack.parameters == {"n_neighbors": 15}


def test_each_record_is_seen_alone_and_classes_in_any_order() -> None:
    given_ = answers(30, 30, leak=1.0)
    features = features_of(given_)
    part = Answers(given_.log_probabilities[5:40], given_.labels[5:40], 10)
    assert np.array_equal(features_of(part), features[5:40])
    order = np.array([2, 0, 3, 1])  # the class that was order[c] is now c
    renamed = Answers(given_.log_probabilities[:, order], np.argsort(order)[given_.labels], 30)
    assert np.allclose(features_of(renamed), features)
    far = Answers(np.array([[0.0, -690.0], [-690.0, 0.0]]), np.array([0, 0]), 1)
    assert np.abs(features_of(far)).max() == 50.0


def test_behind_labels_every_method_runs() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 200)
    said = np.where(np.arange(200) < 100, labels, generator.integers(0, 3, 200))  # right about members alone
    logs = np.log(np.maximum(np.eye(3)[said], 1e-300))
    for attack in learned_attacks(Answers(logs, labels, 100, OutputForm(labels_only=True)), FEW, seed=0):
        assert attack.accuracy.low > 0.6


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([], "at least one method"),
        ([("svm", {})], "each of knn, logistic regression"),
        ([("knn", {}), ("knn", {})], "at most once"),
        ([("random_forest", {}), ("random forest", {})], "at most once"),
        (["knn"], "pairs"),
        ([("knn", [3, 5])], "pairs"),
        ([("knn", {"k": [3]})], "a parameter of scikit-learn's knn"),
        ([("mlp", {"random_state": [3]})], "a parameter"),
        ([("knn", {"n_neighbors": []})], "at least one"),
        ([("knn", {"n_neighbors": 3})], "a list of values"),
        ([("knn", {"weights": "uniform"})], "a list of values"),
    ],
)
def test_methods_that_are_not_known_are_refused(methods: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        learned_attacks(answers(30, 30, leak=0.0), methods, seed=0)


@pytest.mark.parametrize("grid", [{"n_neighbors": [-1]}, {"n_neighbors": ["three"]}, {"n_neighbors": [1_000]}])
def test_values_that_scikit_learn_refuses_are_named(grid: dict[str, list[Any]]) -> None:
    with pytest.raises(ArgumentError, match="n_neighbors"):
        learned_attacks(answers(30, 30, leak=0.0), [("knn", grid)], seed=0)


def test_names_are_taken_with_underscores_too() -> None:
    found = check_methods([("logistic_regression", {"C": [1.0]}), ("random_forest", {}), ("mlp", {})])
    assert [name for name, _ in found] == ["logistic regression", "random forest", "mlp"]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SampleTooSmallError, match="19 members and 30 non-members"):
        learned_attacks(answers(19, 30, leak=0.0), FOREST, seed=0)
    copied = Answers(np.full((60, 2), np.log(0.5)), np.zeros(60, dtype=np.int64), 30, copies=np.arange(60) // 30)
    with pytest.raises(SampleTooSmallError, match="copies"):
        learned_attacks(copied, FOREST, seed=0)
    fit = answers(30, 30, leak=0.0)
    for seed in (-1, 1.0, True, None):
        with pytest.raises(ArgumentError, match="seed"):
            learned_attacks(fit, FOREST, seed=seed)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="workers"):
        learned_attacks(fit, FOREST, seed=0, workers=0)
    with pytest.raises(DataError, match="is_member"):
        learned_attacks(fit, FOREST, seed=0, is_member=np.ones(59, dtype=np.bool_))
    with pytest.raises(DataError, match="truth values"):
        learned_attacks(fit, FOREST, seed=0, is_member=np.ones(60))
    with pytest.raises(SampleTooSmallError, match="0 non-members"):
        learned_attacks(fit, FOREST, seed=0, is_member=np.ones(60, dtype=np.bool_))
