"""Processes that train one model together; each scenario says what it saw, a dictionary a rank."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn, optim

from privet import dp
from privet.accounting import Ledger
from privet.errors import ArgumentError, LedgerError, PrivateTrainingError

RECORDS = 40


def records() -> tuple[Tensor, Tensor]:
    inputs = torch.randn(RECORDS, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return inputs, (inputs.sum(1) > 0).long()


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def plan(**changed: Any) -> dp.Plan:
    settings: dict[str, Any] = {
        "dataset_size": RECORDS,
        "expected_batch_size": 2,
        "steps": 12,
        "delta": 1e-3,
        "noise": 1.0,
        "clipping": dp.FixedNorm(0.5),
    }
    return dp.Plan(**settings | changed)


def loss_of(model: nn.Module) -> Callable[[Any], Tensor]:
    return lambda data: F.cross_entropy(model(data[0]), data[1], reduction="none")


def trained(folder: Path, chosen: dp.Plan, test_run: dp.TestRun | None, seed: int = 0) -> dict[str, Any]:
    """Weights, clip norms, and how many batches were empty here."""
    model = network(seed)
    empty, norms = 0, []
    with dp.make_private(model, chosen, ledger=folder / "run.ledger", test_run=test_run) as private:
        optimizer = optim.SGD(model.parameters(), lr=0.5)
        for batch in private.batches(records()):
            empty += batch.empty
            norms += private.backward(loss_of(model), batch).clipping.max_grad_norms
            optimizer.step()
    return {"weights": [value.tolist() for value in model.parameters()], "norms": norms, "empty": empty}


def without_noise(folder: Path) -> dict[str, Any]:
    """Each rank begins with weights of its own; those of rank 0 count."""
    seed = dist.get_rank() if dist.is_initialized() else 0
    return trained(folder, plan(), dp.TestRun(seed=3, noise=False), seed)


def adaptive(folder: Path) -> dict[str, Any]:
    chosen = plan(clipping=dp.AdaptiveQuantile(0.5), expected_batch_size=20)
    return trained(folder, chosen, dp.TestRun(seed=3, noise=False))


def adaptive_with_noise(folder: Path) -> dict[str, Any]:
    return trained(folder, plan(clipping=dp.AdaptiveQuantile(0.5), expected_batch_size=20), None)


def seeded_with_noise(folder: Path) -> dict[str, Any]:
    chosen = plan(clipping=dp.AdaptiveQuantile(0.5), expected_batch_size=20)
    return trained(folder, chosen, dp.TestRun(seed=3))


def noise_alone(folder: Path) -> dict[str, Any]:
    """Gradients of a loss that depends on nothing: 3 steps of 30,000 numbers, of which the standard deviation."""
    model = nn.Linear(300, 100, bias=False)
    data = torch.ones(RECORDS, 300)
    chosen = plan(steps=3, noise=2.0, expected_batch_size=4)
    stds = []
    with dp.make_private(model, chosen, ledger=folder / "run.ledger", test_run=dp.TestRun(seed=5)) as private:
        for batch in private.batches(data):
            private.backward(lambda part: 0.0 * model(part).sum(dim=1), batch)
            assert model.weight.grad is not None
            stds.append(float(model.weight.grad.double().std()))
            model.weight.detach().add_(1.0)
    return {"stds": stds}


def counting() -> dp.Plan:
    return plan(steps=8, noise=1.5, expected_batch_size=20, clipping=dp.AdaptiveQuantile(0.5))


def secret_noise(folder: Path) -> dict[str, Any]:
    """The same without a seed, and with counts of 0.05 B = 1: how far the clip norm moves off its expected way."""
    model = nn.Linear(300, 100, bias=False)
    chosen = counting()
    stds, sizes, norms = [], [], []
    with dp.make_private(model, chosen, ledger=folder / "run.ledger") as private:
        for batch in private.batches(torch.ones(RECORDS, 300)):
            sizes.append(batch.size)
            before = private.max_grad_norms[0]
            release = private.backward(lambda part: 0.0 * model(part).sum(dim=1), batch)
            assert model.weight.grad is not None
            stds.append(float(model.weight.grad.double().std()) / before)
            norms.append(release.clipping.max_grad_norms[0])
            model.weight.detach().add_(1.0)
    return {"stds": stds, "sizes": sizes, "norms": norms}


def secret_noise_again(folder: Path) -> dict[str, Any]:
    return secret_noise(folder)


def what_is_seen_in_a_step(folder: Path) -> dict[str, Any]:
    """The lengths of .grad while the loss runs, and of a view of it after the loss failed in rank 1."""
    model, seen = network(), []
    kept: Tensor | None = None
    chosen = plan(steps=3, noise=50.0, expected_batch_size=20)
    with dp.make_private(model, chosen, ledger=folder / "run.ledger", max_physical_batch=4) as private:
        for batch in private.batches(records()):
            before = None if model[0].weight.grad is None else model[0].weight.grad.clone()

            def loss(data: Any, before: Tensor | None = before, last: bool = private.step == 2) -> Tensor:
                if before is not None:
                    seen.append(bool(torch.equal(before, model[0].weight.grad)))
                if last and dist.get_rank() == 1:
                    raise ValueError("planted")
                return loss_of(model)(data)

            kept = model[0].weight.grad
            try:
                private.backward(loss, batch)
            except (ValueError, PrivateTrainingError):
                return {"seen": seen, "kept": bool(torch.equal(kept, before))}  # type: ignore[arg-type]
            model[0].weight.detach().add_(0.0)
    return {}


def resumed(folder: Path) -> dict[str, Any]:
    """Stopped after four steps, gone on with, each rank from the state that rank 0 had."""
    model, norms = network(), []
    chosen = plan(clipping=dp.AdaptiveQuantile(0.5), expected_batch_size=20)
    file = folder / "state.pt"
    for stop in (4, 12):
        resume = torch.load(file, weights_only=True) if stop == 12 else None
        with dp.make_private(model, chosen, ledger=folder / "run.ledger", resume=resume) as private:
            for batch in private.batches(records()):
                norms += private.backward(loss_of(model), batch).clipping.max_grad_norms
                model[0].weight.detach().add_(0.0)
                if private.step == stop:
                    break
            if dist.get_rank() == 0:
                torch.save(private.state_dict(), file)
            dist.barrier()
    return {"norms": norms, "steps": private.step}


def resumed_in_one(folder: Path) -> dict[str, Any]:
    state = {
        "version": 1,
        "plan": plan().digest,
        "step": 0,
        "clipping": {},
        "run": 0,
        "ledger_head": "",
        "test_run": False,
    }
    resume = state if dist.get_rank() else None
    return refused(lambda: dp.make_private(network(), plan(), ledger=folder / "run.ledger", resume=resume))


def other_ledgers(folder: Path) -> dict[str, Any]:
    return refused(lambda: dp.make_private(network(), plan(), ledger=folder / f"{dist.get_rank()}.ledger"))


def groups_of_one(folder: Path) -> dict[str, Any]:
    """Each rank trains by itself in a group of its own, and is none of the other's."""
    mine = [dist.new_group([rank]) for rank in (0, 1)]
    here = dist.get_rank()
    private = dp.make_private(network(), plan(), ledger=folder / f"{here}.ledger", process_group=mine[here])
    spent = private.spent().steps
    private.close()
    other = refused(
        lambda: dp.make_private(network(), plan(), ledger=folder / "x.ledger", process_group=mine[1 - here])
    )
    return {"steps": spent, **other}


