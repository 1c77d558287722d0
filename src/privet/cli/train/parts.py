"""What a configuration stands for: the network, the records, the optimizer, the plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from privet import schedules
from privet.cli.builders import builders_for
from privet.cli.train.configuration import Configuration, Data, HeldOut
from privet.cli.user_file import function_from, told
from privet.data import Examples, load
from privet.dp.adaptive_clipping import AdaptiveQuantile, ClipUpdate
from privet.dp.clipping import ClippingStrategy, FixedNorm
from privet.dp.clipping_groups import PerLayer
from privet.dp.plan import Plan
from privet.errors import ArgumentError, FileFormatError

__all__ = ["Parts", "assemble"]

_TWO_PARTS = ("fashion-mnist", "mnist", "cifar10", "cifar100")
_SPLIT_SEED = 0
_PLACES = {
    "expected_batch_size": "training.expected_batch_size",
    "steps": "training.steps",
    "epochs": "training.epochs",
    "initial_norm": "privacy.clipping.norm",
    "max_grad_norm": "privacy.clipping.norm",
    "count_noise_std": "privacy.clipping.count_noise_std",
}


@dataclass(frozen=True, eq=False)
class Parts:
    """All that training takes."""

    model: nn.Module
    records: Examples
    held_out: Examples | None
    plan: Plan
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    scheduler: Callable[[Optimizer], LRScheduler] | None
    loss: Callable[[nn.Module, Any], Tensor] | None


def assemble(path: Path, configuration: Configuration) -> Parts:
    """Make everything that a configuration names; paths in it are seen from its folder.

    Raises:
        FileFormatError: a value is not allowed where it stands; says its key.
        PrivetError: data cannot be read, or a file of the user's cannot be run.
    """
    records, held_out = _records(path, configuration.data, configuration.held_out)
    plan = _plan(path, configuration, len(records))
    training = configuration.training
    epochs = max(1, math.floor(plan.total_steps * plan.sampling_rate))
    return Parts(
        model=_model(path, configuration, records),
        records=records,
        held_out=held_out,
        plan=plan,
        optimizer=_optimizer(configuration),
        scheduler=(lambda made: CosineAnnealingLR(made, epochs)) if training.schedule == "cosine" else None,
        loss=_loss(path, configuration),
    )


def _records(path: Path, data: Data, held_out: HeldOut | None) -> tuple[Examples, Examples | None]:
    records = _load(path, "data", data.source, data.folder, train=True)
    if held_out is None:
        return records, None
    if held_out.source is not None:
        other = _load(path, "held_out", held_out.source, held_out.folder, train=held_out.source not in _TWO_PARTS)
        if other.class_names != records.class_names or other.inputs.shape[1:] != records.inputs.shape[1:]:
            raise FileFormatError(path, f"held_out.source = {held_out.source!r}", "records like those of data.source")
        return records, other
    apart = held_out.records
    assert apart is not None
    if apart >= len(records):
        raise FileFormatError(path, f"held_out.records = {apart}", f"fewer than the {len(records):,} records there are")
    kept, rest = records.split(len(records) - apart, apart, seed=_SPLIT_SEED)
    return kept, rest


def _load(path: Path, table: str, source: str, folder: str | None, train: bool) -> Examples:
    near = path.parent / source
    name = str(near) if source.endswith(".npz") or near.is_dir() else source
    try:
        return load(name, None if folder is None else path.parent / folder, train)
    except ArgumentError as error:
        key = {"name": "source"}.get(error.name, error.name)
        raise FileFormatError(path, f"{table}.{key} = {error.value!r}", error.allowed, error.remedy) from error


def _plan(path: Path, configuration: Configuration, size: int) -> Plan:
    training, privacy = configuration.training, configuration.privacy
    steps = training.steps
    try:
        if steps is None:
            assert training.epochs is not None
            steps = schedules.steps_for(training.epochs, size, training.expected_batch_size)
        return Plan(
            dataset_size=size,
            expected_batch_size=training.expected_batch_size,
            delta=privacy.delta,
            noise=schedules.parse(privacy.noise, steps),
            steps=steps,
            target_epsilon=privacy.target_epsilon,
            budget_epsilon=privacy.budget_epsilon,
            clipping=_clipping(configuration),
            max_batch_size=privacy.max_batch_size,
        )
    except ArgumentError as error:
        key = _PLACES.get(error.name, f"privacy.{error.name}")
        raise FileFormatError(path, f"{key} = {error.value!r}", error.allowed, error.remedy) from error


def _clipping(configuration: Configuration) -> ClippingStrategy:
    chosen = configuration.privacy.clipping
    strategy: ClippingStrategy = FixedNorm(chosen.norm)
    if chosen.kind == "adaptive":
        adaptive = AdaptiveQuantile(chosen.norm, count_noise_std=chosen.count_noise_std)
        given = {name: getattr(chosen, name) for name in ("target_quantile", "learning_rate")}
        adaptive = replace(adaptive, **{name: value for name, value in given.items() if value is not None})
        strategy = adaptive if chosen.rule is None else replace(adaptive, rule=ClipUpdate(chosen.rule))
    return PerLayer(strategy) if chosen.per_layer else strategy


def _model(path: Path, configuration: Configuration, records: Examples) -> nn.Module:
    wanted, arguments = configuration.model, configuration.model.arguments
    seed, builders = wanted.seed, builders_for(records, wanted.seed)
    if ":" in wanted.builder:
        build = function_from("model.builder", str(path.parent / wanted.builder))
        source: Path | None = path.parent / wanted.builder.rpartition(":")[0]
    elif wanted.builder in builders:
        build, source = builders[wanted.builder], None
    else:
        raise FileFormatError(
            path, f"model.builder = {wanted.builder!r}", f"{', '.join(builders)}, or file.py:function"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = build(**arguments)
        except Exception as error:
            said = str(error) if source is None else told(error, source)
            raise FileFormatError(
                path,
                f"model.builder = {wanted.builder!r} with {arguments or 'no arguments'}, which ended in: {said}",
                f"a network for records of shape {tuple(records.inputs.shape[1:])}",
            ) from error
    if not isinstance(model, nn.Module):
        raise FileFormatError(path, f"model.builder that gives a {type(model).__name__}", "a torch.nn.Module")
    return model


def _optimizer(configuration: Configuration) -> Callable[[Iterable[nn.Parameter]], Optimizer]:
    training = configuration.training
    kinds: Mapping[str, type[Optimizer]] = {
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
    }
    given = {"lr": training.learning_rate, "momentum": training.momentum, "weight_decay": training.weight_decay}
    named = {name: value for name, value in given.items() if value is not None}
    kind: Callable[..., Optimizer] = kinds[training.optimizer]
    return lambda parameters: kind(parameters, **named)


def _loss(path: Path, configuration: Configuration) -> Callable[[nn.Module, Any], Tensor] | None:
    named = configuration.model.loss
    if named is None:
        return None
    function = function_from("model.loss", str(path.parent / named))
    return lambda model, data: function(model, *data)
