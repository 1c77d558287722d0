"""Private training in one call: it learns, stops cleanly, and goes on from its checkpoint and its ledger."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from privet.accounting import Ledger, read_ledger
from privet.checkpoints import load_weights, read_snapshot
from privet.dp import AdaptiveQuantile, Plan, TestRun
from privet.dp.fitting import fit
from privet.dp.progress import Outlook, Reached
from privet.errors import ArgumentError, BudgetExceededError, CheckpointError, LedgerMismatchError
from privet.schedules import Constant

RECORDS = 120
QUIET = TestRun(seed=3, noise=False)


def data() -> tuple[Tensor, Tensor]:
    inputs = torch.randn(RECORDS, 4, generator=torch.Generator().manual_seed(0))
    return inputs, (inputs[:, 0] - inputs[:, 1] > 0).long()


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 2))


def plan(**changed: Any) -> Plan:
    values: dict[str, Any] = {"dataset_size": RECORDS, "expected_batch_size": 30, "steps": 12, "delta": 1e-3}
    values |= {"noise": 1.0} | changed
    return Plan(**values)


class StopAt:
    """Ends training after a step, in one way or another."""

    def __init__(self, step: int, how: str = "raise") -> None:
        self.step, self.how = step, how

    def on_step(self, step: int, model: nn.Module, release: object) -> None:
        if step == self.step:
            if self.how == "signal":
                signal.raise_signal(signal.SIGINT)
            else:
                raise KeyboardInterrupt


def run(folder: Path, what: Plan, model: nn.Module | None = None, **options: Any) -> Any:
    chosen: dict[str, Any] = {"ledger": folder / "run.ledger", "progress": False}
    return fit(net() if model is None else model, data(), what, **(chosen | options))


def test_it_learns_and_says_what_it_spent(tmp_path: Path) -> None:
    what = plan(steps=60, noise=0.8)
    result = run(tmp_path, what, learning_rate=0.05, weights=tmp_path / "net.safetensors")
    inputs, labels = data()
    result.model.eval()
    assert float((result.model(inputs).argmax(1) == labels).float().mean()) > 0.8
    assert result.complete
    assert result.spent.epsilon.upper == pytest.approx(what.epsilon().upper, rel=1e-9)
    assert read_ledger(tmp_path / "run.ledger").reserved == 60
    saved = json.loads((tmp_path / "net.safetensors.privacy.json").read_text())
    assert saved["epsilon"]["upper"] == result.statement.epsilon.upper
    assert saved["private"] is True
    other = net()
    load_weights(tmp_path / "net.safetensors", other)
    assert torch.equal(other.eval()(inputs), result.model(inputs))
    assert [record.step for record in result.history] == list(range(1, 61))
    assert {record.noise_multiplier for record in result.history} == {0.8}


def test_history_and_progress_hold_released_values_only(tmp_path: Path) -> None:
    seen: list[Reached] = []
    what = plan(clipping=AdaptiveQuantile(1.0), noise=1.0, steps=8)
    result = run(tmp_path, what, progress=seen.append)
    assert set(vars(result.history[0])) == {"step", "noise_multiplier", "max_grad_norms"}
    assert [reached.step for reached in seen] == list(range(1, 9))
    norms = [record.max_grad_norms for record in result.history]
    assert [reached.max_grad_norms for reached in seen[:-1]] == norms[1:]
    assert len(set(norms)) == 8  # it moves


def test_progress_never_says_less_than_is_spent(tmp_path: Path) -> None:
    what = plan(steps=40, noise=lambda step: 2.0 * 0.98**step)
    before = plan(steps=5, noise=1.5).events()
    outlook = Outlook(what, before, 0)
    shown = [outlook.upper(step) for step in range(41)]
    assert shown == sorted(shown)
    for step in (0, 1, 13, 40):
        exact = what.accountant.epsilon([*before, *what.events(0, step)], what.delta, what.relation)
        assert exact.lower <= shown[step] * (1 + 1e-9)
        assert shown[step] < exact.upper * 1.3


@pytest.mark.parametrize("how", ["raise", "signal"])
def test_stopped_and_resumed_is_bit_for_bit_straight(tmp_path: Path, how: str) -> None:
    """With every record in every step and the noise off, nothing but the file can make a difference."""

    def settings(name: str) -> dict[str, Any]:
        return {
            "ledger": tmp_path / f"{name}.ledger",
            "checkpoint": tmp_path / f"{name}.safetensors",
            "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=0.03, amsgrad=True),
            "scheduler": lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5),
            "average": 0.9,
            "test_run": QUIET,
            "seed": 5,
        }

    what = plan(expected_batch_size=RECORDS, clipping=AdaptiveQuantile(1.0, count_noise_std=50.0))
    straight = run(tmp_path, what, **settings("straight"))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, what, **settings("stopped"), callbacks=[StopAt(7, how)])
    assert read_ledger(tmp_path / "stopped.ledger").reserved == 7  # what was reserved ahead was given back
    resumed = run(tmp_path, what, **settings("stopped"), resume=True)
    assert read_ledger(tmp_path / "stopped.ledger").reserved == 12
    for one, other in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    first, second = (read_snapshot(tmp_path / f"{name}.safetensors") for name in ("straight", "stopped"))
    assert first.optimizer["param_groups"] == second.optimizer["param_groups"]
    for index, state in first.optimizer["state"].items():
        for name, value in state.items():
            assert torch.equal(value, second.optimizer["state"][index][name]), name
    assert first.scheduler == second.scheduler
    assert straight.history == resumed.history
    assert resumed.complete


def test_the_step_under_way_is_finished(tmp_path: Path) -> None:
    asked = []

    def loss(model: nn.Module, batch: Any) -> Tensor:
        if len(asked) == 3:
            signal.raise_signal(signal.SIGINT)
        asked.append(1)
        return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    what = plan(expected_batch_size=RECORDS)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, what, loss=loss, checkpoint=tmp_path / "run.safetensors")
    snapshot = read_snapshot(tmp_path / "run.safetensors")
    step = snapshot.callbacks[0]["step"]
    assert step >= 1
    assert read_ledger(tmp_path / "run.ledger").reserved == step
    assert {float(state["step"]) for state in snapshot.optimizer["state"].values()} == {float(step)}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nothing_is_kept_from_inside_a_step(tmp_path: Path) -> None:
    """The gradient was released and the optimizer broke off: the checkpoint stays that of the step before."""

    class Breaks(torch.optim.SGD):
        calls = 0

        def step(self, closure: Any = None) -> Any:
            type(self).calls += 1
            if self.calls == 5:
                raise RuntimeError("half-way")
            return super().step(closure)

    options: dict[str, Any] = {"checkpoint": tmp_path / "run.safetensors", "checkpoint_every": 3}
    with pytest.raises(RuntimeError, match="half-way"):
        run(tmp_path, plan(), optimizer=lambda parameters: Breaks(parameters, lr=0.1), **options)
    assert read_snapshot(tmp_path / "run.safetensors").callbacks[0]["step"] == 3
    assert read_ledger(tmp_path / "run.ledger").reserved == 5  # released, and so spent
    result = run(tmp_path, plan(), optimizer=lambda parameters: Breaks(parameters, lr=0.1), resume=True, **options)
    assert result.complete
    assert read_ledger(tmp_path / "run.ledger").reserved == 5 + 9


def test_noise_is_not_drawn_twice_after_a_resume(tmp_path: Path) -> None:
    """Also of a test run, whose noise can be repeated: the steps done anew have other noise."""
    file = tmp_path / "run.safetensors"
    what = plan(expected_batch_size=RECORDS, steps=2)
    options = {"checkpoint": file, "checkpoint_every": 1, "test_run": TestRun(1), "average": None}

    class Crash:
        def on_step(self, step: int, model: nn.Module, release: object) -> None:
            weights.append(torch.cat([one.detach().flatten() for one in model.parameters()]))
            if len(weights) == 1:
                kept.append(file.read_bytes())

    weights: list[Tensor] = []
    kept: list[bytes] = []
    run(tmp_path, what, **options, callbacks=[Crash()])
    file.write_bytes(kept[0])  # as a kill before the first step was kept leaves it
    run(tmp_path, what, **options, resume=True, callbacks=[Crash()])
    assert len(weights) == 4
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[1], weights[3])
    assert read_ledger(tmp_path / "run.ledger").reserved == 4


def test_lost_steps_stay_spent_and_the_budget_ends_the_run(tmp_path: Path) -> None:
    file, kept = tmp_path / "run.safetensors", []
    what = plan(noise=Constant(1.0), target_epsilon=4.0, steps=20)
    options: dict[str, Any] = {"checkpoint": file, "checkpoint_every": 5}

    class Keep:
        def on_step(self, step: int, model: nn.Module, release: object) -> None:
            if step == 6:
                kept.append(file.read_bytes())
            if step == 11:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, what, **options, callbacks=[Keep()])
    file.write_bytes(kept[0])
    result = run(tmp_path, what, **options, resume=True)
    assert not result.complete
    assert 5 < result.spent.steps == result.statement.steps < 20
    assert result.spent.steps + 6 == read_ledger(tmp_path / "run.ledger").reserved
    assert result.spent.epsilon.upper <= 4.0
    assert not result.statement.whole_plan
    again = run(tmp_path, what, **options, resume=True)  # nothing is left to do, and that is no error
    assert again.spent.steps == result.spent.steps
    for one, other in zip(result.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_budget_ends_training_cleanly_and_refuses_another(tmp_path: Path) -> None:
    what = plan(budget_epsilon=2.0, steps=500, noise=1.2)
    result = run(tmp_path, what)
    assert 0 < result.spent.steps < 500
    assert result.spent.epsilon.upper <= 2.0 < what.upper_epsilon(what.events(0, result.spent.steps + 1))
    file = tmp_path / "again.safetensors"
    with pytest.raises(BudgetExceededError):
        run(tmp_path, what, checkpoint=file)
    assert not file.exists()


def test_the_average_is_that_of_the_weights(tmp_path: Path) -> None:
    model, seen = net(), []

    class Watch:
        def on_step(self, step: int, model: nn.Module, release: object) -> None:
            seen.append(model[0].weight.detach().clone())  # type: ignore[index]

    mean = model[0].weight.detach().clone()  # type: ignore[index]
    result = run(tmp_path, plan(), model, average=0.5, callbacks=[Watch()])
    for step, weight in enumerate(seen, start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * weight
    assert torch.allclose(result.model[0].weight, mean, atol=1e-6)
    assert not torch.equal(result.model[0].weight, seen[-1])


def test_epochs_call_the_scheduler_and_the_callbacks(tmp_path: Path) -> None:
    epochs: list[tuple[int, int]] = []

    class Watch:
        def on_epoch(self, epoch: int, model: nn.Module, reached: Reached) -> None:
            epochs.append((epoch, reached.step))

    made: list[Any] = []

    def scheduler(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        made.append(torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5))
        return made[0]

    run(tmp_path, plan(steps=None, epochs=3, expected_batch_size=50), callbacks=[Watch()], scheduler=scheduler)
    assert epochs == [(1, 3), (2, 5), (3, 8)]  # 120 / 50 steps an epoch
    assert made[0].last_epoch == 3


def test_the_mode_and_the_random_state_are_put_back(tmp_path: Path) -> None:
    model = net().eval()
    before = torch.get_rng_state()
    run(tmp_path, plan(), model)
    assert torch.equal(before, torch.get_rng_state())
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    functional.cross_entropy(model(data()[0]), data()[1]).backward()  # it can be trained in the open again


def test_a_resume_without_its_checkpoint_is_refused_once_steps_are_spent(tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    what = plan()
    with Ledger.create(tmp_path / "run.ledger", what.relation, what.unit) as ledger:
        ledger.begin_run(what.digest)  # killed before the first step: nothing is spent
    run(tmp_path, what, checkpoint=file, resume=True)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"12 steps of this plan are spent"):
        run(tmp_path, what, checkpoint=file, resume=True)
    run(tmp_path, plan(steps=3), checkpoint=file, resume=True)  # another plan may start


def test_a_checkpoint_and_a_ledger_that_do_not_belong_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    run(tmp_path, plan(), checkpoint=file, learning_rate=0.01)
    with pytest.raises(CheckpointError, match="exists: give resume=True"):
        run(tmp_path, plan(), checkpoint=file)
    with pytest.raises(CheckpointError, match=r"plan delta is 0.001 there and 0.002 here"):
        run(tmp_path, plan(delta=2e-3), checkpoint=file, learning_rate=0.01, resume=True)
    with pytest.raises(CheckpointError, match="optimizer group 0"):
        run(tmp_path, plan(), checkpoint=file, learning_rate=0.02, resume=True)
    with pytest.raises(CheckpointError, match="test_run"):
        run(tmp_path, plan(), checkpoint=file, learning_rate=0.01, resume=True, test_run=QUIET)
    Ledger.create(tmp_path / "other.ledger", plan().relation, plan().unit).close()
    with pytest.raises(LedgerMismatchError):
        run(tmp_path, plan(), checkpoint=file, learning_rate=0.01, resume=True, ledger=tmp_path / "other.ledger")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": nn.CrossEntropyLoss()}, "loss"),
        ({"loss": functional.cross_entropy}, "loss"),
        ({"optimizer": torch.optim.LBFGS}, "closure"),
        ({"optimizer": torch.optim.SGD(net().parameters(), lr=0.1)}, "a function from parameters"),
        ({"optimizer": torch.optim.SGD, "learning_rate": 0.1}, "not both"),
        ({"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau}, "not covered by epsilon"),
        ({"average": 1.0}, "average"),
        ({"seed": -1}, "seed"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"resume": True}, "resume"),
        ({"weights": "net.pt"}, "weights"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ArgumentError, match=words):
        run(tmp_path, plan(), **options)
    assert not list(tmp_path.iterdir())


def test_an_error_in_the_first_batch_leaves_no_checkpoint_behind(tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"

    def wrong(model: nn.Module, batch: Any) -> Tensor:
        raise IndexError("label 7")

    with pytest.raises(IndexError):
        run(tmp_path, plan(expected_batch_size=RECORDS), loss=wrong, checkpoint=file)
    assert not file.exists()
    assert read_ledger(tmp_path / "run.ledger").reserved == 0
    run(tmp_path, plan(expected_batch_size=RECORDS), checkpoint=file)


def killed(folder: Path, seed: int, fault: str = "") -> list[dict[str, int]]:
    command = [sys.executable, str(Path(__file__).with_name("killed_fit.py")), str(folder), str(seed), fault]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    rows: list[dict[str, int]] = json.loads(said.stdout)
    assert rows[-1]["exit"] == 0, said.stderr
    return rows


def test_killed_at_any_moment_it_goes_on_and_the_ledger_knows(tmp_path: Path) -> None:
    rows = killed(tmp_path, seed=1)
    assert sum(row["exit"] == -signal.SIGKILL for row in rows) >= 3
    assert all(row["reserved"] >= row["drawn"] for row in rows)
    assert rows[-1]["reserved"] > 160  # some steps were lost and done anew
    said = json.loads((tmp_path / "net.safetensors.privacy.json").read_text())
    assert said["steps"] == 160
    assert not [file for file in tmp_path.iterdir() if file.suffix == ".tmp"]


def test_noise_drawn_before_it_is_on_the_ledger_would_be_seen(tmp_path: Path) -> None:
    rows = killed(tmp_path, seed=1, fault="drawn before it is on the ledger")
    assert any(row["reserved"] < row["drawn"] for row in rows)


def test_a_callback_that_would_never_be_called_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"callbacks = 3 .*on_start, on_step, on_epoch or on_end"):
        run(tmp_path, plan(), callbacks=[3])
    assert not list(tmp_path.iterdir())