def other_size(folder: Path) -> dict[str, Any]:
    model = network()
    inputs, labels = records()
    count = RECORDS - dist.get_rank()
    said: list[str] = []
    with dp.make_private(model, plan(), ledger=folder / "run.ledger") as private:
        try:
            private.batches((inputs[:count], labels[:count]))
        except (ArgumentError, PrivateTrainingError) as error:
            said.append(f"{type(error).__name__}: {error}")
    return {"said": said[0]}


def changed_in_one(folder: Path) -> dict[str, Any]:
    """The model, between two steps."""
    model = network()

    def begin() -> None:
        with dp.make_private(model, plan(), ledger=folder / "run.ledger") as private:
            for batch in private.batches(records()):
                if dist.get_rank() == 1 and private.step == 2:
                    model[1] = nn.ReLU()
                private.backward(loss_of(model), batch)
                model[0].weight.detach().add_(0.0)

    return refused(begin)


def at_another_place(folder: Path) -> dict[str, Any]:
    """Rank 0 leaves the loop at step 3 and begins another."""
    model = network()

    def begin() -> None:
        with dp.make_private(model, plan(), ledger=folder / "run.ledger") as private:
            for _ in range(2):
                for batch in private.batches(records()):
                    private.backward(loss_of(model), batch)
                    model[0].weight.detach().add_(0.0)
                    if dist.get_rank() == 0 and private.step == 3:
                        break

    return refused(begin)


