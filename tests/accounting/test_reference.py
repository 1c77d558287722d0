"""What is handed to dp-accounting, and what the accountant around it promises."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from privet.accounting.events import Event, NeighbouringRelation, NoSampling, Poisson, TruncatedPoisson
from privet.accounting.gaussian import gaussian_epsilon
from privet.accounting.rdp import RDP
from privet.accounting.reference import Reference, reference_epsilon
from privet.errors import AccountingError, ArgumentError

ADD, REPLACE = NeighbouringRelation.ADD_OR_REMOVE_ONE, NeighbouringRelation.REPLACE_ONE


@pytest.mark.parametrize("relation", list(NeighbouringRelation))
@pytest.mark.parametrize("sampling", [NoSampling(), Poisson(1.0)])
def test_noise_multipliers_are_relative_to_the_relations_sensitivity(
    relation: NeighbouringRelation, sampling: NoSampling | Poisson
) -> None:
    """One unsampled release costs the same under either relation, since z already holds the sensitivity."""
    exact = gaussian_epsilon(1e-5, math.sqrt(3.0) / 2.0)
    assert reference_epsilon([Event(2.0, sampling, 3)], 1e-5, relation) == pytest.approx(exact.upper, abs=3e-4)


def test_it_is_what_their_accountant_answers() -> None:
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    theirs = PLDAccountant()
    theirs.compose(dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(1.1)), 50)
    theirs.compose(dp_accounting.GaussianDpEvent(4.0), 2)
    theirs.compose(dp_accounting.TruncatedSubsampledGaussianDpEvent(1000, 0.01, 12, 2.0), 7)
    events = [
        Event(2.0, TruncatedPoisson(0.01, 12, 1000), 7),
        Event(1.1, Poisson(0.01), 20),
        Event(4.0, NoSampling(), 2),
        Event(1.1, Poisson(0.01), 30),
    ]
    assert reference_epsilon(events, 1e-5) == pytest.approx(theirs.get_epsilon(1e-5), abs=1e-6)

    replaced = PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_ONE)
    replaced.compose(dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(2.2)), 50)
    replaced.compose(dp_accounting.TruncatedSubsampledGaussianDpEvent(1000, 0.01, 12, 2.0), 7)
    events = [Event(1.1, Poisson(0.01), 50), Event(2.0, TruncatedPoisson(0.01, 12, 1000), 7)]
    assert reference_epsilon(events, 1e-5, REPLACE) == pytest.approx(replaced.get_epsilon(1e-5), abs=1e-6)


def test_optimistic_and_pessimistic_enclose_and_rdp_is_above() -> None:
    events = [Event(1.0, Poisson(0.02), 40), Event(0.8, Poisson(0.01), 30), Event(5.0, NoSampling())]
    low = reference_epsilon(events, 1e-6, optimistic=True, interval=1e-3)
    high = reference_epsilon(events, 1e-6, interval=1e-3)
    fine = reference_epsilon(events, 1e-6)
    assert low <= fine <= high <= low + 0.1
    assert RDP().epsilon(events, 1e-6).upper >= low


def test_a_rare_cut_costs_what_poisson_costs_and_a_frequent_one_more() -> None:
    poisson = Reference().epsilon([Event(1.0, Poisson(0.01), 20)], 1e-5).upper
    rare = Reference().epsilon([Event(1.0, TruncatedPoisson(0.01, 1000, 1000), 20)], 1e-5).upper
    often = Reference().epsilon([Event(1.0, TruncatedPoisson(0.01, 10, 1000), 20)], 1e-5).upper
    assert rare == pytest.approx(poisson, abs=1e-6)
    assert often > poisson + 0.1


def test_counts_add_up_in_any_order() -> None:
    a, b = Event(1.0, Poisson(0.05), 4), Event(2.0, TruncatedPoisson(0.01, 12, 1000), 2)
    one = Reference().epsilon([a, b], 1e-5)
    again = Reference().epsilon([Event(2.0, b.sampling), Event(1.0, a.sampling, 3), a, Event(2.0, b.sampling)], 1e-5)
    assert Reference().epsilon([b, a], 1e-5) == one
    assert Reference().epsilon([b, Event(1.0, a.sampling, 1), Event(1.0, a.sampling, 3)], 1e-5) == one
    assert again.upper > one.upper


def test_the_accountant_is_an_upper_bound_with_room_for_rounding() -> None:
    events = [Event(1.0, Poisson(0.01), 100)]
    bound = Reference().epsilon(events, 1e-5)
    assert bound.lower == 0.0
    assert reference_epsilon(events, 1e-5) <= bound.upper <= reference_epsilon(events, 1e-5) + 1e-6
    assert Reference().epsilon(events, 1e-14).upper == math.inf  # below what its transforms support
    assert Reference().epsilon([], 1e-5).upper == 0.0


def test_refusals() -> None:
    with pytest.raises(AccountingError, match="cells"):
        reference_epsilon([Event(0.5, Poisson(0.5), 10**6)], 1e-5)
    with pytest.raises(AccountingError, match="optimistic"):
        reference_epsilon([Event(1.0, TruncatedPoisson(0.1, 10, 50))], 1e-5, optimistic=True)
    with pytest.raises(ArgumentError, match="interval"):
        Reference(interval=0.0)
    with pytest.raises(ArgumentError, match="interval"):
        reference_epsilon([], 1e-5, interval=-1.0)
    with pytest.raises(ArgumentError, match="delta"):
        Reference().epsilon([], 2.0)


def test_importing_the_module_does_not_import_dp_accounting() -> None:
    code = "import sys, privet.accounting.reference; sys.exit('dp_accounting' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
