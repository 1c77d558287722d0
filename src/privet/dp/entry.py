"""The way in: a model, a plan and a ledger become a private training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed import ProcessGroup

from privet.accounting.ledger import Ledger
from privet.dp.books import NOT_PRIVATE, Books, open_ledger
from privet.dp.guard import refuse_watched
from privet.dp.per_example.engine import Engine
from privet.dp.plan import Plan
from privet.dp.private import Private, TestRun
from privet.dp.ranks import Ranks, ranks_here
from privet.errors import ArgumentError, CheckpointError, PrivateTrainingError

__all__ = ["make_private"]


def make_private(
    model: nn.Module,
    plan: Plan,
    *,
    ledger: str | Path | Ledger | None,
    resume: Mapping[str, Any] | None = None,
    max_physical_batch: int | None = None,
    reserve_ahead: int = 16,
    diagnostics: bool = False,
    test_run: TestRun | None = None,
    process_group: ProcessGroup | None = None,
) -> Private:
    """Make an ordinary training loop differentially private.

    The model stays as it is: the same object, classes and ``state_dict`` keys; any optimizer goes on working.

    Args:
        model: its layers have to treat examples apart; see :func:`privet.dp.doctor`.
        plan: everything that decides the guarantee.
        ledger: where what is spent is recorded before it is: a file (made where there is none; one that exists is
            added to, and all its runs count), or an open ledger. Of several ranks others than 0 may give None.
        resume: what :meth:`Private.state_dict` gave, from a checkpoint; the model's weights are loaded by the caller.
        max_physical_batch: most examples to go through the model at once; None to choose by the memory there is.
            Changes no guarantee, and the result by rounding alone.
        reserve_ahead: how many steps are put on the ledger at once. A crash costs what was reserved and not drawn.
        diagnostics: keep what the last step saw of the data, which epsilon does not cover.
        test_run: makes the run repeatable and **not private**; it is stamped so wherever it is reported.
        process_group: the ranks that train this model together; None for all, where ``torch.distributed`` runs. Each
            calls this with the same arguments and has all of the data; the model becomes that of rank 0, which alone
            has the ledger. Ranks wait for each other as long as those of the group do.

    Returns:
        What draws batches and takes private steps.

    Guarantees:
        The released gradients and clip norms of all steps are (epsilon, delta)-differentially private as
        ``plan.epsilon()`` says, for data sets that differ by the plan's neighbouring relation, up to floating-point
        arithmetic. Assumes that preprocessing, the choice of model and plan, and the initial weights do not depend on
        the private data, or are accounted for elsewhere.

    Raises:
        UnsupportedLayerError: a layer's per-example gradients are not known, by name, with what to do.
        PrivateTrainingError: nothing is trainable; dtypes are mixed.
        ArgumentError: a value is out of range.
        LedgerError: the ledger is held elsewhere, is damaged, or belongs to something else.
        CheckpointError: ``resume`` is not of this plan or model.

    Example:
        >>> import torch, torch.nn.functional as F
        >>> from privet import accounting, dp
        >>> x, y = torch.randn(1000, 8), torch.randint(0, 2, (1000,))
        >>> model = nn.Linear(8, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> plan = dp.Plan(dataset_size=1000, expected_batch_size=50, steps=3, delta=1e-5, noise=1.0)
        >>> ledger = accounting.Ledger.in_memory(plan.relation, plan.unit)
        >>> private = make_private(model, plan, ledger=ledger)
        >>> for batch in private.batches((x, y)):
        ...     release = private.backward(lambda d: F.cross_entropy(model(d[0]), d[1], reduction="none"), batch)
        ...     optimizer.step()
        >>> print(private.spent())
        epsilon <= 1.281 (not below 1.280) at delta 1e-05, 3 of 3 steps

    References:
        Abadi et al., "Deep learning with differential privacy", 2016, algorithm 1.
    """
    network: object = model
    weights = network.parameters() if isinstance(network, nn.Module) else iter(())
    ranks = ranks_here(next((one.device for one in weights), torch.device("cpu")), process_group)

    def prepare() -> Engine:
        if not isinstance(network, nn.Module):
            raise ArgumentError("model", type(network).__name__, "an nn.Module")
        given: object = plan
        if not isinstance(given, Plan):
            raise ArgumentError("plan", type(given).__name__, "a Plan", "The optimizer stays yours; it is not given.")
        state: object = resume
        if state is not None and not isinstance(state, Mapping):
            raise ArgumentError("resume", state, "what private.state_dict() gave, from a checkpoint")
        if ledger is None and ranks.rank == 0:
            raise ArgumentError(
                "ledger", None, "a file, or an open ledger", "Other ranks than 0 alone may leave it out."
            )
        _check_count("max_physical_batch", max_physical_batch)
        _check_count("reserve_ahead", reserve_ahead)
        if resume is not None:
            _check_state(resume, plan, test_run)
        refuse_watched(model)
        if ranks.size > 1:
            _refuse_expanded(model)
        return _engine(model, plan)  # a model that cannot be trained leaves no trace on the ledger

    opened: Ledger | None = None
    books: Books | None = None

    def begin() -> None:
        nonlocal opened, books
        assert ledger is not None
        head = None if resume is None else str(resume["ledger_head"])
        opened = open_ledger(ledger, plan, head, test_run=test_run is not None)
        if resume is None:
            run = opened.begin_run(plan.digest, NOT_PRIVATE if test_run else "private training")
        else:
            run = opened.resume_run(plan.digest, int(resume["run"]))
        books = Books(opened, run, plan, reserve_ahead)

    def start() -> Private:
        private = Private(
            engine,
            plan,
            books,
            ranks,
            max_physical_batch=max_physical_batch,
            test_run=test_run,
            diagnostics=diagnostics,
        )
        if resume is not None:
            private.load_state_dict(resume)
        return private

    try:
        engine = ranks.each("make_private", prepare)
        if ranks.size > 1:
            _agree(ranks, model, plan, resume, test_run, ledger)
        ranks.of_first("the ledger's opening", begin)
        private = ranks.each("the beginning", start)
    except BaseException:
        ranks.close()
        if opened is not None and opened is not ledger:
            opened.close()
        raise
    private._closes_ledger = opened is not ledger
    return private


def _refuse_expanded(model: nn.Module) -> None:
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if any(size > 1 and not step for size, step in zip(value.shape, value.stride(), strict=True)):
            raise PrivateTrainingError(
                f"the numbers of {name!r} lie in one place of the memory, where those of rank 0 cannot be put. Make it "
                "with .clone()."
            )


def _agree(
    ranks: Ranks,
    model: nn.Module,
    plan: Plan,
    resume: Mapping[str, Any] | None,
    test_run: TestRun | None,
    ledger: str | Path | Ledger | None,
) -> None:
    """Refuse ranks that were given something else than rank 0; the model becomes that of rank 0."""
    values = [*model.named_parameters(), *model.named_buffers()]
    shapes = [(name, tuple(value.shape), str(value.dtype), value.requires_grad) for name, value in values]
    ranks.same("the plan", plan.digest)
    ranks.same("the model", repr(shapes))
    ranks.same("test_run", repr(test_run))
    mine = "an open one" if isinstance(ledger, Ledger) else str(ledger)
    first = ranks.of_first("the ledger", lambda: mine)
    ranks.same("the ledger", first if ledger is None else mine)
    ranks.same("resume", json.dumps(None if resume is None else dict(resume), sort_keys=True, default=str))
    for _, value in values:
        ranks.take_over(value)


def _engine(model: nn.Module, plan: Plan) -> Engine:
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    engine = Engine(model, plan.clipping.groups(trainable) if trainable else None)
    plan.check_groups(len(engine.ranges))
    return engine


def _check_state(state: Mapping[str, Any], plan: Plan, test_run: TestRun | None) -> None:
    wanted = {"version", "plan", "step", "clipping", "run", "ledger_head", "test_run"}
    if set(state) != wanted or state["version"] != 1:
        raise CheckpointError(f"the private state has the fields {sorted(state)}, not {sorted(wanted)} of version 1.")
    if state["plan"] != plan.digest:
        raise CheckpointError(
            f"the checkpoint belongs to plan {state['plan']}, not {plan.digest}; give the plan that it was made with."
        )
    step = state["step"]
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step <= plan.total_steps:
        raise CheckpointError(f"the checkpoint is at step {step!r}; the plan has {plan.total_steps:,}.")
    if state["test_run"] != (test_run is not None):
        was = "a test run" if state["test_run"] else "private"
        raise CheckpointError(f"the checkpoint's run was {was}; it cannot go on as the other.")


def _check_count(name: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ArgumentError(name, value, "a whole number of at least 1")