def other_arrays(folder: Path) -> dict[str, Any]:
    """Of NumPy, in another order in rank 1."""
    inputs, labels = (part.numpy() for part in records())
    order = np.roll(np.arange(RECORDS), dist.get_rank())
    return refused(lambda: _begin(folder, _Records(inputs[order], labels[order], as_tensors=False)))


def augmented(folder: Path) -> dict[str, Any]:
    """Images with noise drawn at each reading, and labels."""
    inputs, labels = records()
    return refused(lambda: _begin(folder, _Records(inputs, labels, noise=True)))


def augmented_by_workers(folder: Path) -> dict[str, Any]:
    inputs, labels = records()
    return refused(lambda: _begin(folder, _Records(inputs, labels, noise=True), workers=1))


def augmented_in_another_order(folder: Path) -> dict[str, Any]:
    inputs, labels = records()
    order = torch.arange(RECORDS).roll(dist.get_rank())
    return refused(lambda: _begin(folder, _Records(inputs[order], labels[order], noise=True)))


def augmented_by_its_own_generator(folder: Path) -> dict[str, Any]:
    """Only the labels are the same at each reading, and they are alike in another order within the classes."""
    inputs, labels = records()
    order = labels.argsort(stable=True)
    if dist.get_rank():
        count = int((labels == 0).sum())
        order = torch.cat([order[:count].flip(0), order[count:].flip(0)])
    return refused(lambda: _begin(folder, _Records(inputs[order], labels[order], generator=torch.Generator())))


def augmented_by_its_own_generator_and_numbered(folder: Path) -> dict[str, Any]:
    inputs, _ = records()
    return refused(lambda: _begin(folder, _Records(inputs, torch.arange(RECORDS), generator=torch.Generator())))


class _Records:
    def __init__(
        self,
        inputs: Any,
        labels: Any,
        noise: bool = False,
        as_tensors: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        self._generator = generator
        self._inputs, self._labels, self._noise, self.as_tensors = inputs, labels, noise, as_tensors

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Any:
        found = self._inputs[index]
        if self._generator is not None:
            found = found + torch.randn(6, dtype=torch.float64, generator=self._generator)
        return (found + torch.randn(6, dtype=torch.float64) if self._noise else found), self._labels[index]


def a_layer_that_is_not_known(folder: Path) -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5) if dist.get_rank() else nn.Tanh())
    return _said(lambda: dp.make_private(model, plan(), ledger=folder / "run.ledger"))


def a_gradient_of_what_is_frozen(folder: Path) -> dict[str, Any]:
    model = network()
    model[0].requires_grad_(False)
    if dist.get_rank():
        model[0].weight.grad = torch.zeros_like(model[0].weight)
    return _said(lambda: dp.make_private(model, plan(), ledger=folder / "run.ledger"))


