"""Shadows on a Ray cluster: the rows of one process, whatever is lost on the way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from privet.attacks.membership import Pool, lira_rotated
from privet.attacks.membership.fleet import Fleet, Processes, Ray, Serial
from privet.errors import ArgumentError

ray = pytest.importorskip("ray")

INPUTS = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(40) % 2
POOL = Pool.of((INPUTS[:20], LABELS[:20]), (INPUTS[20:], LABELS[20:]), 2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """On this machine, with two cores."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield
    ray.shutdown()


def fit(indices: NDArray[np.int64], seed: int) -> nn.Module:
    model = nn.Linear(4, 2)
    nn.functional.cross_entropy(model(INPUTS[indices]), LABELS[indices]).backward()
    with torch.no_grad():
        model.weight -= model.weight.grad  # type: ignore[operator]
    return model


def test_it_has_to_be_connected_and_its_numbers_have_to_be_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ArgumentError, match=r"Call ray\.init\(\) before"):
        Fleet(fit, POOL, seed=1, executor=Ray()).grow(2)
    for settings, said in (({"cpus": 0}, "cpus = 0"), ({"gpus": -1}, "gpus = -1"), ({"at_once": 0}, "at_once = 0")):
        with pytest.raises(ArgumentError, match=said):
            Ray(**settings)  # type: ignore[arg-type]


def test_rows_and_scores_are_those_of_one_process_and_of_several(cluster: None) -> None:
    grown = [Fleet(fit, POOL, seed=1, executor=one).grow(8) for one in (Serial(), Processes(2), Ray(), Ray(at_once=1))]
    for one in grown[1:]:
        assert np.array_equal(one.signals, grown[0].signals)
        assert np.array_equal(one.membership, grown[0].membership)
    scores = [lira_rotated(np.array(one.signals), one.membership, one.blocks) for one in grown]
    assert all(np.array_equal(one, scores[0]) for one in scores[1:])


def test_a_lost_worker_is_made_up_for(cluster: None, tmp_path: Path) -> None:
    flag = tmp_path / "lost"

    def train(indices: NDArray[np.int64], seed: int) -> nn.Module:
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), 9)
        return fit(indices, seed)

    found = Fleet(train, POOL, seed=1, executor=Ray(at_once=1)).grow(4)
    assert flag.exists()
    assert np.array_equal(found.signals, Fleet(fit, POOL, seed=1, executor=Serial()).grow(4).signals)


def test_one_that_is_lost_again_and_again_loses_no_finished_shadow(cluster: None, tmp_path: Path) -> None:
    ran, bad = tmp_path / "ran", tmp_path / "bad"
    ran.mkdir()
    bad.touch()

    def train(indices: NDArray[np.int64], seed: int) -> nn.Module:
        (ran / str(seed)).touch()
        if bad.exists() and len(list(ran.iterdir())) == 4:
            os.kill(os.getpid(), 9)
        return fit(indices, seed)

    settings: dict[str, Any] = {"seed": 1, "store": tmp_path / "store", "version": "1"}
    with pytest.raises(ArgumentError, match=r"lost again and again.*Finished shadows are kept"):
        Fleet(train, POOL, executor=Ray(at_once=1), **settings).grow(6)
    bad.unlink()
    for file in ran.iterdir():
        file.unlink()
    found = Fleet(train, POOL, executor=Serial(), **settings).grow(6)
    assert len(list(ran.iterdir())) == 3  # three were there already
    assert np.array_equal(found.signals, Fleet(fit, POOL, seed=1, executor=Serial()).grow(6).signals)


def test_the_error_of_a_training_is_the_user_s_own(cluster: None) -> None:
    def train(indices: NDArray[np.int64], seed: int) -> nn.Module:
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        Fleet(train, POOL, seed=1, executor=Ray()).grow(2)


@pytest.mark.parametrize("asked", [Ray(cpus=64), Ray(cpus=64, at_once=1), Ray(gpus=1), Ray(gpus=0.5)])
def test_a_cluster_without_room_is_told(cluster: None, asked: Ray) -> None:
    with pytest.raises(ArgumentError, match="None has room for a shadow"):
        Fleet(fit, POOL, seed=1, executor=asked).grow(2)
