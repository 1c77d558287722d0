"""Groups of parameters: each parameter in exactly one, each group by its own strategy, one example in or out of all."""

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privet.accounting import NeighbouringRelation
from privet.dp.adaptive_clipping import AdaptiveQuantile
from privet.dp.clipping import ClippingState, ClippingStrategy, FixedNorm, changed_contributions, noise_split
from privet.dp.clipping_groups import Groups, PerLayer
from privet.errors import ArgumentError
from privet.models import LeNet5

MIXED = Groups(
    (("features",), FixedNorm(1.0)),
    (("head", "scale"), AdaptiveQuantile(0.1, 0.7)),
    (("tail.bias",), AdaptiveQuantile(3.0, count_noise_std=8.0)),
)
NAMES = ["features.0.weight", "scale", "features.0.bias", "head.weight", "tail.bias"]

names = st.lists(
    st.lists(st.sampled_from(["a", "b", "ab", "0"]), min_size=1, max_size=3).map(".".join),
    min_size=1,
    max_size=8,
    unique=True,
)


@given(names)
def test_a_group_a_layer_is_a_partition_by_module(given_names: list[str]) -> None:
    groups = PerLayer(FixedNorm(1.0)).groups(given_names)
    assert sorted(name for group in groups for name in group) == sorted(given_names)
    modules = [{name.rpartition(".")[0] for name in group} for group in groups]
    assert all(len(module) == 1 for module in modules)
    assert len(set().union(*modules)) == len(groups)


def test_the_layers_of_a_network_are_its_groups() -> None:
    parameters = [name for name, _ in LeNet5().named_parameters()]
    groups = PerLayer(FixedNorm(1.0)).groups(parameters)
    assert [name for group in groups for name in group] == parameters
    assert len(groups) == 5
    assert all(len(group) == 2 for group in groups)


@pytest.mark.parametrize("inner", [FixedNorm(0.5), AdaptiveQuantile(0.5)])
def test_a_group_a_layer_does_what_its_strategy_does(inner: ClippingStrategy) -> None:
    strategy = PerLayer(inner)
    state, norms = strategy.initial(3), torch.tensor([[0.1, 2.0], [0.4, math.inf], [0.7, 0.5]])
    assert state == ClippingState((0.5, 0.5, 0.5))
    assert strategy.count_noise_stds(3, 40.0) == inner.count_noise_stds(3, 40.0)
    ours, theirs = strategy.clip(state, norms), inner.clip(state, norms)
    assert torch.equal(ours.factors, theirs.factors)
    assert torch.equal(ours.below, theirs.below)
    fractions = [0.1, 0.5, 0.9][: len(ours.below)]
    assert strategy.update(state, fractions) == inner.update(state, fractions)
    assert strategy.to_json() != inner.to_json()


def test_named_groups_keep_the_order_of_names_within_each() -> None:
    groups = MIXED.groups(NAMES)
    assert groups == (("features.0.weight", "features.0.bias"), ("scale", "head.weight"), ("tail.bias",))
    assert MIXED.least_groups == 3


def test_a_name_stands_for_a_module_and_not_for_what_begins_alike() -> None:
    strategy = Groups((("head",), FixedNorm(1.0)), (("head2",), FixedNorm(2.0)))
    assert strategy.groups(["head.weight", "head2.weight"]) == (("head.weight",), ("head2.weight",))


@pytest.mark.parametrize(
    ("given_names", "said"),
    [
        ([*NAMES, "other.weight"], "'other.weight' is in none"),
        (["features.0.weight", "scale", "tail.bias"], "groups = 'head'"),
        ([], "names"),
    ],
)
def test_parameters_and_groups_that_do_not_fit_are_named(given_names: list[str], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        MIXED.groups(given_names)


def test_a_parameter_in_two_groups_is_named() -> None:
    strategy = Groups((("a", "b"), FixedNorm(1.0)), (("a.0.bias",), FixedNorm(2.0)))
    with pytest.raises(ArgumentError, match=r"'a\.0\.bias' is in \('a', 'b'\) and in \('a\.0\.bias',\)"):
        strategy.groups(["a.0.weight", "a.0.bias", "b"])


def test_mixed_groups_count_only_where_one_adapts() -> None:
    state = MIXED.initial(3)
    assert state == ClippingState((1.0, 0.1, 3.0))
    assert MIXED.count_noise_stds(3, 100.0) == (5.0, 8.0)
    clipped = MIXED.clip(state, torch.tensor([[2.0, 0.5], [0.2, 0.05], [1.0, 2.0]]))
    assert clipped.factors.tolist() == [[0.5, 1.0], [pytest.approx(0.5), 1.0], [1.0, 1.0]]
    assert clipped.below.tolist() == [0.0, 1.0]
    fixed, first, second = MIXED.update(state, [0.7, 1.0]).max_grad_norms
    assert fixed == 1.0
    assert first == 0.1  # its target
    assert second == pytest.approx(3.0 * math.exp(-0.2 * 0.5))


@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_example_taken_out_of_one_group_is_out_of_all(where: int, bad: float) -> None:
    norms = torch.full((3, 4), 0.01)
    norms[where, 1] = bad
    clipped = MIXED.clip(MIXED.initial(3), norms)
    assert clipped.factors.tolist() == [[1.0, 0.0, 1.0, 1.0]] * 3
    assert clipped.below.tolist() == [1.0, 1.0]  # three below, one that counts as above


def test_named_groups_refuse_another_number_of_groups() -> None:
    with pytest.raises(ArgumentError, match="groups = 2"):
        MIXED.initial(2)
    with pytest.raises(ArgumentError, match="groups = 1"):
        MIXED.count_noise_stds(1, 100.0)
    with pytest.raises(ArgumentError, match="norms"):
        MIXED.clip(MIXED.initial(3), torch.zeros(2, 4))
    with pytest.raises(ArgumentError, match="groups = 2"):
        MIXED.update(ClippingState((1.0, 1.0)), [0.5, 0.5])
    with pytest.raises(ArgumentError, match="noisy_fractions"):
        MIXED.update(MIXED.initial(3), [0.5])


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (((), FixedNorm(1.0)),),
        (("features", FixedNorm(1.0)),),
        ((("",), FixedNorm(1.0)),),
        ((("features",), 1.0),),
        ((("features",), PerLayer(FixedNorm(1.0))),),
        ((("features",), Groups((("a",), FixedNorm(1.0)))),),
        (("features",),),
        (FixedNorm(1.0),),
    ],
)
def test_what_is_no_group_is_refused(parts: tuple[Any, ...]) -> None:
    with pytest.raises(ArgumentError, match=r"parts|strategy"):
        Groups(*parts)