def a_plan_that_is_none(folder: Path) -> dict[str, Any]:
    given: Any = plan() if dist.get_rank() else None
    return _said(lambda: dp.make_private(network(), given, ledger=folder / "run.ledger"))


def float16(folder: Path) -> dict[str, Any]:
    def begin(model: nn.Module, step: int) -> Any:
        half = dist.get_rank() == 1 and step == 2
        return torch.autocast("cpu", dtype=torch.float16 if half else torch.bfloat16, enabled=half)

    return _said(lambda: _steps(folder, begin))


def still_weights(folder: Path) -> dict[str, Any]:
    """Rank 1 takes warnings for errors."""

    def begin(model: nn.Module, step: int) -> Any:
        if dist.get_rank():
            warnings.simplefilter("error")
        return contextlib.nullcontext()

    with warnings.catch_warnings():
        return _said(lambda: _steps(folder, begin, moving=False))


def a_record_that_cannot_be_read(folder: Path) -> dict[str, Any]:
    """In rank 1, from step 2 on."""

    class Broken(_Records):
        def __getitem__(self, index: int) -> Any:
            if dist.get_rank() and self.broken:
                raise OSError("planted")
            return super().__getitem__(index)

    data = Broken(*records())
    data.broken = False

    def begin(model: nn.Module, step: int) -> Any:
        data.broken = step == 2
        return contextlib.nullcontext()

    return _said(lambda: _steps(folder, begin, data))


def open_ledger(folder: Path) -> dict[str, Any]:
    """Rank 0 opened it itself, and the other gives none."""
    model = network()
    ledger = None if dist.get_rank() else Ledger.create(folder / "run.ledger", plan().relation, plan().unit)
    steps = 0
    with dp.make_private(model, plan(), ledger=ledger) as private:
        for batch in private.batches(records()):
            private.backward(loss_of(model), batch)
            model[0].weight.detach().add_(0.0)
            steps += 1
    if ledger is not None:
        steps = sum(event.count for event in ledger.events())
        ledger.close()
    return {"steps": steps}


def no_ledger(folder: Path) -> dict[str, Any]:
    return _said(lambda: dp.make_private(network(), plan(), ledger=None))


def how_long_ranks_wait(folder: Path) -> dict[str, Any]:
    with dp.make_private(network(), plan(), ledger=folder / "run.ledger") as private:
        return {"seconds": private._ranks._talk.options._timeout.total_seconds()}  # type: ignore[attr-defined]


def where_ranks_talk(folder: Path) -> dict[str, Any]:
    """Once it is closed nowhere: how many files six trainings leave open."""
    descriptors = Path("/proc/self/fd")
    opened: list[int] = []
    for number in range(7):
        private = dp.make_private(network(), plan(), ledger=folder / f"{number}.ledger")
        private.close()
        opened.append(len(list(descriptors.iterdir())) if descriptors.exists() else 0)
    return {"more": opened[-1] - opened[0]}


def groups_of_some(folder: Path) -> dict[str, Any]:
    """Of three ranks two train in a group of theirs, and then all; the third is in one group less."""
    some = dist.new_group([0, 1])
    steps = []
    for number, group in enumerate((some, None, some)):
        if group is not None and dist.get_rank() == 2:
            continue
        model = network()
        file = folder / f"{number}.ledger"
        with dp.make_private(model, plan(), ledger=file, process_group=group) as private:
            for batch in private.batches(records()):
                private.backward(loss_of(model), batch)
                model[0].weight.detach().add_(0.0)
        steps.append(private.step)
    return {"steps": steps}


def a_wrapper_in_the_loss(folder: Path) -> dict[str, Any]:
    model = network()
    wrapped = nn.parallel.DistributedDataParallel(model)

    def step() -> None:
        with dp.make_private(model, plan(expected_batch_size=30), ledger=folder / "run.ledger") as private:
            batches = private.batches(records())
            private.backward(loss_of(wrapped), next(batches))

    given = _said(lambda: dp.make_private(wrapped, plan(), ledger=folder / "x.ledger"))
    return {**_said(step), "given": given["said"]}


