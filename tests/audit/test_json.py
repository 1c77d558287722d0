"""An audit as plain values: what JSON holds is what the audit says."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from tests.audit import samples

from privet.audit.plain import plain_of
from privet.audit.result import RATES, AuditResult
from privet.errors import SampleTooSmallError

EVERY = pytest.mark.parametrize("make", samples.EVERY.values(), ids=samples.EVERY)


@cache
def read(result: AuditResult) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(result.to_json(), allow_nan=False))
    return found


@EVERY
def test_numbers_are_those_of_the_audit(make: Callable[[], AuditResult]) -> None:
    result = make()
    found = read(result)
    assert found["verdict"] == result.verdict.value
    assert found["n"] == {"members": result.members, "non_members": result.non_members}
    assert found["auc"] == {"value": result.auc.value, "low": result.auc.low, "high": result.auc.high}
    assert list(found["tpr"]) == ["0.001", "0.01", "0.1"]
    for rate in RATES:
        shown = found["tpr"][f"{rate:g}"]
        try:
            measured = result.rate(rate)
        except SampleTooSmallError:
            assert shown is None
            continue
        assert (shown["value"], shown["low"], shown["high"]) == (
            measured.tpr.value,
            measured.tpr.low,
            measured.tpr.high,
        )
        assert shown["realised_fpr"] == measured.fpr.value
        assert shown["realised_fpr_low"] <= shown["realised_fpr"] <= shown["realised_fpr_high"]
    assert [attack["name"] for attack in found["attacks"]] == [attack.name for attack in result.attacks]
    assert [one["member"] for one in found["records"]] == result.records.top(100).rows.tolist()
    assert found["warnings"] == list(result.warnings)


def test_controls_and_claims_say_whether_they_hold() -> None:
    found = read(samples.claim_violated())
    assert found["claim"]["tested"]
    assert found["claim"]["violated"]
    assert found["claim"]["bound"]["epsilon_low"] == 4.127
    untested = read(samples.underpowered())
    assert untested["claim"] == {"epsilon": 3.0, "delta": 1e-5, "tested": False}
    assert untested["controls"]["planted"]["missed"] == ["LiRA", "RMIA"]
    assert read(samples.leak())["claim"] is None
    assert read(samples.invalid())["blind"]["differs"] is True
    assert read(samples.scores_only())["blind"] is None
    broken = replace(samples.leak(), null=replace(samples.leak().null, alarms=40))
    assert (read(samples.leak())["controls"]["null"]["broken"], read(broken)["controls"]["null"]["broken"]) == (
        False,
        True,
    )


def test_whatever_an_attack_says_of_itself_can_be_written() -> None:
    details = {
        "sizes": (64, np.int64(32)),
        "c": np.float32(0.5),
        "none": None,
        "flag": np.bool_(True),
        "endless": float("inf"),
        "vector": np.array([1.0, np.nan]),
        "nested": {"a": {1}},
        "type": int,
    }
    attack = replace(samples.leak().attacks[0], details=details)
    written = plain_of(replace(samples.leak(), attacks=(attack,), headline=attack.name))["attacks"][0]["details"]
    assert json.loads(json.dumps(written, allow_nan=False)) == {
        "sizes": [64, 32],
        "c": 0.5,
        "none": None,
        "flag": True,
        "endless": None,
        "vector": [1.0, None],
        "nested": {"a": [1]},
        "type": "<class 'int'>",
    }


def test_infinite_scores_are_written_as_nothing() -> None:
    attack = samples.judged("LiRA", np.repeat([np.inf, 0.0], 100), np.arange(200.0))
    result = replace(samples.scores_only(), attacks=(attack,), headline="LiRA", members=200, non_members=200)
    assert read(result)["records"][0]["score"] is None
