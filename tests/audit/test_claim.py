"""A claim is refuted where the bound lies above it, and nowhere else."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from privet.audit.claim import ClaimAudit, audit_claim
from privet.errors import ArgumentError, DataError
from privet.statistics.one_run import OneRunBound, one_run_epsilon

CANARIES = 1_000


def coins(run: int) -> NDArray[np.bool_]:
    return np.random.default_rng([1, run]).integers(0, 2, CANARIES).astype(bool)


def leaking(run: int, noise: float = 0.3) -> NDArray[np.float64]:
    """Scores that tell their coins well."""
    return coins(run) + np.random.default_rng([2, run]).normal(0.0, noise, CANARIES)


def test_shuffled_inclusion_refutes_nothing() -> None:
    """Coins of another run: 200 audits of the claim (0, 0), nominal 5%; more than 21 have a probability below 0.1%."""
    found = sum(audit_claim(leaking(run), coins(run + 1), (0.0, 0.0)).violated for run in range(200))
    assert found <= 21
    assert all(audit_claim(leaking(run), coins(run), (0.0, 0.0)).violated for run in range(20))


def test_a_planted_leak_reaches_its_known_maximum() -> None:
    for guesses in (40, 80, 500):
        audit = audit_claim(coins(0), coins(0), (3.0, 0.0), guesses=guesses)
        share = 0.05 ** (1.0 / guesses)  # all guesses right has probability share^r = 5% there
        assert audit.bound.epsilon_low == pytest.approx(math.log(share / (1.0 - share)), abs=1e-9)
        assert audit.violated is (guesses > 60)


def test_the_bound_is_that_of_the_statistics_at_the_claimed_delta() -> None:
    for delta in (0.0, 1e-5, 1e-3):
        audit = audit_claim(leaking(3), coins(3), (1.0, delta), guesses=(40, 160), confidence=0.9)
        bound = one_run_epsilon(leaking(3), coins(3), delta, guesses=(40, 160), confidence=0.9)
        assert audit == ClaimAudit((1.0, delta), bound)


def test_a_bound_at_the_claim_does_not_refute_it() -> None:
    bound = OneRunBound(2.0, guesses=80, correct=75, canaries=1_000, delta=0.0, confidence=0.95, tests=1)
    assert not ClaimAudit((2.0, 0.0), bound).violated
    assert ClaimAudit((math.nextafter(2.0, 0.0), 0.0), bound).violated


def test_words_say_what_was_refuted_and_never_that_a_claim_holds() -> None:
    refuted = audit_claim(coins(0), coins(0), (1.0, 1e-5))
    assert "80 of 80 guesses about 1,000 canaries were right" in refuted.words
    assert "refutes the claimed epsilon of 1." in refuted.words
    kept = audit_claim(coins(1), coins(0), (1.0, 1e-5))
    assert "that shows no epsilon above 0 at delta 1e-05, at 95% confidence" in kept.words
    assert "is not refuted, which does not prove it" in kept.words
    for words in (refuted.words, kept.words):
        assert not any(word in words for word in ("private", "safe", "holds"))


@pytest.mark.parametrize("claim", [(-1.0, 1e-5), (1.0, 1.0), (math.nan, 0.0), (math.inf, 0.0), (1.0,), 3.0, "ab"])
def test_claims_out_of_range_are_refused(claim: object) -> None:
    with pytest.raises(ArgumentError, match="claim"):
        audit_claim(coins(0), coins(0), claim)  # type: ignore[arg-type]


def test_canaries_without_fair_coins_are_refused() -> None:
    with pytest.raises(DataError, match="fair coins"):
        audit_claim(np.zeros(CANARIES), np.ones(CANARIES), (1.0, 0.0))