def other_weights(folder: Path) -> dict[str, Any]:
    """Another learning rate in rank 1, and in rank 0 alone one weight that is another at the last step."""
    said = {}
    for what in ("rate", "last"):
        model = network()
        rate = 0.1 if what == "rate" and dist.get_rank() else 0.5
        optimizer = optim.SGD(model.parameters(), lr=rate)
        with (
            warnings.catch_warnings(record=True) as caught,
            dp.make_private(model, plan(), ledger=folder / f"{what}.ledger") as private,
        ):
            warnings.simplefilter("always")
            for batch in private.batches(records()):
                private.backward(loss_of(model), batch)
                optimizer.step()
                if what == "last" and private.step == 12 and dist.get_rank() == 0:
                    model[0].bias.detach()[0].add_(1.0)
        said[what] = [str(one.message)[:40] for one in caught if one.filename == __file__]
    return said


def closed(folder: Path) -> dict[str, Any]:
    model = network()
    private = dp.make_private(model, plan(), ledger=folder / "run.ledger")
    batches = private.batches(records())
    next(batches)
    private.close()
    said = _said(lambda: next(batches))
    return {**said, "again": _said(lambda: private.batches(records()))["said"]}


def one_that_leaves(folder: Path) -> dict[str, Any]:
    """Rank 0 leaves at step 3, closes, and waits for the other, which is still in the loop."""
    model = network()
    with dp.make_private(model, plan(), ledger=folder / "run.ledger") as private:

        def train() -> None:
            for batch in private.batches(records()):
                private.backward(loss_of(model), batch)
                model[0].weight.detach().add_(0.0)
                if private.step == 3 and dist.get_rank() == 0:
                    break

        found = _said(train)
    dist.barrier()
    return found


def the_key_of_the_sample(folder: Path) -> dict[str, Any]:
    """How many bytes the system is asked for when a loop begins."""
    asked: list[int] = []
    urandom = os.urandom

    def recorded(count: int) -> bytes:
        asked.append(count)
        return urandom(count)

    with dp.make_private(network(), plan(), ledger=folder / "run.ledger") as private:
        os.urandom = recorded
        try:
            private.batches(records())
        finally:
            os.urandom = urandom
    return {"most": max(asked, default=0)}


def no_model(folder: Path) -> dict[str, Any]:
    given: Any = network() if dist.get_rank() else network().parameters()
    return _said(lambda: dp.make_private(given, plan(), ledger=folder / "run.ledger"))


def an_expanded_buffer(folder: Path) -> dict[str, Any]:
    model = network()
    model.register_buffer("scale", torch.ones(1).expand(5))
    return _said(lambda: dp.make_private(model, plan(), ledger=folder / "run.ledger"))


def no_group(folder: Path) -> dict[str, Any]:
    given: Any = [0, 1]
    return _said(lambda: dp.make_private(network(), plan(), ledger=folder / "run.ledger", process_group=given))


def a_ledger_that_cannot_be_settled(folder: Path) -> dict[str, Any]:
    """At the end of the loop, in rank 0."""

    def begin() -> None:
        model = network()
        with dp.make_private(model, plan(), ledger=folder / "run.ledger") as private:
            for batch in private.batches(records()):
                private.backward(loss_of(model), batch)
                model[0].weight.detach().add_(0.0)
                if private.step == 12 and dist.get_rank() == 0:
                    private._books.settle = _fail  # type: ignore[method-assign]

    return _said(begin)


def _fail() -> None:
    raise LedgerError("planted")


