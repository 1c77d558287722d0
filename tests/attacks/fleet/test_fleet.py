"""Shadows are trained on balanced parts, asked alike, kept, and used again for nothing but the same."""

import gc
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from privet import outputs
from privet.attacks.membership import Pool
from privet.attacks.membership.fleet import Fleet, Queries, Query, Serial, ShadowJob, noisy, signal_row
from privet.attacks.membership.fleet.clock import Clock
from privet.attacks.membership.fleet.inclusion import inclusion, shadow_seed
from privet.errors import ArgumentError, CheckpointError, DataError
from privet.output_form import OutputForm

INPUTS = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(60) % 3
POOL = Pool.of((INPUTS[:30], LABELS[:30]), (INPUTS[30:], LABELS[30:]), 3)
ONE_BY_ONE = Serial()


def fit(indices: NDArray[np.int64], seed: int) -> nn.Module:
    """Draws from the global generator, as many a training does."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(INPUTS[indices]), LABELS[indices]).backward()
        optimizer.step()
    return model


def fleet(train_fn: Any = fit, pool: Pool = POOL, **more: Any) -> Fleet:
    return Fleet(train_fn, pool, **{"seed": 1, "executor": ONE_BY_ONE, **more})


def counted(train_fn: Any = fit) -> tuple[Any, list[int]]:
    seeds: list[int] = []

    def train(indices: NDArray[np.int64], seed: int) -> nn.Module:
        seeds.append(seed)
        return train_fn(indices, seed)  # type: ignore[no-any-return]

    return train, seeds


def test_every_row_is_what_a_model_trained_on_those_records_answers() -> None:
    shadows = fleet(queries=noisy(0.1, 1, seed=0)).grow(4)
    assert shadows.signals.shape == (4, 60, 2)
    assert shadows.signals.dtype == np.float32
    assert shadows.blocks.tolist() == [0, 0, 1, 1]
    for shadow in range(4):
        included = inclusion(60, 30, shadow // 2, 1)[shadow % 2]
        assert np.array_equal(shadows.membership[shadow], included)
        with torch.random.fork_rng():
            torch.manual_seed(shadow_seed(1, shadow))
            model = fit(np.flatnonzero(included), 0)
        assert np.array_equal(shadows.signals[shadow], signal_row(model, POOL, queries=noisy(0.1, 1, seed=0)))


def test_shadows_know_the_records_they_were_trained_on() -> None:
    def remember(indices: NDArray[np.int64], seed: int) -> Any:
        known = set(INPUTS[indices][:, 0].tolist())

        def answer(inputs: Tensor) -> Tensor:
            right = torch.tensor([3.0 if value in known else 0.0 for value in inputs[:, 0].tolist()])
            return nn.functional.one_hot(torch.arange(60) % 3, 3)[: len(inputs)] * right[:, None]

        return answer

    shadows = fleet(remember).grow(6)
    assert np.array_equal(shadows.signals[:, :, 0] > shadows.signals.mean(), shadows.membership)


def test_the_global_generators_are_left_as_they_were() -> None:
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fleet().grow(2)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_growing_asks_for_what_is_missing_alone_and_whole_blocks() -> None:
    train, seeds = counted()
    growing = fleet(train)
    told: list[tuple[int, int]] = []
    assert len(growing.grow(3, progress=lambda *at: told.append(at))) == 4
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    first = growing.shadows.signals.copy()
    assert len(growing.grow(5)) == 6
    assert len(seeds) == len(set(seeds)) == 6
    assert np.array_equal(growing.shadows.signals[:4], first)
    assert len(growing.grow(1)) == 2  # what is asked for, whatever is there
    assert len(growing.shadows) == len(seeds) == 6


def test_no_model_outlives_its_row() -> None:
    alive: list[weakref.ReferenceType[nn.Module]] = []

    def train(indices: NDArray[np.int64], seed: int) -> nn.Module:
        gc.collect()
        assert not any(model() is not None for model in alive)
        model = fit(indices, seed)
        alive.append(weakref.ref(model))
        return model

    fleet(train).grow(4)


def test_a_store_is_used_again_and_nothing_is_left_without_one(tmp_path: Path) -> None:
    shadows = fleet(store=tmp_path).grow(4)
    train, seeds = counted()
    again = fleet(store=tmp_path)
    assert np.array_equal(again.grow(4).signals, shadows.signals)
    assert fleet(train, store=tmp_path).grow(2).signals.shape == (2, 60, 1)
    assert len(seeds) == 2  # another function is another store
    passing = fleet()
    folder = passing.grow(2) and passing.folder
    assert folder.exists()
    del passing
    gc.collect()
    assert not folder.exists()
    assert not folder.parent.exists()


class _Doubling:
    """A defense that changes what is answered, and not the form."""

    def __init__(self, by: float) -> None:
        self.by = by

    def around(self, network: nn.Module) -> Any:
        return lambda inputs: network(inputs) * self.by


def _closure(decay: float) -> Any:
    def train(indices: NDArray[np.int64], seed: int) -> nn.Module:
        torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1, weight_decay=decay)
        return fit(indices, seed)

    return train


def _with_data(inputs: Tensor) -> Any:
    return lambda indices, seed: nn.Linear(int(inputs.ndim * 2), 3)


KEPT = nn.Linear(4, 3)
OTHER_INPUTS = INPUTS.clone()
OTHER_INPUTS[0, 0] += 1e-6
OTHER_LABELS = LABELS.clone()
OTHER_LABELS[59] = (OTHER_LABELS[59] + 1) % 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"train_fn": _closure(0.1)}, {"train_fn": _closure(0.2)}),
        ({"train_fn": _with_data(INPUTS)}, {"train_fn": _with_data(OTHER_INPUTS)}),
        ({}, {"train_fn": lambda indices, seed: fit(indices, seed + 1)}),
        ({}, {"pool": Pool(OTHER_INPUTS, LABELS, 30, 3)}),
        ({}, {"pool": Pool(INPUTS, OTHER_LABELS, 30, 3)}),
        ({}, {"pool": Pool(INPUTS, LABELS, 31, 3)}),
        ({}, {"pool": Pool(INPUTS.double(), LABELS, 30, 3)}),
        ({}, {"queries": noisy(0.1, 1, seed=0)}),
        ({"queries": noisy(0.1, 1, seed=0)}, {"queries": noisy(0.1, 1, seed=1)}),
        ({}, {"form": OutputForm(labels_only=True)}),
        ({}, {"seed": 2}),
        ({}, {"version": "2"}),
        ({}, {"defend": _Doubling(1.0).around}),
        ({"defend": _Doubling(1.0).around}, {"defend": _Doubling(2.0).around}),
    ],
)
def test_a_store_of_anything_else_is_never_used(tmp_path: Path, one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = fleet(**one, store=tmp_path), fleet(**other, store=tmp_path)
    assert first.folder != second.folder
    assert fleet(**one, store=tmp_path).folder == first.folder


def test_a_version_stands_for_what_cannot_be_read(tmp_path: Path) -> None:
    unread = (value for value in (1, 2))

    def train(indices: NDArray[np.int64], seed: int) -> nn.Module:
        return fit(indices, seed + (unread is None))

    with pytest.raises(ArgumentError, match="version="):
        fleet(train, store=tmp_path)
    assert len(fleet(train).grow(2)) == 2  # needed with a store alone
    assert len(fleet(train, store=tmp_path, version="1").grow(2)) == 2
    assert len(fleet(train, store=tmp_path, version="1").shadows) == 2
    assert len(fleet(train, store=tmp_path, version="2").shadows) == 0


def test_shadows_pass_through_the_defense_and_so_does_the_target() -> None:
    served = outputs.Rounding(fit(np.arange(30), 0).eval(), decimals=1)
    growing = fleet(form=served.output_form, defend=served.around)
    found = growing.grow(2).signals
    cells = np.log(np.r_[0.025, np.arange(1, 10) / 10, 0.975]) - np.log1p(-np.r_[0.025, np.arange(1, 10) / 10, 0.975])
    assert abs(found.reshape(-1, 1) - cells).min(1).max() < 1e-5
    assert np.array_equal(growing.row(served), signal_row(served, POOL, served.output_form))


def test_shadows_are_asked_without_the_defense_as_well(tmp_path: Path) -> None:
    served = outputs.Rounding(fit(np.arange(30), 0).eval(), decimals=1)
    behind = {"form": served.output_form, "defend": served.around, "queries": noisy(0.1, 2, seed=0)}
    found = fleet(**behind, undefended=OutputForm(), store=tmp_path).grow(4)
    assert np.array_equal(found.signals, fleet(**behind).grow(4).signals)
    assert found.undefended is not None
    assert np.array_equal(found.undefended, fleet(queries=behind["queries"]).grow(4).signals)
    again = fleet(**behind, undefended=OutputForm(), store=tmp_path).shadows
    assert again.undefended is not None
    assert np.array_equal(again.undefended, found.undefended)
    assert len(fleet(**behind, store=tmp_path).shadows) == 0
    assert fleet(**behind).grow(2).undefended is None


def test_an_interrupt_keeps_what_was_finished_and_goes_through(tmp_path: Path) -> None:
    def interrupted(done: int, of: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    growing = fleet(store=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        growing.grow(6, progress=interrupted)
    assert len(growing.shadows) == 2
    told: list[tuple[int, int]] = []
    resumed = fleet(store=tmp_path).grow(6, progress=lambda *at: told.append(at))
    assert told[0] == (3, 6)
    assert np.array_equal(resumed.signals, fleet().grow(6).signals)


def test_a_failing_training_names_its_shadow_and_loses_nothing() -> None:
    calls = []

    def train(indices: NDArray[np.int64], seed: int) -> nn.Module:
        calls.append(seed)
        if len(calls) == 4:
            raise RuntimeError("out of luck")
        return fit(indices, seed)

    growing = fleet(train)
    with pytest.raises(RuntimeError, match="out of luck") as caught:
        growing.grow(6)
    assert "shadow model 3" in caught.value.__notes__[0]
    assert len(growing.shadows) == 2
    assert len(growing.grow(6)) == 6
    assert len(calls) == 7


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (lambda indices, seed: None, "returned None"),
        (lambda indices, seed: nn.Linear, "returned a type"),
        (lambda indices, seed: torch.zeros(3), "returned a Tensor"),
        (lambda indices, seed: KEPT, "same model twice"),
    ],
)
def test_what_is_no_new_model_is_refused(train: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        fleet(train).grow(2)


def test_answers_of_nan_name_the_shadow() -> None:
    def train(indices: NDArray[np.int64], seed: int) -> nn.Module:
        model = fit(indices, seed)
        if seed == shadow_seed(1, 1):
            nn.init.constant_(model[3].weight, float("nan"))  # type: ignore[index, arg-type]
        return model

    with pytest.raises(DataError, match=r"shadow model 1: .*NaN"):
        fleet(train).grow(2)
    served = outputs.Rounding(fit(np.arange(30), 0).eval(), decimals=1)
    with pytest.raises(DataError, match=r"shadow model 1: .*NaN"):
        fleet(train, form=served.output_form, defend=served.around).grow(2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"train_fn": nn.Linear(4, 3)},
        {"train_fn": "fit"},
        {"pool": (INPUTS, LABELS)},
        {"seed": -1},
        {"seed": 1.5},
        {"executor": Serial},
        {"executor": "serial"},
        {"defend": 3},
        {"undefended": OutputForm()},
        {"version": 2},
        {"store": 3},
        {"store": __file__},
        {"form": OutputForm(k=4)},
    ],
)
def test_wrong_arguments_are_refused_before_any_work(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        fleet(**wrong)


def test_a_query_that_does_not_fit_is_refused_before_any_work() -> None:
    with pytest.raises(DataError, match="'cut'"):
        fleet(queries=Queries((Query("cut", lambda inputs: inputs[:, :1]),)))


@pytest.mark.parametrize("shadows", [0, -1, 1.5, True])
def test_a_number_of_shadows_that_is_none_is_refused(shadows: Any) -> None:
    with pytest.raises(ArgumentError, match="shadows"):
        fleet().grow(shadows)


def test_two_runs_on_one_store_are_refused(tmp_path: Path) -> None:
    def meanwhile(done: int, of: int) -> None:
        with pytest.raises(CheckpointError, match="is adding shadow models to this store"):
            fleet(store=tmp_path).grow(2)

    assert len(fleet(store=tmp_path).grow(2, progress=meanwhile)) == 2


def test_a_damaged_store_is_refused_before_any_work(tmp_path: Path) -> None:
    folder = (lambda one: (one.grow(4), one.folder)[1])(fleet(store=tmp_path))
    data = bytearray((folder / "signals.f32").read_bytes())
    data[300] ^= 1
    (folder / "signals.f32").write_bytes(data)
    with pytest.raises(CheckpointError, match="row of shadow 1"):
        fleet(store=tmp_path)


def test_an_executor_that_yields_something_else_is_refused() -> None:
    class Wrong:
        def run(self, jobs: Iterable[ShadowJob], work: Any) -> Iterator[tuple[int, Any]]:
            for job in jobs:
                yield job.shadow, work(job).astype(np.float64)

    with pytest.raises(ArgumentError, match="float32"):
        fleet(executor=Wrong()).grow(2)


def test_at_once_are_trained_only_as_many_as_can_be_finished() -> None:
    at, took = [0.0], list[float]()
    clock = Clock(10.0, now=lambda: at[0], took=took)
    assert clock.together(16, block=2) == 2  # nothing is known yet
    assert clock.begins(0, left=2)
    assert clock.begins(1, left=1)
    at[0] = 4.0
    clock.ended(0, together=2)
    clock.ended(1, together=2)
    assert took == [2.0, 2.0]
    assert clock.together(16, block=2) == 2  # of 3 in 6 seconds, whole blocks
    later = Clock(24.0, now=lambda: at[0], took=took)
    assert later.together(16, block=2) == 10
    assert later.together(8, block=2) == 8
    assert Clock(None).together(16, block=5) == 15


def test_the_deadline_stops_between_shadows() -> None:
    assert len(fleet().grow(4, deadline=time.monotonic() - 1.0)) == 0
    assert len(fleet().grow(4, deadline=time.monotonic() + 600.0)) == 4


def test_a_shadow_that_cannot_be_finished_in_time_is_not_begun() -> None:
    at = [0.0]
    clock = Clock(10.0, now=lambda: at[0])
    assert clock.begins(0, left=2)
    at[0] = 4.0
    clock.ended(0)
    assert clock.begins(1, left=1)  # 4 + 4 <= 10
    at[0] = 8.0
    clock.ended(1)
    assert not clock.begins(2, left=1)  # 8 + 4 > 10
    early = Clock(10.0, now=lambda: at[0])
    at[0] = 0.0
    early.begins(0, left=1)
    at[0] = 4.0
    early.ended(0)
    assert not early.begins(1, left=2)  # a block of two would end at 12
    early.begins(1, left=1)
    assert early.begins(2, left=2)  # side by side it ends at 8


class Several:
    """Trains many at once, and says on how many records."""

    def __init__(self) -> None:
        self.sizes: list[list[int]] = []

    def __call__(self, indices: NDArray[np.int64], seed: int) -> nn.Module:
        raise AssertionError("one by one")

    def train_many(self, indices: Sequence[NDArray[np.int64]], seeds: Sequence[int]) -> list[nn.Module]:
        self.sizes.append([len(rows) for rows in indices])
        models = []
        for rows, seed in zip(indices, seeds, strict=True):
            torch.manual_seed(seed)
            models.append(fit(rows, seed))
        return models


def test_what_trains_many_at_once_is_asked_to_and_gives_the_same_rows() -> None:
    several = Several()
    shadows = fleet(several, executor=None).grow(18)
    assert several.sizes == [[30] * 16, [30] * 2]
    assert np.array_equal(shadows.signals, fleet().grow(18).signals)


def test_those_trained_at_once_have_as_many_records_each() -> None:
    several = Several()
    fleet(several, Pool(INPUTS[:59], LABELS[:59], 30, 3), executor=None).grow(4)
    assert several.sizes == [[29, 29], [30, 30]]


def test_models_trained_at_once_are_new_and_as_many() -> None:
    several = Several()
    several.train_many = lambda indices, seeds: [fit(indices[0], 0)] * len(seeds)  # type: ignore[method-assign]
    with pytest.raises(ArgumentError, match="same model twice"):
        fleet(several, executor=None).grow(2)
    several.train_many = lambda indices, seeds: [fit(indices[0], 0)]  # type: ignore[method-assign]
    with pytest.raises(ArgumentError, match="1 models from train_many"):
        fleet(several, executor=None).grow(2)


SCRIPT = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_fleet import POOL, fit
from privet.attacks.membership.fleet import Fleet, Serial
def told(done, of):
    print(done, flush=True)
    if done == int(sys.argv[2]):
        input()
Fleet(fit, POOL, seed=1, executor=Serial(), store=sys.argv[1]).grow(8, progress=told)
"""


def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "killed")]
    with subprocess.Popen([*command, "5"], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert next(line for line in process.stdout if line == "5\n")
        with pytest.raises(CheckpointError, match=f"process {process.pid}"):
            fleet(store=tmp_path / "killed").grow(2)
        os.kill(process.pid, signal.SIGKILL)
    found = subprocess.run([*command, "-1"], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert found.split() == ["5", "6", "7", "8"]
    whole = fleet(store=tmp_path / "whole")
    whole.grow(8)
    killed = tmp_path / "killed" / whole.folder.name
    for name in ("signals.f32", "membership.bits", "journal.jsonl", "store.json"):
        assert (killed / name).read_bytes() == (whole.folder / name).read_bytes()
