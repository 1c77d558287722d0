"""Whole audits of models whose leak is known: the model remembers what it was trained on, as much as it is told to."""

import numpy as np
import pytest
import torch
from torch import nn

from privet import outputs
from privet.attacks.membership.fleet import Serial
from privet.audit import Bound, Outcome, Verdict, audit_model, check_bound
from privet.audit.bounds import bound_words
from privet.audit.runs import model_runs
from privet.errors import ArgumentError, DataError, LabelError, PrivetError, SampleTooSmallError
from privet.output_form import OutputForm

CLASSES, WIDTH = 3, 6
SIZES = 800, 800


class Memory(nn.Module):
    """Answers at random, but by ``gap`` surer of the label of a record that it was trained on."""

    def __init__(self, inputs, labels, gap, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.known, self.labels, self.gap = inputs, labels, gap
        self.guess = torch.randn(WIDTH, CLASSES, generator=generator)

    def forward(self, asked):
        if self.training:
            raise RuntimeError("asked in training mode")
        logits = torch.sin(3.0 * asked) @ self.guess
        distance, nearest = torch.cdist(asked, self.known).min(1)
        known = distance < 1e-3
        hint = nn.functional.one_hot(self.labels[nearest], CLASSES)
        return logits + self.gap * known[:, None] * hint


def records(sizes=SIZES, shift=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(sum(sizes), WIDTH, generator=generator)
    inputs[: sizes[0]] += shift
    labels = torch.randint(0, CLASSES, (sum(sizes),), generator=generator)
    return (inputs[: sizes[0]], labels[: sizes[0]]), (inputs[sizes[0] :], labels[sizes[0] :])


class Training:
    """A train_fn that counts its calls, and stops where it is told to."""

    def __init__(self, members, non_members, gap, stop=None):
        self.inputs, self.labels = (torch.cat(pair) for pair in zip(members, non_members, strict=True))
        self.gap, self.stop, self.calls = gap, stop, 0

    def __call__(self, indices, seed):
        if self.calls == self.stop:
            raise KeyboardInterrupt
        self.calls += 1
        chosen = torch.as_tensor(indices)
        return Memory(self.inputs[chosen], self.labels[chosen], self.gap, seed)


def fit_nothing(indices, seed):
    return Memory(torch.zeros(1, WIDTH), torch.zeros(1, dtype=torch.int64), 0.0, seed)


def case(gap=2.0, **kwargs):
    members, non_members = records(**kwargs)
    return Memory(*members, gap, 99).eval(), members, non_members, Training(members, non_members, gap)


def audit(model, members, non_members, **kwargs):
    return audit_model(
        model, members, non_members, **{"methods": (), "progress": False, "executor": Serial(), **kwargs}
    )


# What an audit concludes.


def test_a_leak_is_found_and_all_that_was_run_is_told():
    model, members, non_members, train = case()
    result = audit(
        model, members, non_members, train_fn=train, slices={"class": torch.cat((members[1], non_members[1]))}
    )
    assert result.verdict is Verdict.LEAK
    assert [one.name for one in result.attacks][-3:] == ["LiRA", "LiRA offline", "RMIA"]
    assert result.headline == "LiRA"
    assert result.shadows == train.calls == 16
    assert result.attack("LiRA").leaks
    assert result.exchange.broken == ()
    assert result.procedure.auc.low > 0.5
    assert len(result.columns["class"]) == 1_600
    assert result.members, result.non_members == SIZES
    assert dict(result.provenance)["weights, sha256"]


def test_learned_attacks_find_it_too_and_the_null_trains_them_anew():
    model, members, non_members, _ = case()
    methods = [("logistic_regression", {"C": [1.0, 10.0]})]
    result = audit(model, members, non_members, methods=methods)
    learned = result.attack("logistic regression")
    assert learned.leaks
    assert learned.details["accuracy"].low > 0.5
    assert learned.details["parameters"]["C"] in (1.0, 10.0)
    assert not learned.required
    assert not result.null.broken


def test_what_is_told_of_the_strongest_attack_covers_every_attack():
    model, members, non_members, train = case(gap=1.0)
    result = audit(model, members, non_members, train_fn=train, methods=[("knn", {"n_neighbors": [5]})], shadows=6)
    areas = [one.auc for one in result.attacks]
    assert result.auc.low == max(one.low for one in areas)
    assert result.auc.value == max(one.value for one in areas)
    assert result.auc.high == max(one.high for one in areas)
    assert result.auc.n == min(one.n for one in areas) == 400
    rates = [one.rates[0.01].tpr for one in result.attacks]
    assert result.tpr(0.01).high == max(one.high for one in rates)
    assert result.tpr(0.01).low == max(one.low for one in rates)
    with pytest.raises(ArgumentError, match="LiRA"):
        result.attack("lira")


def test_no_leak_is_not_found_and_the_planted_one_is():
    model, members, non_members, train = case(gap=0.0)
    result = audit(model, members, non_members, train_fn=train)
    assert result.verdict is Verdict.NO_LEAK_FOUND
    assert all(one.planted_found for one in result.attacks if one.required)
    assert result.auc.low < 0.5


def test_a_difference_between_the_sets_is_invalid_even_beside_a_leak():
    model, members, non_members, _ = case(shift=0.4)
    result = audit(model, members, non_members)
    assert result.verdict is Verdict.INVALID
    assert result.blind.differs


def test_few_records_are_underpowered():
    model, members, non_members, _ = case(gap=0.0, sizes=(60, 60))
    result = audit(model, members, non_members)
    assert result.verdict is Verdict.UNDERPOWERED
    assert result.planted.records_needed > 60


def test_a_target_that_was_not_trained_on_the_members_is_doubted():
    _, members, non_members, train = case(gap=3.0)
    other = Memory(*records(seed=5)[0], 3.0, 99).eval()
    result = audit(other, members, non_members, train_fn=train)
    assert result.verdict is Verdict.NO_LEAK_FOUND
    assert "check that these are the records it was trained on" in result.reason


def test_shadow_models_that_do_not_leak_are_doubted_where_the_target_does():
    model, members, non_members, _ = case(gap=4.0)
    result = audit(model, members, non_members, train_fn=Training(members, non_members, 0.0))
    assert any("train_fn may not be how" in warning for warning in result.warnings)


def test_training_that_ignores_its_arguments_is_named():
    model, members, non_members, _ = case(gap=0.0)
    same = lambda indices, seed: Memory(*members, 0.0, 1)  # noqa: E731
    result = audit(model, members, non_members, train_fn=same, shadows=6)
    assert any("answer alike" in warning for warning in result.warnings)


def test_a_model_that_only_guesses_is_named():
    for gap, named in ((0.0, True), (6.0, False)):
        model, members, non_members, _ = case(gap=gap)
        result = audit(model, members, non_members)
        assert any("no more often than a guess" in warning for warning in result.warnings) is named


def test_a_comparison_of_few_records_is_called_weak():
    for size, named in ((30, True), (800, False)):
        model, members, non_members, _ = case(sizes=(size, size))
        result = audit(model, members, non_members)
        assert any("could hardly be checked" in warning for warning in result.warnings) is named


def test_shadow_models_that_answer_otherwise_than_the_target_are_named():
    model, members, non_members, train = case(gap=0.0)
    sure = lambda indices, seed: Memory(train.inputs, train.labels, 9.0, seed)  # noqa: E731
    result = audit(model, members, non_members, train_fn=sure, shadows=6)
    assert any("even odds" in warning for warning in result.warnings)


def test_the_same_seed_gives_the_same_audit():
    first, second = (
        audit(*case()[:3], train_fn=case()[3], seed=3, methods=[("knn", {"n_neighbors": [5]})], shadows=6)
        for _ in range(2)
    )
    assert first.auc == second.auc
    assert first.null == second.null
    assert [one.auc for one in first.attacks] == [one.auc for one in second.attacks]
    assert first.procedure.auc == second.procedure.auc


# Defenses.


@pytest.mark.parametrize(
    ("serve", "names"),
    [
        (lambda model: outputs.Rounding(model, decimals=1), {"LiRA", "RMIA", "loss threshold"}),
        (lambda model: outputs.TopK(model, k=2), {"LiRA", "RMIA", "loss threshold"}),
        (lambda model: outputs.Labeling(model), {"label-only", "label is right"}),
    ],
)
def test_attacks_and_shadow_models_pass_through_the_defense(serve, names):
    model, members, non_members, train = case(gap=4.0)
    served = serve(model)
    result = audit(model, members, non_members, defense=served, train_fn=train)
    assert result.form == served.output_form
    assert result.defense == type(served).__name__
    assert names <= {one.name for one in result.attacks}
    assert result.verdict is Verdict.LEAK
    assert result.exchange.broken == ()


def test_a_served_model_is_its_own_defense():
    model, members, non_members, _ = case()
    result = audit(outputs.Labeling(model), members, non_members)
    assert result.form.labels_only
    assert [one.name for one in result.attacks] == ["label is right"]


def test_probabilities_are_seen_and_arrays_are_answers_too():
    model, members, non_members, _ = case()
    result = audit(lambda x: torch.softmax(model(x), 1).detach().numpy(), members, non_members)
    assert result.form == OutputForm(probabilities=True)
    logits = audit(model, members, non_members)
    assert result.auc.value == pytest.approx(logits.auc.value, abs=0.01)


def test_labels_are_seen():
    model, members, non_members, _ = case()
    assert audit(lambda x: model(x).argmax(1), members, non_members).form.labels_only


def test_the_model_is_left_in_the_mode_it_was_in():
    model, members, non_members, _ = case()
    model.train()
    audit(model, members, non_members)
    assert model.training


class Softmaxed(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, asked):
        return torch.softmax(self.network(asked), 1)


def test_a_network_of_probabilities_behind_a_defense_is_told_by_its_form():
    """Without softmax a defense cannot know; taken for logits, its rounded shares would be flattened."""
    model, members, non_members, train = case()
    served = outputs.Rounding(Softmaxed(model).eval(), decimals=1, softmax=False)
    told = OutputForm(decimals=1, probabilities=True)
    with pytest.raises(PrivetError, match="probabilities=True"):
        audit(served, members, non_members)
    result = audit(served, members, non_members, form=told, train_fn=lambda *args: Softmaxed(train(*args)), shadows=6)
    assert result.form == told
    assert result.verdict is Verdict.LEAK
    with pytest.raises(ArgumentError, match="None beside a defense"):
        audit(served, members, non_members, form=OutputForm(k=1))


def test_rounded_probabilities_of_a_function_are_not_taken_for_logits():
    model, members, non_members, _ = case()

    def rounded(asked):
        return torch.softmax(model(asked), 1).round(decimals=1)

    with pytest.raises(ArgumentError, match="decimals="):
        audit(rounded, members, non_members)
    told = OutputForm(decimals=1, probabilities=True)
    assert audit(rounded, members, non_members, form=told).verdict is Verdict.LEAK


@pytest.mark.parametrize("width", [(), (1,)])
def test_one_number_a_record_is_no_answer_about_two_classes(width):
    _, members, non_members, _ = case()
    with pytest.raises(ArgumentError, match="a score for each class"):
        audit(lambda asked: torch.zeros(len(asked), *width), members, non_members)


def test_a_defense_that_answers_more_than_the_scores_is_refused_in_words():
    class Two(nn.Module):
        def forward(self, asked):
            return asked[:, :3], asked[:, 3:]

    _, members, non_members, _ = case()
    served = outputs.Rounding(Two().eval(), decimals=1, part=0, keep=(1,))
    with pytest.raises(ArgumentError, match="without keep="):
        audit(served, members, non_members)


def test_the_network_of_a_defense_is_left_in_the_mode_it_was_in():
    model, members, non_members, train = case(sizes=(60, 60))
    model.train()
    audit(model, members, non_members, defense=outputs.TopK(model, k=2), train_fn=train, shadows=6)
    assert model.training


def test_examples_and_arrays_are_records():
    model, members, non_members, _ = case(sizes=(60, 60))

    class Examples:
        inputs, labels = members

    result = audit(model, Examples(), tuple(part.numpy() for part in non_members))
    assert result.members == 60


# How many shadow models.


def test_without_time_there_are_none_and_it_says_so():
    model, members, non_members, train = case(gap=0.0)
    result = audit(model, members, non_members, train_fn=train, time_limit=1e-6)
    assert result.shadows == 0
    assert result.procedure is None
    assert any("time limit" in warning for warning in result.warnings)


def test_attacks_that_were_asked_for_and_did_not_run_are_no_comfort():
    model, members, non_members, train = case(0.0)
    result = audit(model, members, non_members, train_fn=train, time_limit=1e-3)
    assert result.shadows == 0
    assert result.verdict is Verdict.UNDERPOWERED
    assert "asked for" in result.reason
    assert "more time" in result.reason


def test_without_shadow_models_it_says_what_would_find_more():
    model, members, non_members, train = case(0.0)
    assert any("Give train_fn" in warning for warning in audit(model, members, non_members).warnings)
    with_shadows = audit(model, members, non_members, train_fn=train)
    assert not any("Give train_fn" in warning for warning in with_shadows.warnings)


def test_the_share_of_right_labels_is_told_of_both_sets():
    model, members, non_members, _ = case(30.0)
    result = audit(model, members, non_members)
    known, guessed = ((model(x).argmax(1) == y).double().mean().item() for x, y in (members, non_members))
    assert known > 0.9 > 0.5 > guessed
    assert [one.value for one in result.accuracy] == pytest.approx([known, guessed])
    assert result.to_json()["accuracy"]["members"]["value"] == pytest.approx(known)
    assert "right labels" in str(result)


def test_a_tensor_dataset_is_two_tensors():
    model, members, non_members, _ = case()
    as_datasets = (torch.utils.data.TensorDataset(*pair) for pair in (members, non_members))
    assert audit(model, *as_datasets).auc == audit(model, members, non_members).auc


def test_models_are_added_until_the_interval_is_as_narrow_as_asked():
    model, members, non_members, train = case(gap=0.0, sizes=(200, 200))
    wide = audit(model, members, non_members, train_fn=train, until=0.9, shadows=8)
    assert wide.shadows == 8
    narrow = audit(model, members, non_members, train_fn=train, until=0.008, shadows=8)
    assert narrow.shadows > 8
    rate = narrow.procedure.rates[0.01].tpr
    assert rate.high - rate.low <= 0.008 or any("wide" in warning for warning in narrow.warnings)


def test_where_records_limit_the_interval_it_says_so():
    model, members, non_members, train = case(gap=0.0, sizes=(40, 40))
    result = audit(model, members, non_members, train_fn=train, until=1e-6, shadows=8)
    assert any("wide" in warning for warning in result.warnings)
    assert result.shadows <= 256


def test_what_was_finished_before_an_interruption_is_evaluated():
    model, members, non_members, train = case()
    train.stop = 9
    result = audit(model, members, non_members, train_fn=train)
    assert result.interrupted
    assert result.shadows == 8
    assert result.verdict is Verdict.LEAK
    assert any("Stopped" in warning for warning in result.warnings)


@pytest.mark.parametrize("limit", [None, 600.0])
def test_an_interruption_before_there_are_enough_keeps_what_needs_none(limit):
    model, members, non_members, train = case(gap=0.0)
    train.stop = 3
    result = audit(model, members, non_members, train_fn=train, time_limit=limit)
    assert result.interrupted
    assert (result.shadows, result.shadows_asked) == (0, 16)
    assert {one.tier for one in result.attacks} == {0}
    assert any("Stopped by hand" in warning for warning in result.warnings)
    assert check_bound(result, Bound(None, 0.99)) is Outcome.INCONCLUSIVE
    assert "shadow models" in bound_words(result, Bound(None, 0.99))


def test_what_is_wrong_with_the_training_is_known_before_attackers_learn(monkeypatch):
    model, members, non_members, _ = case()
    monkeypatch.setattr("privet.audit.evidence.model_runs", never)

    def fails(indices, seed):
        raise ValueError("no luck")

    for limit in (None, 600.0):
        with pytest.raises(ValueError, match="no luck"):
            audit(model, members, non_members, train_fn=fails, time_limit=limit)


def test_attackers_that_learn_do_not_take_the_time_of_shadow_models(monkeypatch):
    """However long they take, as many are trained before as LiRA needs."""
    model, members, non_members, train = case()
    calls = []

    def learning(*args, **kwargs):
        calls.append(train.calls)
        monkeypatch.setattr("privet.audit.evidence._CONTROLS", 1e9)
        return model_runs(*args, **kwargs)

    monkeypatch.setattr("privet.audit.evidence.model_runs", learning)
    result = audit(model, members, non_members, train_fn=train, time_limit=600)
    assert calls == [4]
    assert result.shadows == 4
    assert result.attack("LiRA").leaks


def test_where_time_is_over_no_attacker_learns_and_it_says_so():
    model, members, non_members, train = case(gap=0.0)
    methods = [("knn", {"n_neighbors": [3]})]
    result = audit(model, members, non_members, train_fn=train, time_limit=1e-6, methods=methods)
    assert "knn" not in {one.name for one in result.attacks}
    assert any("no learned attack" in warning for warning in result.warnings)
    assert check_bound(result, Bound(None, 0.99)) is Outcome.INCONCLUSIVE


def test_a_store_trains_nothing_twice(tmp_path):
    model, members, non_members, _ = case(sizes=(60, 60))
    for _ in range(2):
        result = audit(model, members, non_members, train_fn=fit_nothing, store=tmp_path, shadows=6)
        assert result.shadows == 6
    (journal,) = tmp_path.glob("*/journal.jsonl")
    assert len(journal.read_text().splitlines()) == 6


# Claims.


def test_a_claim_without_canaries_is_shown_and_not_tested():
    model, members, non_members, _ = case()
    result = audit(model, members, non_members, claim=(0.1, 1e-5))
    assert result.verdict is Verdict.LEAK
    assert result.claimed == (0.1, 1e-5)
    assert result.claim is None
    assert any("not tested" in warning for warning in result.warnings)


def test_canaries_that_refute_the_claim_come_before_everything():
    model, members, non_members, _ = case(shift=0.4)
    included = np.random.default_rng(0).random(400) < 0.5
    result = audit(model, members, non_members, claim=(0.5, 1e-5), canaries=(included * 1.0, included))
    assert result.verdict is Verdict.CLAIM_VIOLATED
    result = audit(model, members, non_members, claim=(50.0, 1e-5), canaries=(included * 1.0, included))
    assert result.verdict is Verdict.INVALID
    assert result.claim is not None


# What is refused, and when.


def never(*args):
    raise AssertionError("work began before the arguments were checked")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"train_fn": 3}, ArgumentError),
        ({"claim": (1.0,)}, ArgumentError),
        ({"claim": (-1.0, 1e-5)}, ArgumentError),
        ({"canaries": ([1.0], [True])}, ArgumentError),
        ({"time_limit": "soon"}, ArgumentError),
        ({"time_limit": 0}, ArgumentError),
        ({"until": 0.0}, ArgumentError),
        ({"until": "narrow", "train_fn": fit_nothing}, ArgumentError),
        ({"shadows": 1}, ArgumentError),
        ({"shadows": 16, "train_fn": None}, ArgumentError),
        ({"until": 0.5, "train_fn": None}, ArgumentError),
        ({"store": "kept", "train_fn": None}, ArgumentError),
        ({"train_fn": lambda indices: None}, ArgumentError),
        ({"train_fn": lambda inputs, labels, seed: None}, ArgumentError),
        ({"defense": outputs.Rounding}, ArgumentError),
        ({"shadows": 2.5}, ArgumentError),
        ({"slices": {"class": [1, 2]}}, DataError),
        ({"slices": [1]}, ArgumentError),
        ({"methods": [("boosting", {})]}, ArgumentError),
        ({"classes": 1}, ArgumentError),
        ({"classes": 2}, LabelError),
        ({"form": "labels"}, ArgumentError),
        ({"form": OutputForm(k=9)}, PrivetError),
        ({"batch_size": 0}, ArgumentError),
        ({"seed": -1}, ArgumentError),
        ({"confidence": 0.0}, ArgumentError),
        ({"planted_share": 0.0}, ArgumentError),
        ({"defense": 3}, ArgumentError),
        ({"queries": 3}, ArgumentError),
    ],
)
def test_arguments_are_refused_before_any_work(monkeypatch, arguments, error):
    monkeypatch.setattr("privet.audit.evidence.blind", never)
    model, members, non_members, train = case(sizes=(60, 60))
    with pytest.raises(error):
        audit(model, members, non_members, **{"train_fn": train, **arguments})
    assert train.calls == 0