@pytest.mark.parametrize("inner", [PerLayer(FixedNorm(1.0)), MIXED, 1.0, FixedNorm])
def test_a_layer_takes_a_strategy_for_one_group(inner: Any) -> None:
    with pytest.raises(ArgumentError, match="strategy"):
        PerLayer(inner)


def test_groups_are_values() -> None:
    again = Groups(*MIXED.parts)
    assert again == MIXED
    assert hash(again) == hash(MIXED)
    text = json.dumps(MIXED.to_json())
    assert json.loads(text)["parts"][0] == {"names": ["features"], "strategy": FixedNorm(1.0).to_json()}
    assert MIXED.to_json() != Groups(*reversed(MIXED.parts)).to_json()
    assert repr(Groups((("a",), FixedNorm(1.0)))) == "Groups((('a',), FixedNorm(max_grad_norm=1.0)))"


# The law of all strategies: what one example adds to a step, measured in its noise, is at most 1 / z.

STRATEGIES: list[tuple[ClippingStrategy, int]] = [
    (FixedNorm(0.7), 1),
    (AdaptiveQuantile(0.7), 1),
    (PerLayer(FixedNorm(0.7)), 4),
    (PerLayer(AdaptiveQuantile(0.7)), 4),
    (MIXED, 3),
]
norm = st.one_of(st.floats(0.0, 20.0), st.floats(0.0), st.just(math.nan))


@pytest.mark.parametrize(("strategy", "groups"), STRATEGIES)
@pytest.mark.parametrize("relation", NeighbouringRelation)
@settings(max_examples=50)
@given(data=st.data(), z=st.floats(0.3, 3.0))
def test_a_neighbour_moves_a_release_by_at_most_one_over_z(
    strategy: ClippingStrategy, groups: int, relation: NeighbouringRelation, data: st.DataObject, z: float
) -> None:
    size, f = 200.0, changed_contributions(relation)
    state = strategy.initial(groups)
    stds = strategy.count_noise_stds(groups, size)
    state = strategy.update(state, data.draw(st.tuples(*[st.floats(-2.0, 3.0)] * len(stds))))
    gradient_noise = noise_split(z, groups, stds, relation)
    lengths, counts = torch.zeros(groups, dtype=torch.float64), torch.zeros(len(stds), dtype=torch.float64)
    for sign in (1.0, -1.0)[:f]:  # a replaced example goes as another comes, pointing the other way
        norms = torch.tensor([data.draw(st.tuples(*[norm] * groups))], dtype=torch.float64).T  # (G, 1)
        clipped = strategy.clip(state, norms)
        lengths += torch.where(clipped.factors > 0, clipped.factors * norms, 0.0).squeeze(1)
        counts += sign * clipped.below
    noise = torch.tensor(state.max_grad_norms, dtype=torch.float64) * f * gradient_noise
    moved = torch.cat([lengths / noise, counts / torch.tensor(stds, dtype=torch.float64)]).norm().item()
    assert moved <= 1.0 / z * (1.0 + 1e-12)


@pytest.mark.parametrize(("strategy", "groups"), STRATEGIES)
@pytest.mark.parametrize("relation", NeighbouringRelation)
def test_one_over_z_is_reached(strategy: ClippingStrategy, groups: int, relation: NeighbouringRelation) -> None:
    f, state, stds = changed_contributions(relation), strategy.initial(groups), strategy.count_noise_stds(groups, 200.0)
    bounds = torch.tensor(state.max_grad_norms, dtype=torch.float64)
    clipped = [strategy.clip(state, (bounds * far).unsqueeze(1)) for far in (1.0, 1e3)[:f]]  # at the norm; above it
    counts = clipped[0].below if f == 1 else clipped[0].below - clipped[1].below
    lengths = sum((one.factors.squeeze(1) * bounds * far for one, far in zip(clipped, (1.0, 1e3), strict=False)), 0.0)
    noise = bounds * f * noise_split(1.3, groups, stds, relation)
    moved = torch.cat([lengths / noise, counts / torch.tensor(stds, dtype=torch.float64)]).norm().item()
    assert moved == pytest.approx(1.0 / 1.3, rel=1e-12)
