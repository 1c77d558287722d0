"""One private step, and one private epoch, next to ordinary SGD and to Opacus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.dp_networks import ResNet18GN, SmallGPT, TextLSTM
from benchmarks.dp_peers import MODES, Data, Opacus, dp_lstm, find_opacus
from benchmarks.harness import Call, Work
from privet import data
from privet.dp import FixedNorm, Plan, make_private
from privet.errors import FileFormatError
from privet.models import MLP, LeNet5
from privet.models.initialisation import seeded

NAME = "dp-step"
_SIGMA, _MAX_GRAD_NORM, _LEARNING_RATE, _DELTA = 1.0, 1.0, 0.05, 1e-5
_STEPS = 10_000  # that the plan of a step's method allows: more than are measured
_EPOCH = 256
_OPACUS = Opacus(_SIGMA, _MAX_GRAD_NORM, _LEARNING_RATE)

SetUp = Callable[[], Call]


@dataclass(frozen=True)
class _Task:
    name: str
    model: Callable[[], nn.Module]
    batch_size: int
    data: Callable[[int], Data]
    rounds: int
    peer: Callable[[], nn.Module] | None = None  # what stands for the model with Opacus
    without: tuple[tuple[str, str], ...] = ()  # methods that cannot do it, and why


def _images(*shape: int) -> Callable[[int], Data]:
    def data(count: int) -> Data:
        generator = torch.Generator().manual_seed(0)
        return torch.rand(count, *shape, generator=generator), torch.randint(10, (count,), generator=generator)

    return data


def _text(count: int) -> Data:
    """Tokens and the next ones, (B, T) each."""
    text = torch.randint(1000, (count, 129), generator=torch.Generator().manual_seed(0))
    return text[:, :-1].contiguous(), text[:, 1:].contiguous()


def _sentences(count: int) -> Data:
    """Tokens (B, 64), and classes (B,)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(10_000, (count, 64), generator=generator), torch.randint(10, (count,), generator=generator)


_TASKS = (
    _Task("lenet5-256", lambda: LeNet5(seed=0), 256, _images(1, 28, 28), 61),
    _Task("lenet5-1024", lambda: LeNet5(seed=0), 1024, _images(1, 28, 28), 31),
    _Task("mlp-256", lambda: MLP((784, 1024, 1024, 10), seed=0), 256, _images(784), 15),
    _Task("resnet18gn-64", lambda: _seeded(ResNet18GN), 64, _images(3, 32, 32), 5),
    _Task("gpt-32", lambda: _seeded(SmallGPT), 32, _text, 9),
    _Task(
        "gpt-tied-32",
        lambda: _seeded(partial(SmallGPT, tied=True)),
        32,
        _text,
        9,
        without=(("opacus-ghost", "it does not take tied parameters"),),
    ),
    _Task("lstm-64", lambda: _seeded(TextLSTM), 64, _sentences, 15, peer=lambda: _seeded(partial(TextLSTM, dp_lstm()))),
)


def works() -> list[Work]:
    """The steps of some networks, and an epoch of real data where there are any."""
    missing = _missing()
    works = [_step(task, missing) for task in _TASKS]
    try:
        examples = data.fashion_mnist()
    except FileFormatError as error:
        missing = {**missing, "the work fashion-epoch": str(error)}
        return [*works[:-1], _step(_TASKS[-1], missing)]
    return [*works, _epoch((examples.inputs, examples.labels), missing)]


def _missing() -> dict[str, str]:
    missing = {}
    reason = find_opacus()
    if reason is not None:
        missing.update({f"opacus-{mode}": reason for mode in MODES})
    return missing


def _step(task: _Task, missing: dict[str, str]) -> Work:
    methods: dict[str, SetUp] = {"plain": lambda: _plain(task), "privet": lambda: _privet(task)}
    methods.update({f"opacus-{mode}": _opacus(task, mode) for mode in MODES})
    missing = {**missing, **{name: why for name, why in task.without if name not in missing}}
    here = {name: set_up for name, set_up in methods.items() if name not in missing}
    return Work(task.name, here, baseline="plain", rounds=task.rounds, missing=missing, memory_calls=4)


def _plain(task: _Task) -> Call:
    inputs, labels = task.data(task.batch_size)
    step = _plain_step(task.model().train())
    return lambda: step((inputs, labels))


def _privet(task: _Task) -> Call:
    steps = _privet_steps(task)
    next(steps)
    return lambda: next(steps)


