"""One plan, one set of numbers: what is accounted for is what would run, and what does not fit is refused at once."""

import copy
import dataclasses
import json
import math
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privet import schedules
from privet.accounting import (
    PLD,
    Event,
    NeighbouringRelation,
    NoSampling,
    Poisson,
    Reference,
    TruncatedPoisson,
    joint_noise,
)
from privet.cli.budget import answer, request
from privet.dp.adaptive_clipping import AdaptiveQuantile
from privet.dp.clipping import FixedNorm
from privet.dp.clipping_groups import Groups, PerLayer
from privet.dp.plan import Plan
from privet.errors import AccountingError, ArgumentError

ADD_OR_REMOVE, REPLACE = NeighbouringRelation.ADD_OR_REMOVE_ONE, NeighbouringRelation.REPLACE_ONE
BASE: dict[str, Any] = {
    "dataset_size": 1_000,
    "expected_batch_size": 50,
    "delta": 1e-4,
    "noise": 1.5,
    "steps": 40,
}


def plan(**changes: Any) -> Plan:
    return Plan(**{**BASE, **changes})


# What follows from the fields.


def test_the_expected_batch_size_says_who_takes_part() -> None:
    assert plan().sampling == Poisson(0.05)
    assert plan(expected_batch_size=50.5).sampling == Poisson(50.5 / 1_000)
    assert plan(max_batch_size=80).sampling == TruncatedPoisson(0.05, cap=80, population=1_000)
    assert plan(expected_batch_size=1_000).sampling == NoSampling()
    assert plan(expected_batch_size=1_000).sampling_rate == 1.0


@given(st.integers(1, 10**6), st.data(), st.fractions(Fraction(1, 1_000), 50))
def test_epochs_become_steps_exactly(size: int, data: st.DataObject, epochs: Fraction) -> None:
    batch = data.draw(st.integers(1, size))
    steps = math.ceil(epochs * size / batch)
    make = partial(Plan, dataset_size=size, expected_batch_size=batch, delta=0.1 / size, noise=2.0)
    if steps <= 3_000:
        assert make(epochs=epochs).total_steps == steps


@pytest.mark.parametrize(
    ("epochs", "batch", "steps"),
    [(0.1, 1, 100), (0.3, 1, 300), (2, 62.5, 32), (Decimal("0.7"), 100, 7), (1, 999.9, 2), (0.7, 0.7e2, 10)],
)
def test_a_float_of_epochs_or_examples_is_what_it_reads_as(epochs: Any, batch: float, steps: int) -> None:
    assert plan(steps=None, epochs=epochs, expected_batch_size=batch).total_steps == steps


def test_every_step_is_in_the_events_once_and_in_order() -> None:
    stairs = plan(noise=schedules.Staircase(2.0, 0.5, every=15))
    assert stairs.noise_multipliers == (2.0,) * 15 + (1.0,) * 15 + (0.5,) * 10
    assert [(event.noise_multiplier, event.count) for event in stairs.events()] == [(2.0, 15), (1.0, 15), (0.5, 10)]
    assert [(event.noise_multiplier, event.count) for event in stairs.events(14, 31)] == [(2.0, 1), (1.0, 15), (0.5, 1)]
    assert stairs.events(7, 7) == []
    each = [stairs.event(step) for step in range(40)]
    assert [event.noise_multiplier for event in each] == list(stairs.noise_multipliers)
    assert {event.sampling for event in each} == {Poisson(0.05)}
    assert {event.count for event in each} == {1}


@pytest.mark.parametrize("ask", [(-1, 3), (3, 2), (0, 41), (1.5, 2)])
def test_steps_outside_the_plan_are_refused(ask: tuple[Any, Any]) -> None:
    with pytest.raises(ArgumentError):
        plan().events(*ask)
    with pytest.raises(ArgumentError):
        plan().event(40)
    with pytest.raises(ArgumentError):
        plan().event(-1)


def test_epsilon_is_that_of_all_steps() -> None:
    by_hand = PLD().epsilon([Event(1.5, Poisson(0.05), count=40)], 1e-4)
    assert plan().epsilon() == by_hand
    halves = plan(noise=schedules.Staircase(2.0, 0.5, every=20))
    two = [Event(2.0, Poisson(0.05), count=20), Event(1.0, Poisson(0.05), count=20)]
    assert halves.epsilon() == PLD().epsilon(two, 1e-4)


