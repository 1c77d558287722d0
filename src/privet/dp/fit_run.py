"""A private training under way: its steps, its checkpoints, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from privet.atomic_file import remove_leftovers
from privet.checkpoints.checkpoint import put_back, save_checkpoint
from privet.checkpoints.snapshots import read_snapshot
from privet.checkpoints.stateful import Stateful
from privet.dp.averaging import Average
from privet.dp.batches import Batch
from privet.dp.fit_records import Callback, FitResult, OnEpoch, OnStep, StepRecord
from privet.dp.interruption import Interruption, interruptions_held
from privet.dp.plan import Plan
from privet.dp.private import Private, Spent
from privet.dp.progress import Outlook, Reached, Show
from privet.dp.step import Release
from privet.errors import BudgetExceededError, CheckpointError

__all__ = ["FitRun", "Loss"]

Loss = Callable[[nn.Module, Any], Tensor]

_SHARE = 0.05  # of the time, for checkpoints whose number was left open


@dataclass(eq=False)
class FitRun:
    """A training under way.

    ``done`` counts the steps whose gradient reached the weights; it is the private step's number except inside a step.
    ``told`` counts those that every callback heard of.
    """

    model: nn.Module
    plan: Plan
    optimizer: Optimizer
    scheduler: LRScheduler | None
    average: Average | None
    callbacks: tuple[Callback, ...]
    path: Path | None
    every: int | None
    configuration: Mapping[str, Any]
    done: int = 0
    told: int = 0
    kept_at: int = -1
    kept_for: float = 0.0
    kept_when: float = 0.0
    history: _History = field(default_factory=lambda: _History())

    @property
    def _stateful(self) -> list[Stateful]:
        states: list[Stateful] = [self.history]
        if self.average is not None:
            states.append(self.average)
        return states + [callback for callback in self.callbacks if isinstance(callback, Stateful)]

    def take_up(self) -> Mapping[str, Any] | None:
        """Put a checkpoint back, where there is one, and give the private state it holds."""
        assert self.path is not None
        remove_leftovers(self.path)
        if not self.path.exists():
            return None
        snapshot = read_snapshot(self.path)
        if not snapshot.callbacks or "ledger_head" not in snapshot.callbacks[0]:
            raise CheckpointError(f"{self.path}: a checkpoint of a training that was not private.")
        holder = _Held()
        put_back(
            self.path,
            snapshot,
            self.model,
            self.optimizer,
            scheduler=self.scheduler,
            generator=None,
            callbacks=[holder, *self._stateful],
            configuration=self.configuration,
        )
        self.done = self.kept_at = int(holder.state["step"])
        if self.done != len(self.history.norms):
            raise CheckpointError(f"{self.path}: {self.done} steps and a history of {len(self.history.norms)}.")
        return holder.state

    def keep(self, private: Private) -> None:
        """Write the checkpoint, if the last one is of an earlier step."""
        if self.path is None or self.kept_at == self.done:
            return
        begun = time.monotonic()
        save_checkpoint(
            self.path,
            self.model,
            self.optimizer,
            scheduler=self.scheduler,
            callbacks=[private, *self._stateful],
            configuration=self.configuration,
        )
        self.kept_at, self.kept_when = self.done, time.monotonic()
        self.kept_for = self.kept_when - begun

    def _keep_now_and_then(self, private: Private) -> None:
        if self.every is not None:
            due = self.done % self.every == 0
        else:
            due = self.done - self.kept_at >= self.plan.total_steps / 100
            due = due and time.monotonic() - self.kept_when >= self.kept_for / _SHARE
        if due:
            self.keep(private)

    def go(self, private: Private, batches: Iterator[Batch], loss: Loss, show: Show | None) -> None:
        """Train until the plan, the budget or the user ends it, and leave a checkpoint of that."""
        outlook = Outlook(self.plan, private.ledger.events(), self.done)
        fresh = self.kept_at < 0
        with interruptions_held() as interruption:
            self.keep(private)
            try:
                for batch in batches:
                    release = private.backward(lambda data: loss(self.model, data), batch)
                    self._apply(private, release, outlook, show)
                    if interruption.asked:
                        raise KeyboardInterrupt
                    self._keep_now_and_then(private)
            except BudgetExceededError:
                if self.done == 0:
                    self._leave(private, batches, fresh, interruption)
                    raise
            except BaseException as error:
                self._leave(private, batches, fresh, interruption)
                if interruption.asked and isinstance(error, Exception):  # a worker process that Ctrl-C ended, too
                    raise KeyboardInterrupt from error
                raise
            self.keep(private)

    def _apply(self, private: Private, release: Release, outlook: Outlook, show: Show | None) -> None:
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model)
        epoch = self._epoch(private.step)
        ended = epoch > self._epoch(private.step - 1)
        if ended and self.scheduler is not None:
            self.scheduler.step()
        self.history.norms.append(release.max_grad_norms)
        self.done = private.step
        for callback in self.callbacks:
            if isinstance(callback, OnStep):
                callback.on_step(self.done, self.model, release)
        self.told = self.done
        looking = [callback for callback in self.callbacks if isinstance(callback, OnEpoch)] if ended else []
        if show is None and not looking:
            return
        reached = Reached(
            step=self.done,
            total_steps=self.plan.total_steps,
            epoch=epoch,
            max_grad_norms=private.max_grad_norms,
            epsilon=outlook.upper(self.done),
            delta=self.plan.delta,
            budget=self.plan.budget,
            test_run=private.test_run,
        )
        if show is not None:
            show(reached)
        for one in looking:
            one.on_epoch(epoch, self.model, reached)

    def _epoch(self, step: int) -> int:
        return int(step * self.plan.sampling_rate * (1.0 + 1e-12))

    def _leave(self, private: Private, batches: Any, fresh: bool, interruption: Interruption) -> None:
        """Settle, and keep what is whole: nothing from inside a step."""
        batches.close()
        unused = fresh and self.done == 0 and private.ledger.contents().runs[-1].reserved == 0
        if unused and self.path is not None:
            self.path.unlink(missing_ok=True)  # nothing was trained or spent
        elif private.step == self.done and self._whole and not interruption.forced:
            self.keep(private)

    @property
    def _whole(self) -> bool:
        """Whether no callback has a state of the step before."""
        return self.told == self.done or not any(isinstance(callback, Stateful) for callback in self.callbacks)

    def result(self, private: Private) -> FitResult:
        """What there is to say, once training ended."""
        if self.average is not None:
            self.model.load_state_dict(self.average.state)
        self.optimizer.zero_grad(set_to_none=True)
        statement = private.statement()
        plan = self.plan
        if statement.whole_plan:
            spent = private.spent()
        else:
            spent = Spent(statement.epsilon, plan.delta, self.done, plan.total_steps, private.test_run)
        noise = plan.noise_multipliers
        history = (StepRecord(n, noise[n - 1], norms) for n, norms in enumerate(self.history.norms, start=1))
        return FitResult(self.model, statement, spent, tuple(history))


class _History:
    """The clip norms of all steps, as a checkpoint keeps them."""

    def __init__(self) -> None:
        self.norms: list[tuple[float, ...]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"max_grad_norms": torch.tensor(self.norms, dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.norms = [tuple(norms) for norms in state["max_grad_norms"].tolist()]


class _Held:
    """Takes the private state out of a checkpoint; ``make_private`` checks it against the ledger."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.state = dict(state)
