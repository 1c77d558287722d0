"""Checkpoints of live objects: save them, and put them back after checking that they belong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from privet.checkpoints.device import device_of
from privet.checkpoints.epoch_record import EpochRecord
from privet.checkpoints.optimizer_state import optimizer_layout, state_misfits
from privet.checkpoints.random_states import global_states, set_global_states
from privet.checkpoints.snapshots import Snapshot, read_snapshot, write_snapshot
from privet.checkpoints.stateful import Stateful
from privet.checkpoints.weights import describe_tensor, state_of
from privet.errors import CheckpointError

__all__ = ["differences", "load_checkpoint", "put_back", "save_checkpoint"]

_GENERATOR = "generator"


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    scheduler: LRScheduler | None = None,
    generator: Generator | None = None,
    callbacks: Sequence[Stateful] = (),
    history: Sequence[EpochRecord] = (),
    configuration: Mapping[str, Any] | None = None,
    best: Mapping[str, Tensor] | None = None,
) -> None:
    """Write all a training loop needs to continue into one safetensors file, in one step.

    The global random states of torch, of the CPU and of the model's device, are kept too.

    Args:
        path: the file, written over where it exists; a process killed meanwhile leaves the old file whole.
        model: its parameters and buffers are kept.
        optimizer: its state and its hyper-parameters are kept.
        scheduler: its state is kept.
        generator: shuffles the examples; its state is kept.
        callbacks: their states are kept.
        history: a record for each finished epoch.
        configuration: plain values (what JSON holds) that must be the same for the run to continue.
        best: the model's state after its best epoch.

    Raises:
        ArgumentError: the path cannot be written to, or a state holds something other than plain values and tensors.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import torch
        >>> net = nn.Linear(2, 2)
        >>> sgd = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> with TemporaryDirectory() as folder:
        ...     save_checkpoint(f"{folder}/run.safetensors", net, sgd, configuration={"batch_size": 32})
        ...     load_checkpoint(f"{folder}/run.safetensors", net, sgd).configuration
        {'batch_size': 32}
    """
    states = {f"torch_{name}": state for name, state in global_states(device_of(model)).items()}
    if generator is not None:
        states[_GENERATOR] = generator.get_state()
    snapshot = Snapshot(
        model=state_of(model),
        optimizer=optimizer.state_dict(),
        scheduler=None if scheduler is None else scheduler.state_dict(),
        callbacks=tuple(callback.state_dict() for callback in callbacks),
        random_states=states,
        history=tuple(history),
        configuration=configuration or {},
        best=best,
    )
    write_snapshot(path, snapshot)


def load_checkpoint(
    path: str | Path,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    scheduler: LRScheduler | None = None,
    generator: Generator | None = None,
    callbacks: Sequence[Stateful] = (),
    configuration: Mapping[str, Any] | None = None,
) -> Snapshot:
    """Put a checkpoint back into live objects; all is checked before anything is changed.

    The global random states of torch are put back too, so that the loop draws what it would have drawn.

    Args:
        path: the file.
        model: takes the weights; names, shapes and types must agree.
        optimizer: takes state and hyper-parameters; made over the same parameters in the same order.
        scheduler: takes its state; given if and only if one was saved.
        generator: takes its state; given if and only if one was saved.
        callbacks: take their states; as many as were saved.
        configuration: refused unless equal to the one saved; ``None`` does not compare.

    Returns:
        What the file holds.

    Raises:
        CheckpointError: the file is unreadable, or belongs to another run; says what differs.

    Example:
        >>> import torch
        >>> net = nn.Linear(2, 2)
        >>> load_checkpoint("nowhere.safetensors", net, torch.optim.SGD(net.parameters(), lr=0.1))
        Traceback (most recent call last):
        privet.errors.CheckpointError: nowhere.safetensors: there is no such file.
    """
    snapshot = read_snapshot(path)
    put_back(
        path,
        snapshot,
        model,
        optimizer,
        scheduler=scheduler,
        generator=generator,
        callbacks=callbacks,
        configuration=configuration,
    )
    return snapshot


def put_back(
    path: str | Path,
    snapshot: Snapshot,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    scheduler: LRScheduler | None,
    generator: Generator | None,
    callbacks: Sequence[Stateful],
    configuration: Mapping[str, Any] | None,
) -> None:
    """Put what a file held back into live objects, as ``load_checkpoint`` does.

    Args:
        path: the file it was read from, for the message.
        snapshot: what it held.
        model: takes the weights.
        optimizer: takes state and hyper-parameters.
        scheduler: takes its state.
        generator: takes its state.
        callbacks: take their states.
        configuration: refused unless equal to the one saved; ``None`` does not compare.

    Raises:
        CheckpointError: it belongs to another run; says what differs.
    """
    _check_fit(path, snapshot, model, optimizer, scheduler, generator, callbacks, configuration)
    device = device_of(model)
    try:
        model.load_state_dict(snapshot.model)
        optimizer.load_state_dict(dict(snapshot.optimizer))
        if scheduler is not None and snapshot.scheduler is not None:
            scheduler.load_state_dict(dict(snapshot.scheduler))
        for callback, callback_state in zip(callbacks, snapshot.callbacks, strict=True):
            callback.load_state_dict(callback_state)
        if generator is not None:
            generator.set_state(snapshot.random_states[_GENERATOR])
        torch_states = snapshot.random_states.items()
        set_global_states({name.removeprefix("torch_"): state for name, state in torch_states}, device)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(f"{path}: its states do not fit: {error}") from error


def _check_fit(
    path: str | Path,
    snapshot: Snapshot,
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    generator: Generator | None,
    callbacks: Sequence[Stateful],
    configuration: Mapping[str, Any] | None,
) -> None:
    here = {name: describe_tensor(tensor) for name, tensor in state_of(model).items()}
    for part, state in (("model", snapshot.model), ("best", snapshot.best)):
        if state is not None:
            _refuse(path, part, differences({name: describe_tensor(tensor) for name, tensor in state.items()}, here))
    if configuration is not None:
        _refuse(path, "run", differences(snapshot.configuration, configuration))
    keys = {"scheduler": sorted(snapshot.scheduler or ())}
    _refuse(path, "run", differences(keys, {"scheduler": sorted(scheduler.state_dict() if scheduler else ())}))
    states = {f"torch_{name}" for name in global_states(device_of(model))} | (
        {_GENERATOR} if generator is not None else set()
    )
    found = {"random_states": sorted(snapshot.random_states), "callbacks": len(snapshot.callbacks)}
    _refuse(path, "run", differences(found, {"random_states": sorted(states), "callbacks": len(callbacks)}))
    _refuse(
        path,
        "optimizer",
        differences(optimizer_layout(snapshot.optimizer), optimizer_layout(optimizer.state_dict()))
        or state_misfits(snapshot.optimizer, optimizer),
    )


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Say in which names two mappings differ, and how.

    Args:
        there: plain values by name, from the file.
        here: plain values by name, of this run.

    Returns:
        A phrase for each name that differs.

    Example:
        >>> differences({"batch_size": 32}, {"batch_size": 64})
        ['batch_size is 32 there and 64 here']
    """
    found: list[str] = []
    for name in sorted(set(there) | set(here)):
        left, right = there.get(name, "absent"), here.get(name, "absent")
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found += [f"{name}.{phrase}" for phrase in differences(left, right)]
        elif left != right:
            found.append(f"{name} is {_short(left)} there and {_short(right)} here")
    return found


def _refuse(path: str | Path, part: str, found: list[str]) -> None:
    if found:
        more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
        raise CheckpointError(f"{path} belongs to another {part}: {'; '.join(found[:4])}{more}.")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 90 else f"{text[:60]}...{text[-27:]}"