def test_counts_do_not_change_epsilon_but_the_noise_of_the_gradient() -> None:
    fixed, adaptive = plan(), plan(clipping=AdaptiveQuantile(1.0))
    assert adaptive.epsilon() == fixed.epsilon()
    assert fixed.gradient_noise_multiplier(0, 1) == 1.5
    assert adaptive.gradient_noise_multiplier(0, 1) == pytest.approx((1.5**-2 - 5.0**-2) ** -0.5, rel=1e-14)


@pytest.mark.parametrize(
    ("relation", "size", "f"), [(ADD_OR_REMOVE, 50, 1), (ADD_OR_REMOVE, 1_000, 1), (REPLACE, 1_000, 2)]
)
@pytest.mark.parametrize(
    ("clipping", "groups"),
    [
        (FixedNorm(1.0), 1),
        (AdaptiveQuantile(1.0, count_noise_std=9.0), 1),
        (PerLayer(AdaptiveQuantile(1.0, count_noise_std=20.0)), 6),
        (Groups((("a",), FixedNorm(1.0)), (("b",), AdaptiveQuantile(1.0, count_noise_std=9.0))), 2),
    ],
)
def test_gradients_and_counts_of_a_step_are_the_event(
    relation: NeighbouringRelation, size: int, f: int, clipping: Any, groups: int
) -> None:
    one = plan(
        noise=schedules.Linear(3.0, 1.0, steps=40), clipping=clipping, relation=relation, expected_batch_size=size
    )
    stds = clipping.count_noise_stds(groups, size)
    for step in (0, 17, 39):
        gradient = one.gradient_noise_multiplier(step, groups)
        joint = joint_noise([gradient] * groups + [2.0 * std / f for std in stds])
        assert joint == pytest.approx(one.event(step).noise_multiplier, rel=1e-12)


# Targets and budgets.


@pytest.mark.parametrize(
    ("noise", "target"),
    [
        ("1.0", 0.5),
        ("1.0", 4.0),
        ("staircase(2.0, factor=0.5, every=20)", 2.0),
        ("step(1.0, rate=0.2, floor=0.8)", 2.0),
    ],
)
def test_the_scale_meets_the_target_as_the_budget_command_does(noise: str, target: float) -> None:
    shape = schedules.parse(noise, 40)
    one = plan(noise=shape, target_epsilon=target)
    upper = one.epsilon().upper
    assert target * (1.0 - 2e-4) <= upper <= target
    assert one.budget == target
    assert one.noise_scale is not None
    assert len(Decimal(repr(one.noise_scale)).as_tuple().digits) <= 7
    theirs = answer.spend(request.Request(1_000, 50, 40, shape, 1e-4, target))
    assert one.noise_scale == theirs.noise_scale
    assert one.noise_multipliers == theirs.noise_multipliers
    again = plan(noise=schedules.parse(schedules.describe(one.schedule), 40), budget_epsilon=target)
    assert again == one  # the noise as it was solved for, with the target as a budget, is the same plan