def what_the_model_holds(folder: Path) -> dict[str, Any]:
    """A weight, one that is frozen, and a buffer, others in each rank."""
    model = network(dist.get_rank())
    model[2].requires_grad_(False)
    model.register_buffer("scale", torch.full((3,), float(dist.get_rank())))
    model.register_buffer("rough", torch.full((3,), float(dist.get_rank()), dtype=torch.bfloat16))
    wanted = {name: value.tolist() for name, value in model.state_dict().items()}
    dp.make_private(model, plan(), ledger=folder / "run.ledger").close()
    return {"before": wanted, "after": {name: value.tolist() for name, value in model.state_dict().items()}}


def models_of_one_shape(folder: Path) -> dict[str, Any]:
    """Of another type, with other names, one frozen, and of another order in rank 1."""
    other = dist.get_rank()

    def of_names(*names: str) -> nn.Module:
        return nn.ModuleDict({name: nn.Linear(4, 4) for name in names})

    frozen = of_names("a", "b")
    frozen["b"].requires_grad_(not other)
    given = {
        "type": of_names("a").double() if other else of_names("a"),
        "names": of_names("b") if other else of_names("a"),
        "frozen": frozen,
        "order": of_names("b", "a") if other else of_names("a", "b"),
    }
    return {
        what: _said(lambda model=model: dp.make_private(model, plan(), ledger=folder / "run.ledger"))
        for what, model in given.items()
    }


def a_budget_that_ends(folder: Path) -> dict[str, Any]:
    """What another run spent leaves few steps; rank 0 alone knows, and says so once."""
    model = network()
    _spend(folder)
    chosen = plan(target_epsilon=3.0)
    with (
        warnings.catch_warnings(record=True) as caught,
        dp.make_private(model, chosen, ledger=folder / "run.ledger") as private,
    ):
        warnings.simplefilter("always")
        for batch in private.batches(records()):
            private.backward(loss_of(model), batch)
            model[0].weight.detach().add_(0.0)
    said = [Path(one.filename).name for one in caught if "fit its budget" in str(one.message)]
    return {"steps": private.step, "said": said}


def a_budget_that_ends_is_an_error(folder: Path) -> dict[str, Any]:
    """Rank 0 takes warnings for errors."""
    _spend(folder)
    private = dp.make_private(network(), plan(target_epsilon=3.0), ledger=folder / "run.ledger")
    with warnings.catch_warnings():
        if dist.get_rank() == 0:
            warnings.simplefilter("error")
        return _said(lambda: next(private.batches(records())))


def _spend(folder: Path) -> None:
    if dist.get_rank() == 0:
        chosen = plan(noise=1.5)
        with Ledger.create(folder / "run.ledger", chosen.relation, chosen.unit) as ledger:
            run = ledger.begin_run("another", "another")
            run.reserve(chosen.events(0, 8))
            run.confirm(8)
    dist.barrier()


class _Moving(dp.AdaptiveQuantile):
    """Another last digit in rank 1, and an error in one rank at step 2."""

    fails = -1
    steps = 0

    def update(self, state: Any, noisy_fractions: Any) -> Any:
        _Moving.steps += 1
        if dist.get_rank() == _Moving.fails and _Moving.steps == 3:
            raise ValueError("planted")
        found = super().update(state, noisy_fractions)
        return type(found)(tuple(norm * (1.0 + 1e-12 * dist.get_rank()) for norm in found.max_grad_norms))


class _Still(dp.FixedNorm):
    """Counts nothing, so that each rank moves it by itself."""

    moves = 0.0

    def update(self, state: Any, noisy_fractions: Any) -> Any:
        _Moving.steps += 1
        if dist.get_rank() == _Moving.fails and _Moving.steps == 3:
            raise ValueError("planted")
        return type(state)(tuple(norm * (1.0 + _Still.moves * dist.get_rank()) for norm in state.max_grad_norms))


def clip_norms_that_differ_in_a_digit(folder: Path) -> dict[str, Any]:
    _Moving.fails, _Moving.steps = -1, 0
    return trained(folder, plan(clipping=_Moving(0.5), expected_batch_size=20), None)


