"""The plain training loop."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from privet.atomic_file import remove_leftovers
from privet.checkpoints.callbacks import check_callbacks
from privet.checkpoints.checkpoint import put_back, save_checkpoint
from privet.checkpoints.device import device_of
from privet.checkpoints.epoch_record import EpochRecord
from privet.checkpoints.snapshots import read_snapshot
from privet.checkpoints.stateful import Stateful
from privet.checkpoints.weights import state_of
from privet.errors import ArgumentError, CheckpointError, DivergedError
from privet.training.arguments import check_arguments, check_checkpoint
from privet.training.callbacks import Callback, OnEnd, OnEpoch, OnStart, OnStep
from privet.training.configuration import describe_run
from privet.training.evaluation import Loss, count_classes, evaluate_source, mode_kept
from privet.training.examples import AnyExamples, Source, check_labels, read_examples
from privet.training.lone_examples import check_last_batch
from privet.training.progress import Show, shown
from privet.training.randomness import isolated, streams
from privet.training.records import FitResult, best_epoch, out_of_patience

__all__ = ["fit"]

_LEARNING_RATE = 1e-3


def fit(
    model: nn.Module,
    examples: AnyExamples,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    learning_rate: float | None = None,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
    loss: Loss = functional.cross_entropy,
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    device: torch.device | str | None = None,
    validation: AnyExamples | None = None,
    patience: int | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: bool | Progress = True,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Train ``model`` in place; the same arguments and the same start give the same weights, bit for bit.

    All randomness comes from ``seed``; torch's global random state is left as it was, and so is the mode of every
    module. Everything is checked before the first step. No privacy is promised.

    Ctrl-C: the ``KeyboardInterrupt`` goes through, the model keeps the weights of that moment, and the checkpoint
    holds the last finished epoch; ``resume=True`` continues from there.

    Args:
        model: inputs (B, ...) -> outputs (B, classes).
        examples: inputs (N, ...) and integer labels (N,) as a pair or as attributes, or a map-style data set of
            (tensor, int), read anew in every epoch.
        epochs: passes over the examples, at least 1; with ``resume``, those done before are counted.
        batch_size: examples a step, at least 1; the last batch of an epoch may be smaller.
        seed: 0 to 2^64 - 1; decides shuffling and dropout, not the initial weights.
        learning_rate: above 0, of Adam, 0.001 unless given; not together with ``optimizer``.
        optimizer: makes the optimizer from the parameters, for example ``lambda p: SGD(p, lr=0.1, momentum=0.9)``.
        loss: outputs (B, classes), labels (B,) -> the mean over the batch.
        scheduler: makes a learning-rate scheduler from the optimizer; stepped after each epoch.
        device: where to compute, the model is moved there; ``None`` for where the model is.
        validation: examples evaluated after each epoch.
        patience: stop after so many epochs without a smaller validation loss, at least 1. With it the model ends
            with the weights of its best epoch, whether it stopped early or not.
        checkpoint: a file written after each epoch; refused if it exists and ``resume`` is false.
        resume: continue from ``checkpoint`` if it exists, else start anew.
        progress: whether to show a bar on a terminal, or a bar of one's own.
        callbacks: called before the first step, after each step and each epoch, and when training ends, as they have
            ``on_start``, ``on_step``, ``on_epoch`` and ``on_end``; their exceptions end the training.

    Returns:
        The history and where it was best.

    Raises:
        ArgumentError: an argument is outside what is allowed.
        DataError: the examples cannot be used, or the model refuses them.
        LabelError: a label is not one of the model's classes.
        CheckpointError: the checkpoint is unreadable, of another run, or in the way.
        DivergedError: the loss or a weight became NaN or infinite; the last checkpoint stays.

    Example:
        >>> inputs = torch.eye(2).repeat(8, 1)
        >>> net = nn.Linear(2, 2)
        >>> result = fit(net, (inputs, inputs.argmax(1)), epochs=40, batch_size=4, seed=0, learning_rate=0.1)
        >>> result.history[-1].accuracy
        1.0
    """
    epochs, batch_size, seed, patience = check_arguments(
        epochs, batch_size, seed, learning_rate, optimizer, validation, patience
    )
    check_callbacks(callbacks, Callback)
    _trained(model)
    path = check_checkpoint(checkpoint, resume)
    where = device_of(model) if device is None else torch.device(device)
    model.to(where)
    shuffle_seed, global_seed = streams(seed)
    with mode_kept(model):
        with isolated(where, global_seed):
            source, validated = _read(model, examples, validation)
            check_last_batch(model, source, batch_size)
        with isolated(where, global_seed), torch.enable_grad(), ExitStack() as ends:
            made = _make_optimizer(_trained(model), optimizer, learning_rate)
            run = _Run(
                model=model,
                optimizer=made,
                scheduler=None if scheduler is None else scheduler(made),
                loss=loss,
                source=source,
                validation=validated,
                batch_size=batch_size,
                patience=patience,
                device=where,
                shuffle=torch.Generator().manual_seed(shuffle_seed),
                callbacks=tuple(callbacks),
            )
            for callback in run.callbacks:
                if isinstance(callback, OnStart):
                    callback.on_start(model, made, run.steps, epochs * run.steps)
                if isinstance(callback, OnEnd):
                    ends.callback(callback.on_end)
            keeper = None if path is None else _keeper(run, path, seed, resume, epochs)
            with shown(progress, epochs=epochs, steps=run.steps) as show:
                while len(run.history) < epochs and not out_of_patience(run.history, patience):
                    _one_epoch(run, show)
                    if keeper is not None:
                        keeper()
    made.zero_grad(set_to_none=True)
    if run.best is not None:
        model.load_state_dict(run.best)
    stopped = len(run.history) < epochs
    return FitResult(tuple(run.history), stopped_early=stopped, best_epoch=best_epoch(run.history))


