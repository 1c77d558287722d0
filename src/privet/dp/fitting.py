"""Private training in one call, for those without a loop of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from privet.accounting.ledger import Ledger
from privet.checkpoints.callbacks import check_callbacks
from privet.checkpoints.device import device_of
from privet.checkpoints.random_states import global_states, set_global_states
from privet.checkpoints.weights import save_weights
from privet.dp.averaging import Average
from privet.dp.batches import Batch
from privet.dp.entry import make_private
from privet.dp.fit_checks import (
    check_files,
    check_loss,
    check_seed,
    describe,
    make_optimizer,
    make_scheduler,
    refuse_ranks,
)
from privet.dp.fit_records import Callback, FitResult, OnEnd, OnStart
from privet.dp.fit_run import FitRun, Loss
from privet.dp.per_example.refusals import keeps_statistics
from privet.dp.plan import Plan
from privet.dp.private import TestRun
from privet.dp.progress import Show, announce, shown
from privet.errors import CheckpointError

__all__ = ["cross_entropy", "fit"]


def cross_entropy(model: nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
    """The cross-entropy of each example, (B,), of data (inputs, labels)."""
    inputs, labels = data
    return functional.cross_entropy(model(inputs), labels, reduction="none")


def fit(
    model: nn.Module,
    dataset: object,
    plan: Plan,
    *,
    ledger: str | Path | Ledger,
    loss: Loss = cross_entropy,
    learning_rate: float | None = None,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    average: float | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    max_physical_batch: int | None = None,
    workers: int = 0,
    collate: Callable[[list[Any]], Any] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    weights: str | Path | None = None,
    progress: bool | Show = True,
    callbacks: Sequence[Callback] = (),
    test_run: TestRun | None = None,
) -> FitResult:
    """Train ``model`` in place, privately, until the plan or the budget ends.

    A step that is on the ledger stays spent. A run that was killed goes on from its last checkpoint; the steps after
    it are done anew with new noise and are spent twice, so that a budget may end the run before its plan does. It then
    has the model of the last step that fits, and the statement says so.

    Ctrl-C finishes the step under way, settles the books, writes the checkpoint and goes through as
    ``KeyboardInterrupt``; a second one goes through at once.

    Args:
        model: any model :func:`privet.dp.make_private` takes; it is in training mode meanwhile, but for layers with
            running statistics that are in eval mode.
        dataset: see :func:`privet.dp.batches.data_source`; as many records as the plan says.
        plan: everything that decides the guarantee.
        ledger: a file, made where there is none, or an open ledger.
        loss: (model, data) -> losses (B,), one for each example; cross-entropy of (inputs, labels) unless given.
        learning_rate: above 0, of Adam, 0.001 unless given; not together with ``optimizer``.
        optimizer: makes the optimizer from the parameters, for example ``lambda p: SGD(p, lr=0.5)``.
        scheduler: makes a learning-rate scheduler from the optimizer; stepped after each epoch of N / B steps.
        average: decay of a moving average of the weights, such as 0.99, with which the model ends. Costs no epsilon.
        seed: of dropout and what else the model draws from torch; never of sampling or noise.
        device: where to compute, the model is moved there; None for where the model is.
        max_physical_batch: most examples to go through the model at once; None to choose by the memory there is.
        workers: processes that read a map-style data set.
        collate: makes a piece of a list of records of a map-style data set.
        checkpoint: a file written before the first step, on the way and at the end.
        checkpoint_every: steps between two checkpoints; None for a hundredth of the plan, or more where writing would
            take more than a twentieth of the time.
        resume: go on from ``checkpoint``; start anew if there is no such file and nothing was spent on this plan.
        weights: a ``.safetensors`` file for the trained weights; the statement is saved as ``<weights>.privacy.json``.
        progress: whether to show a bar on a terminal and the statement under it, or what to call after every step.
        callbacks: objects with ``on_start(model, optimizer, None, total_steps, private)``, ``on_step(step, model,
            release)``, ``on_epoch(epoch, model, reached)`` or ``on_end()``; one that also has ``state_dict`` and
            ``load_state_dict`` is kept in the checkpoint.
        test_run: makes sampling and noise repeatable and the run **not private**.

    Returns:
        The model, the statement, what was spent, and the history.

    Guarantees:
        As :func:`privet.dp.make_private`. No loss or accuracy on the private records is kept, shown or returned.

    Raises:
        ArgumentError: an argument is outside what is allowed.
        CheckpointError: the checkpoint is unreadable, of another run, in the way, or missing though steps are spent.
        LedgerError: the ledger cannot be used.
        BudgetExceededError: not one step fits the budget.
        PrivateTrainingError: the model cannot be trained privately; says what to do.

    Example:
        >>> from privet import accounting, dp
        >>> x, y = torch.randn(200, 4), torch.randint(0, 2, (200,))
        >>> plan = dp.Plan(dataset_size=200, expected_batch_size=50, epochs=2, delta=1e-3, noise=1.0)
        >>> books = accounting.Ledger.in_memory(plan.relation, plan.unit)
        >>> result = fit(nn.Linear(4, 2), (x, y), plan, ledger=books, progress=False)
        >>> result.complete, len(result.history)
        (True, 8)
    """
    refuse_ranks()
    check_loss(loss)
    check_callbacks(callbacks, Callback)
    check_seed(seed)
    saved, weights_file = check_files(checkpoint, resume, checkpoint_every, weights)
    where = device_of(model) if device is None else torch.device(device)
    model.to(where)
    with _training(model, where, seed):
        made = make_optimizer(model, optimizer, learning_rate)
        run = FitRun(
            model=model,
            plan=plan,
            optimizer=made,
            scheduler=make_scheduler(made, scheduler),
            average=None if average is None else Average(model, average),
            callbacks=tuple(callbacks),
            path=saved,
            every=checkpoint_every,
            configuration={},
        )
        run.configuration = describe(model, plan, made, run.scheduler, average, test_run)
        state = run.take_up() if resume else None
        opened = ledger
        if resume and not isinstance(ledger, Ledger) and Path(ledger).exists():
            # The lock is held: a line without an end was left by a process that is gone.
            head = None if state is None else str(state["ledger_head"])
            opened = Ledger.open(ledger, expect_head=head, accept_torn_tail=True)
        try:
            if state is None and resume and isinstance(opened, Ledger):
                _refuse_lost(opened, plan, saved)
            with (
                make_private(
                    model,
                    plan,
                    ledger=opened,
                    resume=state,
                    max_physical_batch=max_physical_batch,
                    test_run=test_run,
                ) as private,
                ExitStack() as ends,
            ):
                for callback in callbacks:
                    if isinstance(callback, OnStart):
                        callback.on_start(model, made, None, plan.total_steps, private)
                    if isinstance(callback, OnEnd):
                        ends.callback(callback.on_end)
                batches: Iterator[Batch] = (batch for batch in list[Batch]())
                if private.step < plan.total_steps:
                    batches = private.batches(dataset, device=where, workers=workers, collate=collate)
                with shown(progress, plan.total_steps) as show:
                    run.go(private, batches, loss, show)
                result = run.result(private)
        finally:
            if isinstance(opened, Ledger) and opened is not ledger:
                opened.close()
    if weights_file is not None:
        save_weights(weights_file, model)
        result.statement.save(f"{weights_file}.privacy.json")
    if progress is True:
        announce(result.statement)
    return result


def _refuse_lost(ledger: Ledger, plan: Plan, checkpoint: Path | None) -> None:
    steps = sum(run.reserved for run in ledger.contents().runs if run.plan_digest == plan.digest)
    if steps:
        raise CheckpointError(
            f"{checkpoint}: there is no such file, but {ledger.name} says that {steps:,} steps of this plan are spent. "
            "Give the checkpoint of that run; or start anew, without resuming, which spends on top of them."
        )


@contextmanager
def _training(model: nn.Module, device: torch.device, seed: int) -> Iterator[None]:
    """In training mode and with torch's global random state seeded; both are put back."""
    modes = [(module, module.training) for module in model.modules()]
    states = global_states(device)
    try:
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            torch.get_device_module(device).manual_seed(seed)
        model.train()
        for module, mode in modes:
            if not mode and keeps_statistics(module):
                module.eval()  # of public data, as the refusal advises
        with torch.enable_grad():
            yield
    finally:
        set_global_states(states, device)
        for module, mode in modes:
            module.training = mode