def clip_norms_that_differ_without_counts(folder: Path) -> dict[str, Any]:
    _Moving.fails, _Still.moves = -1, 1e-12
    found = _said(lambda: trained(folder, plan(clipping=_Still(0.5)), None))
    _Still.moves = 0.0
    return found


def a_strategy_that_fails(folder: Path) -> dict[str, Any]:
    """After the sum: one that counts in rank 0, one that does not in rank 1."""
    said = {}
    for rank, clipping in enumerate((_Moving(0.5), _Still(0.5))):
        _Moving.fails, _Moving.steps = rank, 0
        here = folder / str(rank)
        here.mkdir(exist_ok=True)
        said[str(rank)] = _said(
            lambda clipping=clipping, here=here: trained(here, plan(clipping=clipping, expected_batch_size=20), None)
        )["said"]
    return said


def other_records_at_the_end(folder: Path) -> dict[str, Any]:
    """The last two records change places in rank 1; the labels are alike."""
    inputs, labels = records()
    order = torch.arange(RECORDS)
    if dist.get_rank():
        order = torch.cat([order[:-2], order[-2:].flip(0)])
    return refused(lambda: _begin(folder, _Records(inputs[order], torch.zeros_like(labels))))


def _steps(folder: Path, begin: Callable[[nn.Module, int], Any], data: Any = None, moving: bool = True) -> None:
    model = network().float()
    inputs, labels = records()
    given = (inputs.float(), labels) if data is None else data
    chosen = plan(expected_batch_size=20)
    with dp.make_private(model, chosen, ledger=folder / "run.ledger") as private:
        for batch in private.batches(given):
            with begin(model, private.step):
                private.backward(lambda part: loss_of(model)((part[0].float(), part[1])), batch)
            if moving:
                model[0].weight.detach().add_(0.0)


def _said(run: Callable[[], Any]) -> dict[str, Any]:
    """The error of any kind."""
    try:
        run()
    except Exception as error:
        return {"said": f"{type(error).__name__}: {error}"}
    return {}


def _begin(folder: Path, data: _Records, workers: int = 0) -> None:
    collate = None if data.as_tensors else (lambda rows: tuple(np.stack(part) for part in zip(*rows, strict=True)))
    with dp.make_private(network(), plan(), ledger=folder / "run.ledger") as private:
        next(private.batches(data, collate=collate, workers=workers))


def noise_on_every_rank(folder: Path) -> dict[str, Any]:
    begin = dp.Private._begin

    def noisy(self: dp.Private) -> Any:
        step = begin(self)
        if self._noise is None:
            from privet.dp.keystream import KeyStream
            from privet.dp.noise import Noise

            std = step._sigma.gradient_stds[0] / self.plan.expected_batch_size
            Noise(KeyStream.seeded(9, "noise")).normal_(step._flat, std)
        return step

    dp.Private._begin = noisy  # type: ignore[method-assign]
    return noise_alone(folder)


def own_sample(folder: Path) -> dict[str, Any]:
    """Planted: each rank draws with a key of its own."""
    dp.Private._shared_stream = lambda self: __import__(  # type: ignore[method-assign]
        "privet.dp.keystream", fromlist=["KeyStream"]
    ).KeyStream.secret()
    return refused(lambda: trained(folder, plan(), None))


def seeded_in_one(folder: Path) -> dict[str, Any]:
    return refused(lambda: trained(folder, plan(), dp.TestRun(seed=0) if dist.get_rank() else None))


def other_seeds(folder: Path) -> dict[str, Any]:
    return refused(lambda: trained(folder, plan(), dp.TestRun(seed=dist.get_rank())))


def other_plans(folder: Path) -> dict[str, Any]:
    return refused(lambda: trained(folder, plan(noise=1.0 + dist.get_rank()), None))