def test_a_scale_is_a_scale() -> None:
    one = plan(noise=lambda step: 1.0 + step // 20, target_epsilon=2.0)
    assert one.noise_scale is not None
    for step, z in enumerate(one.noise_multipliers):
        assert z == one.noise_scale * (1.0 + step // 20)


def test_a_target_that_no_noise_meets_is_refused() -> None:
    with pytest.raises(AccountingError, match="target"):
        plan(noise=1e-6, target_epsilon=0.1)


def test_without_a_target_the_noise_stays_as_it_is() -> None:
    for one in (plan(), plan(budget_epsilon=0.6)):
        assert one.noise_scale is None
        assert one.noise_multipliers == (1.5,) * 40
    assert plan().budget is None
    assert plan(budget_epsilon=0.6).budget == 0.6  # less than all steps would spend: training stops on the way
    assert plan().epsilon().lower > 0.6


def test_a_budget_that_allows_no_step_is_refused() -> None:
    first = PLD().upper_epsilon([Event(1.5, Poisson(0.05))], 1e-4)
    assert plan(budget_epsilon=first * 1.001).budget == first * 1.001
    with pytest.raises(ArgumentError, match="budget_epsilon"):
        plan(budget_epsilon=first * 0.999)


def test_a_schedule_of_ones_own_is_asked_once_for_each_step() -> None:
    asked: list[int] = []

    def noise(step: int) -> float:
        asked.append(step)
        return 1.5

    one = plan(noise=noise)
    one.epsilon()
    one.describe()
    one.events()
    assert asked == list(range(40))
    assert one == plan()


def test_a_schedule_that_changes_its_mind_is_refused() -> None:
    answers = iter([1.5] * 40 + [1.6] * 40)
    with pytest.raises(ArgumentError, match="the same answer each time"):
        plan(noise=lambda step: next(answers), target_epsilon=2.0)


# Relations and truncated batches.


def test_all_records_at_every_step_are_one_gaussian_under_both_relations() -> None:
    for relation in (ADD_OR_REMOVE, REPLACE):
        one = plan(expected_batch_size=1_000, relation=relation, noise=20.0)
        assert one.epsilon() == PLD().epsilon([Event(20.0 / math.sqrt(40), NoSampling())], 1e-4, relation)
    solved = plan(expected_batch_size=1_000, relation=REPLACE, target_epsilon=1.0)
    assert 0.999 <= solved.epsilon().upper <= 1.0


def test_truncated_batches_are_accounted_for_by_the_accountant_that_knows_them() -> None:
    one = plan(max_batch_size=60, noise=4.0)
    assert isinstance(one.accountant, Reference)
    assert isinstance(plan().accountant, PLD)
    assert one.epsilon().upper > plan(noise=4.0).epsilon().upper
    assert one.epsilon() == Reference().epsilon([Event(4.0, TruncatedPoisson(0.05, 60, 1_000), 40)], 1e-4)


# Counts that leave nothing to the gradient.


def test_count_noise_is_held_against_the_noisiest_step() -> None:
    clipping = AdaptiveQuantile(1.0, count_noise_std=1.0)  # 2 sigma = 2 must be above every z
    assert plan(noise=1.9, clipping=clipping).gradient_noise_multiplier(39, 1) > 1.9
    for noise in (2.0, schedules.Linear(0.5, 2.0, steps=40), schedules.Linear(2.0, 0.5, steps=40)):
        with pytest.raises(ArgumentError, match="count_noise_std"):
            plan(noise=noise, clipping=clipping)


def test_count_noise_is_held_against_the_scaled_noise() -> None:
    clipping = AdaptiveQuantile(1.0, count_noise_std=1.0)
    z = plan(noise=1.0, target_epsilon=0.5).noise_multipliers[0]
    assert z > 2.0
    with pytest.raises(ArgumentError, match="count_noise_std"):
        plan(noise=1.0, target_epsilon=0.5, clipping=clipping)
    assert plan(noise=9.0, target_epsilon=8.0, clipping=clipping).noise_multipliers[0] < 2.0


def test_groups_are_held_against_the_noise_when_their_number_is_known() -> None:
    adaptive = AdaptiveQuantile(1.0, count_noise_std=1.0)
    one = plan(noise=1.2, clipping=PerLayer(adaptive))
    one.check_groups(2)
    with pytest.raises(ArgumentError, match=r"at least 1\.\d+ \(3 counts"):
        one.check_groups(3)
    with pytest.raises(ArgumentError, match="count_noise_std"):
        plan(noise=1.2, clipping=Groups(*((name, adaptive) for name in (("a",), ("b",), ("c",)))))


# Values.


def test_the_digest_is_of_what_changes_the_guarantee() -> None:
    others: list[dict[str, Any]] = [
        {"dataset_size": 1_001},
        {"expected_batch_size": 51},
        {"delta": 1e-5},
        {"noise": 1.5000000000000002},
        {"noise": schedules.Linear(1.5, 1.4, steps=40)},
        {"steps": 41},
        {"budget_epsilon": 5.0},
        {"budget_epsilon": 6.0},
        {"clipping": FixedNorm(2.0)},
        {"clipping": AdaptiveQuantile(1.0)},
        {"clipping": AdaptiveQuantile(1.0, 0.6)},
        {"clipping": PerLayer(FixedNorm(1.0))},
        {"max_batch_size": 90},
        {"max_batch_size": 91},
        {"expected_batch_size": 1_000},
        {"expected_batch_size": 1_000, "relation": REPLACE},
    ]
    plans = [plan(), *(plan(**changes) for changes in others)]
    assert len({one.digest for one in plans}) == len(plans)
    assert len(set(plans)) == len(plans)


def test_plans_that_do_the_same_are_equal() -> None:
    same: list[dict[str, Any]] = [
        {},
        {"noise": schedules.Constant(1.5)},
        {"noise": lambda step: 1.5},
        {"steps": None, "epochs": 2},
        {"expected_batch_size": 50.0},
        {"clipping": FixedNorm(1)},
    ]
    assert len({plan(**changes) for changes in same}) == 1
    assert plan() != "plan"


def test_the_digest_is_the_same_in_every_process_and_version() -> None:
    assert (
        plan().digest == "ed904417c5fd6b3d58dfa757edc5255ca9ecd0146d748d5b73612bde851cd28d"
    )  # of form 1; a ledger remembers it


def test_a_plan_is_a_frozen_value() -> None:
    one = plan()
    for name, value in (("delta", 1e-6), ("noise_scale", 2.0), ("sampling", NoSampling())):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one, name, value)
    assert copy.deepcopy(one) == one
    assert dataclasses.replace(one, noise=2.0).noise_multipliers == (2.0,) * 40
    assert dataclasses.replace(one, noise=2.0) != one


def test_the_description_is_plain_json_with_what_a_statement_needs() -> None:
    one = plan(
        noise=schedules.Staircase(2.0, 0.5, every=20), target_epsilon=2.0, clipping=PerLayer(AdaptiveQuantile(1.0))
    )
    told = one.describe()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["digest"] == one.digest
    assert told["noise"] == schedules.describe(one.schedule)
    assert told["noise_range"] == [one.noise_multipliers[-1], one.noise_multipliers[0]]
    assert (told["unit"], told["relation"], told["sampling"]["kind"]) == ("example", "add-or-remove-one", "poisson")
    assert (told["steps"], told["epochs"], told["target_epsilon"]) == (40, 2.0, 2.0)
    assert told["clipping"]["strategy"]["count_noise_std"] is None


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"dataset_size": 0}, "dataset_size"),
        ({"dataset_size": 1e3}, "dataset_size"),
        ({"expected_batch_size": 0.05}, "expected_batch_size"),
        ({"expected_batch_size": 1_001}, "expected_batch_size"),
        ({"expected_batch_size": math.nan}, "expected_batch_size"),
        ({"expected_batch_size": True}, "expected_batch_size"),
        ({"delta": 1e-3}, "delta"),
        ({"delta": 0.0}, "delta"),
        ({"delta": math.nan}, "delta"),
        ({"delta": "1e-5"}, "delta"),
        ({"noise": 0.0}, "noise"),
        ({"noise": math.inf}, "noise"),
        ({"noise": True}, "noise"),
        ({"noise": "1.1"}, "noise"),
        ({"noise": 1e-200}, "noise_multiplier"),
        ({"noise": lambda step: 1.0 - step / 20}, "schedule"),
        ({"steps": 0}, "steps"),
        ({"steps": 2.0}, "steps"),
        ({"steps": 10_000_001}, "steps"),
        ({"steps": None}, "steps, epochs"),
        ({"epochs": 2}, "steps, epochs"),
        ({"steps": None, "epochs": 0}, "epochs"),
        ({"steps": None, "epochs": math.nan}, "epochs"),
        ({"steps": None, "epochs": "2"}, "epochs"),
        ({"steps": None, "epochs": 10**400}, "steps"),
        ({"target_epsilon": 0.0}, "target_epsilon"),
        ({"target_epsilon": math.inf}, "target_epsilon"),
        ({"budget_epsilon": -1.0}, "budget_epsilon"),
        ({"target_epsilon": 1.0, "budget_epsilon": 1.0}, "budget_epsilon"),
        ({"clipping": 1.0}, "clipping"),
        ({"clipping": FixedNorm}, "clipping"),
        ({"max_batch_size": 49}, "max_batch_size"),
        ({"max_batch_size": 1_000}, "max_batch_size"),
        ({"max_batch_size": 60.5}, "max_batch_size"),
        ({"max_batch_size": 60, "target_epsilon": 1.0}, "target_epsilon"),
        ({"relation": "replace-one"}, "relation"),
        ({"relation": REPLACE}, "relation"),
        ({"unit": "user"}, "unit"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        plan(**changes)
    assert caught.value.name.startswith(name)


@settings(max_examples=20)
@given(st.sampled_from(sorted(set(BASE) - {"steps"})))
def test_nothing_that_matters_has_a_default(field: str) -> None:
    with pytest.raises(TypeError):
        Plan(**{name: value for name, value in BASE.items() if name != field})