@dataclass(eq=False)
class _Run:
    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    loss: Loss
    source: Source
    validation: Source | None
    batch_size: int
    patience: int | None
    device: torch.device
    shuffle: Generator
    callbacks: tuple[Callback, ...]
    history: list[EpochRecord] = field(default_factory=list)
    best: dict[str, Tensor] | None = None

    @property
    def steps(self) -> int:
        return -(-len(self.source) // self.batch_size)


def _one_epoch(run: _Run, show: Show) -> None:
    epoch = len(run.history) + 1
    loss, accuracy = _train(run, epoch, show)
    if not all(bool(torch.isfinite(parameter).all()) for parameter in run.model.parameters()):
        raise _diverged("a weight", "NaN or infinite", epoch, run.steps)
    record = EpochRecord(epoch, loss, accuracy)
    if run.validation is not None:
        try:
            found = evaluate_source(run.model, run.validation, run.batch_size, run.loss)
        except DivergedError as error:
            raise _diverged("a validation output or loss", "NaN or infinite", epoch, run.steps) from error
        record = EpochRecord(epoch, loss, accuracy, found.loss, found.accuracy)
    run.history.append(record)
    if run.patience is not None and best_epoch(run.history) == epoch:
        run.best = {name: tensor.clone() for name, tensor in state_of(run.model).items()}
    if isinstance(run.scheduler, ReduceLROnPlateau):
        run.scheduler.step(loss if record.validation_loss is None else record.validation_loss)
    elif run.scheduler is not None:
        run.scheduler.step()
    for callback in run.callbacks:
        if isinstance(callback, OnEpoch):
            callback.on_epoch(record, run.model)


def _train(run: _Run, epoch: int, show: Show) -> tuple[float, float]:
    run.model.train()
    order = torch.randperm(len(run.source), generator=run.shuffle)
    total, correct, seen = 0.0, 0, 0
    for step, indices in enumerate(torch.split(order, run.batch_size), start=1):
        inputs = run.source.take(indices).to(run.device)
        labels = run.source.labels[indices].to(run.device)  # (B,)
        run.optimizer.zero_grad(set_to_none=True)
        outputs = run.model(inputs)  # (B, classes)
        loss = run.loss(outputs, labels)
        if loss.dim():
            raise ArgumentError(
                "loss", tuple(loss.shape), "a function that returns the mean over the batch, one number"
            )
        value = loss.item()
        if not math.isfinite(value):
            raise _diverged("the loss", value, epoch, step)
        loss.backward()  # type: ignore[no-untyped-call]
        run.optimizer.step()
        seen += len(indices)
        total += value * len(indices)
        correct += int((outputs.detach().argmax(1) == labels).sum())
        done = (epoch - 1) * run.steps + step
        for callback in run.callbacks:
            if isinstance(callback, OnStep):
                callback.on_step(done, run.model, run.optimizer)
        show(done, total / seen, correct / seen)
    return total / seen, correct / seen


def _diverged(what: str, value: object, epoch: int, step: int) -> DivergedError:
    remedy = "Lower the learning rate; the last checkpoint, if any, is untouched."
    return DivergedError(f"Training stopped: {what} is {value} at epoch {epoch}, step {step}. {remedy}")


def _keeper(run: _Run, path: Path, seed: int, resume: bool, epochs: int) -> Callable[[], None]:
    """Take up the checkpoint where there is one, and return what writes the next."""
    stateful = [callback for callback in run.callbacks if isinstance(callback, Stateful)]
    plain: dict[str, Any] = {"batch_size": run.batch_size, "seed": seed, "patience": run.patience}
    configuration = describe_run(
        run.model,
        run.optimizer,
        run.scheduler,
        loss=run.loss,
        examples=run.source,
        validation=run.validation,
        callbacks=stateful,
        device=run.device,
        plain=plain,
    )
    if resume:
        remove_leftovers(path)
    if path.exists():
        snapshot = read_snapshot(path)
        done = len(snapshot.history)
        if done > epochs:
            raise CheckpointError(
                f"{path}: {done} epochs are done; epochs = {epochs} is fewer. Ask for {done} or more."
            )
        put_back(
            path,
            snapshot,
            run.model,
            run.optimizer,
            scheduler=run.scheduler,
            generator=run.shuffle,
            callbacks=stateful,
            configuration=configuration,
        )
        run.history = list(snapshot.history)
        run.best = None if snapshot.best is None else dict(snapshot.best)

    def keep() -> None:
        save_checkpoint(
            path,
            run.model,
            run.optimizer,
            scheduler=run.scheduler,
            generator=run.shuffle,
            callbacks=stateful,
            history=run.history,
            configuration=configuration,
            best=run.best,
        )

    return keep


def _read(model: nn.Module, examples: AnyExamples, validation: AnyExamples | None) -> tuple[Source, Source | None]:
    source = read_examples("examples", examples)
    validated = None if validation is None else read_examples("validation", validation)
    check_labels("examples", source.labels, count_classes(model, source))
    if validated is not None:
        check_labels("validation", validated.labels, count_classes(model, validated))
    return source, validated


def _trained(model: nn.Module) -> list[nn.Parameter]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ArgumentError("model", type(model).__name__, "a model with parameters that require gradients")
    return parameters


def _make_optimizer(
    parameters: list[nn.Parameter],
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None,
    learning_rate: float | None,
) -> Optimizer:
    if optimizer is None:
        return torch.optim.Adam(parameters, lr=_LEARNING_RATE if learning_rate is None else learning_rate)
    made: object = optimizer(parameters)
    if not isinstance(made, Optimizer):
        allowed = "a function from parameters to an optimizer, such as lambda p: torch.optim.SGD(p, lr=0.1)"
        raise ArgumentError("optimizer", type(made).__name__, allowed)
    closure = inspect.signature(made.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        remedy = f"{type(made).__name__} evaluates the loss several times a step."
        raise ArgumentError("optimizer", type(made).__name__, "one whose step needs no closure, as SGD or Adam", remedy)
    return made