def _privet_steps(task: _Task) -> Iterator[None]:
    """Of a plan whose expected batch is the whole data set, so that every batch is the same."""
    examples, model = task.data(task.batch_size), task.model().train()
    plan = _plan(task.batch_size, task.batch_size, _STEPS)
    with (
        TemporaryDirectory() as folder,
        make_private(model, plan, ledger=Path(folder) / "run.ledger") as private,
    ):
        optimizer = torch.optim.SGD(model.parameters(), lr=_LEARNING_RATE)
        yield  # what comes before is set up, and not timed
        for batch in private.batches(examples):
            private.backward(partial(_per_example_loss, model), batch)
            optimizer.step()
            yield


def _opacus(task: _Task, mode: str) -> SetUp:
    def set_up() -> Call:
        model = (task.peer or task.model)()
        examples, step = task.data(task.batch_size), _OPACUS.step(mode, model, task.batch_size)
        return lambda: step(examples)

    return set_up


def _epoch(examples: Data, missing: dict[str, str]) -> Work:
    """The peers once with their own DataLoader, which collates one example at a time, and once without."""
    methods: dict[str, SetUp] = {"plain": lambda: lambda: _plain_epoch(examples)}
    methods["privet"] = lambda: lambda: _privet_epoch(examples)
    for mode in MODES:
        methods[f"opacus-{mode}"] = _opacus_epoch(mode, examples, own_loader=True)
    for mode in MODES:
        methods[f"opacus-{mode}, batches as those of privet"] = _opacus_epoch(mode, examples, own_loader=False)
    here = {name: set_up for name, set_up in methods.items() if name.partition(",")[0] not in missing}
    return Work("fashion-epoch", here, baseline="plain", rounds=3, missing=missing)


def _plain_epoch(examples: Data) -> None:
    step = _plain_step(LeNet5(seed=0).train())
    for indices in torch.split(torch.randperm(len(examples[1])), _EPOCH):
        step((examples[0][indices], examples[1][indices]))


def _privet_epoch(examples: Data) -> None:
    model, size = LeNet5(seed=0).train(), len(examples[1])
    plan = _plan(size, _EPOCH, -(-size // _EPOCH))
    with (
        TemporaryDirectory() as folder,
        make_private(model, plan, ledger=Path(folder) / "run.ledger") as private,
    ):
        optimizer = torch.optim.SGD(model.parameters(), lr=_LEARNING_RATE)
        for batch in private.batches(examples):
            private.backward(partial(_per_example_loss, model), batch)
            optimizer.step()


def _opacus_epoch(mode: str, examples: Data, *, own_loader: bool) -> SetUp:
    if own_loader:
        return lambda: lambda: _OPACUS.epoch(mode, LeNet5(seed=0), examples, _EPOCH)
    return lambda: lambda: _OPACUS.epoch_of(mode, LeNet5(seed=0), _poisson(examples), _EPOCH)


def _poisson(examples: Data) -> Iterator[Data]:
    """Poisson samples by direct indexing; that none is empty is all but certain at this rate."""
    size = len(examples[1])
    for _ in range(-(-size // _EPOCH)):
        indices = (torch.rand(size) < _EPOCH / size).nonzero().squeeze(1)
        yield examples[0][indices], examples[1][indices]


def _plan(dataset_size: int, expected_batch_size: int, steps: int) -> Plan:
    return Plan(
        dataset_size=dataset_size,
        expected_batch_size=expected_batch_size,
        steps=steps,
        delta=_DELTA,
        noise=_SIGMA,
        clipping=FixedNorm(_MAX_GRAD_NORM),
    )


def _plain_step(model: nn.Module) -> Callable[[Data], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=_LEARNING_RATE)

    def step(given: Data) -> None:
        optimizer.zero_grad(set_to_none=True)
        logits, labels = model(given[0]), given[1]
        loss = functional.cross_entropy(logits.flatten(0, labels.dim() - 1), labels.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _per_example_loss(model: nn.Module, given: Data) -> Tensor:
    logits, labels = model(given[0]), given[1]
    losses = functional.cross_entropy(logits.flatten(0, labels.dim() - 1), labels.flatten(), reduction="none")
    return losses.view(len(labels), -1).mean(1)  # (B,): of a sequence, the mean over its tokens


def _seeded(network: Callable[[], nn.Module]) -> nn.Module:
    with seeded(0):
        return network()
