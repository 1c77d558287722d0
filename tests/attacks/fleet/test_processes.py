"""Shadows in other processes: the same rows, one thread, and no process left behind."""

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from privet import outputs
from privet.attacks.membership import Pool
from privet.attacks.membership.fleet import Fleet, Processes, Queries, Query, Serial
from privet.attacks.membership.fleet import fleet as module_of_fleet
from privet.attacks.membership.fleet.inclusion import shadow_seed
from privet.attacks.membership.fleet.processes import refusal
from privet.errors import ArgumentError

INPUTS = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(40) % 2
POOL = Pool.of((INPUTS[:20], LABELS[:20]), (INPUTS[20:], LABELS[20:]), 2)
TWO = Processes(2)


def fit(indices: NDArray[np.int64], seed: int) -> nn.Module:
    model = nn.Linear(4, 2)
    nn.functional.cross_entropy(model(INPUTS[indices]), LABELS[indices]).backward()
    with torch.no_grad():
        model.weight -= model.weight.grad  # type: ignore[operator]
    return model


def gone(process: int) -> bool:
    """Whether a process ends within a while."""
    for _ in range(100):
        try:
            os.kill(process, 0)
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True  # ended, and its parent has not looked
        except (OSError, IndexError):
            return True
        time.sleep(0.1)
    return False


def noted(folder: Path) -> Any:
    """A training that notes its process."""

    def train(indices: NDArray[np.int64], seed: int) -> nn.Module:
        (folder / str(os.getpid())).touch()
        return fit(indices, seed)

    return train


def processes(folder: Path) -> set[int]:
    return {int(file.name) for file in folder.iterdir()}


def test_rows_are_those_of_one_process_and_all_workers_end(tmp_path: Path) -> None:
    factor = torch.tensor(1.5)
    here = os.getpid()

    def train(indices: NDArray[np.int64], seed: int) -> nn.Module:
        if os.getpid() != here:
            assert torch.get_num_threads() == 1
            (tmp_path / str(os.getpid())).touch()
        model = fit(indices, seed)
        with torch.no_grad():
            model.weight *= factor
        return model

    queries = Queries((Query("as it is", lambda inputs: inputs), Query("double", lambda inputs: inputs * 2)))
    several = Fleet(train, POOL, seed=1, executor=TWO, queries=queries).grow(6)
    one = Fleet(train, POOL, seed=1, executor=Serial(), queries=queries).grow(6)
    assert np.array_equal(several.signals, one.signals)
    assert here not in processes(tmp_path)
    assert len(processes(tmp_path)) == 2
    assert all(gone(process) for process in processes(tmp_path))


def test_an_interrupt_leaves_no_worker_and_keeps_what_was_finished(tmp_path: Path) -> None:
    note = noted(tmp_path)
    endless = {shadow_seed(1, shadow) for shadow in range(3, 40)}

    def train(indices: NDArray[np.int64], seed: int) -> nn.Module:
        time.sleep(600 if seed in endless else 0)
        return note(indices, seed)  # type: ignore[no-any-return]

    def interrupted(done: int, of: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    fleet = Fleet(train, POOL, seed=1, executor=TWO)
    with pytest.raises(KeyboardInterrupt):
        fleet.grow(40, progress=interrupted)
    assert len(fleet.shadows) == 2
    assert processes(tmp_path)
    assert all(gone(process) for process in processes(tmp_path))


SCRIPT = """
import os, time
from pathlib import Path
import torch
from torch import nn
from privet import outputs
from privet.attacks.membership import Pool
from privet.attacks.membership.fleet import Fleet, Processes
FOLDER = Path({folder!r})
def fit(indices, seed):
    (FOLDER / str(os.getpid())).touch()
    time.sleep(600)
inputs = torch.randn(40, 4)
pool = Pool.of((inputs[:20], torch.arange(20) % 2), (inputs[20:], torch.arange(20) % 2), 2)
Fleet(fit, pool, seed=1, executor=Processes(2)).grow(4)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_workers_end_with_their_parent_in_the_middle_of_a_training(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "processes"
    folder.mkdir()
    script = tmp_path / "script.py"  # no guard around its main part
    script.write_text(SCRIPT.format(folder=str(folder)))
    with subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL) as process:
        for _ in range(600):
            if len(processes(folder)) == 2 or process.poll() is not None:
                break
            time.sleep(0.1)
        os.kill(process.pid, number)
    assert len(processes(folder)) == 2
    assert all(gone(worker) for worker in processes(folder))


def test_a_defense_goes_with_the_shadows() -> None:
    served = outputs.Rounding(fit(np.arange(20), 0).eval(), decimals=1)
    found = Fleet(fit, POOL, seed=1, executor=Processes(1), form=served.output_form, defend=served.around).grow(2)
    here = Fleet(fit, POOL, seed=1, executor=Serial(), form=served.output_form, defend=served.around).grow(2)
    assert np.array_equal(found.signals, here.signals)


def test_errors_of_a_training_come_through_with_their_shadow() -> None:
    def train(indices: NDArray[np.int64], seed: int) -> Any:
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck") as caught:
        Fleet(train, POOL, seed=1, executor=Processes(1)).grow(2)
    assert any("shadow model" in note for note in caught.value.__notes__)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_an_error_that_says_so() -> None:
    def train(indices: NDArray[np.int64], seed: int) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ArgumentError, match="fewer workers, or Serial"):
        Fleet(train, POOL, seed=1, executor=TWO).grow(2)


def unsendable() -> Any:
    import threading

    lock = threading.Lock()

    def train(indices: NDArray[np.int64], seed: int) -> nn.Module:
        with lock:
            return fit(indices, seed)

    return train


def test_what_cannot_be_sent_is_refused_or_trained_here() -> None:
    with pytest.raises(ArgumentError, match="cannot be sent to another process"):
        Fleet(unsendable(), POOL, seed=1, executor=TWO).grow(2)
    fleet = Fleet(unsendable(), POOL, seed=1)
    assert fleet.how == ""
    assert len(fleet.grow(2)) == 2
    assert "one after the other" in fleet.how


@pytest.mark.parametrize(("cores", "gpu", "words"), [(1, False, "one core"), (4, True, "GPU"), (4, False, "4 proc")])
def test_where_shadows_are_trained_is_chosen_and_said(
    monkeypatch: pytest.MonkeyPatch, cores: int, gpu: bool, words: str
) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: cores)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    executor, how = sys.modules[module_of_fleet.__name__]._executor_for(fit)  # type: ignore[attr-defined]
    assert words in how
    assert executor == (Processes() if words == "4 proc" else Serial())


@pytest.mark.slow
def test_a_file_that_no_other_process_would_find_goes_by_value(tmp_path: Path) -> None:
    file = tmp_path / "hidden_training.py"
    file.write_text(
        textwrap.dedent("""
        from torch import nn
        class Net(nn.Linear):
            pass
        def fit(indices, seed):
            return Net(4, 2)
    """)
    )
    spec = importlib.util.spec_from_file_location("hidden_training", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["hidden_training"] = module
    try:
        spec.loader.exec_module(module)
        assert refusal(module.fit) is None
        assert len(Fleet(module.fit, POOL, seed=1, executor=Processes(1)).grow(2)) == 2
    finally:
        del sys.modules["hidden_training"]


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_a_number_of_workers_that_is_none_is_refused(workers: Any) -> None:
    with pytest.raises(ArgumentError, match="workers"):
        Processes(workers)