def overlapping(members, non_members):
    return members, (torch.cat((members[0][:1], non_members[0][1:])), non_members[1])


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (overlapping, DataError),
        (lambda m, n: (m, (n[0][:, :-1], n[1])), DataError),
        (lambda m, n: ((m[0] * np.nan, m[1]), n), DataError),
        (lambda m, n: (m, (n[0], n[1] + 1)), LabelError),
        (lambda m, n: (m, (n[0], n[1] - 1)), LabelError),
        (lambda m, n: (m, (n[0], n[1].float())), LabelError),
        (lambda m, n: (m, (n[0], n[1][:-1])), DataError),
        (lambda m, n: (m, (n[0][:10], n[1][:10])), SampleTooSmallError),
        (lambda m, n: ((m[0][:0], m[1][:0]), n), PrivetError),
        (lambda m, n: (m[0], n), ArgumentError),
        (lambda m, n: (m, (n[0], None)), ArgumentError),
        (lambda m, n: ((m[0][:, :-1], m[1]), (n[0][:, :-1], n[1])), DataError),
    ],
)
def test_records_are_refused_before_any_work(monkeypatch, spoil, error):
    monkeypatch.setattr("privet.audit.evidence.blind", never)
    model, members, non_members, train = case(sizes=(60, 60))
    with pytest.raises(error):
        audit(model, *spoil(members, non_members), train_fn=train)
    assert train.calls == 0


def test_a_defense_of_another_model_is_refused():
    model, members, non_members, _ = case(sizes=(60, 60))
    with pytest.raises(ArgumentError, match="very model"):
        audit(model, members, non_members, defense=outputs.Labeling(case()[0]))


def test_a_form_beside_a_defense_is_refused():
    model, members, non_members, _ = case(sizes=(60, 60))
    with pytest.raises(ArgumentError, match="form"):
        audit(model, members, non_members, defense=outputs.Labeling(model), form=OutputForm())


@pytest.mark.parametrize("answer", [lambda x: None, lambda x: torch.zeros(len(x), 3, 2), lambda x: x * np.nan])
def test_answers_that_are_none_are_refused_before_any_work(monkeypatch, answer):
    monkeypatch.setattr("privet.audit.evidence.blind", never)
    _, members, non_members, _ = case(sizes=(60, 60))
    with pytest.raises(PrivetError):
        audit(answer, members, non_members)