def other_models(folder: Path) -> dict[str, Any]:
    model = nn.Linear(6, 2 + dist.get_rank())
    return refused(lambda: dp.make_private(model, plan(), ledger=folder / "run.ledger"))


def other_data(folder: Path) -> dict[str, Any]:
    """Shuffled in one rank: a number is another record there, and a record could be in two shares."""
    model = network()
    inputs, labels = records()
    order = torch.arange(RECORDS).roll(dist.get_rank())

    def begin() -> None:
        with dp.make_private(model, plan(), ledger=folder / "run.ledger") as private:
            next(private.batches((inputs[order], labels[order])))

    return refused(begin)


def a_step_that_fails(folder: Path) -> dict[str, Any]:
    """The loss fails in rank 1 at step 3; both go on with the same records afterwards."""
    model = network()
    said: list[str] = []
    with dp.make_private(model, plan(expected_batch_size=20), ledger=folder / "run.ledger") as private:
        optimizer = optim.SGD(model.parameters(), lr=0.5)
        while private.step < private.plan.total_steps:
            try:
                for batch in private.batches(records()):
                    fails = dist.get_rank() == 1 and private.step == 3 and not said

                    def loss(data: Any, fails: bool = fails) -> Tensor:
                        if fails:
                            raise ValueError("planted")
                        return loss_of(model)(data)

                    private.backward(loss, batch)
                    optimizer.step()
            except (ValueError, PrivateTrainingError) as error:
                said.append(f"{type(error).__name__}: {error}")
    events = 0
    if dist.get_rank() == 0:
        with Ledger.open(folder / "run.ledger") as ledger:
            events = sum(event.count for event in ledger.events())
    return {"said": said, "weights": [value.tolist() for value in model.parameters()], "events": events}


def killed(folder: Path) -> dict[str, Any]:
    """Rank 1 dies in the fourth step, after it was reserved."""
    model = network()
    said = ""
    private = dp.make_private(model, plan(), ledger=folder / "run.ledger", reserve_ahead=1)
    try:
        for batch in private.batches(records()):
            if private.step == 3 and dist.get_rank() == 1:
                os.kill(os.getpid(), 9)
            private.backward(loss_of(model), batch)
            model[0].weight.detach().add_(0.0)
    except PrivateTrainingError as error:
        said = str(error)
    return {"said": said, "steps": private.step}


def skipped_when_empty(folder: Path) -> dict[str, Any]:
    """Planted: rank 1 does not step where it has no record."""
    model = network()

    def begin() -> None:
        with dp.make_private(model, plan(), ledger=folder / "run.ledger") as private:
            for batch in private.batches(records()):
                if dist.get_rank() == 1 and batch.empty:
                    continue
                private.backward(loss_of(model), batch)
                model[0].weight.detach().add_(0.0)

    return refused(begin)


def who_has_the_ledger(folder: Path) -> dict[str, Any]:
    model = network()
    with dp.make_private(model, plan(), ledger=folder / "run.ledger") as private:
        asked = [
            lambda: private.spent(),
            lambda: private.statement(),
            lambda: private.state_dict(),
            lambda: private.ledger,
        ]
        return {"said": [refused(ask).get("said", "") for ask in asked]}


def fit(folder: Path) -> dict[str, Any]:
    return refused(lambda: dp.fit(network(), records(), plan(), ledger=folder / "run.ledger", progress=False))


def refused(run: Callable[[], Any]) -> dict[str, Any]:
    try:
        run()
    except PrivateTrainingError as error:
        return {"said": str(error)}
    return {}


def together(names: list[str], folder: Path) -> None:
    """One rank's main."""
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(seconds=100),
    )
    for name in names:
        here = folder / name
        here.mkdir(exist_ok=True)
        found = globals()[name](here)
        (here / f"{rank}.json").write_text(json.dumps(found))
    os._exit(0)  # a group with a rank that died does not end by itself


if __name__ == "__main__":
    together(sys.argv[2:], Path(sys.argv[1]))
