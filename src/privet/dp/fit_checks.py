"""What ``fit`` checks and describes before the first step."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from privet.atomic_file import check_destination
from privet.checkpoints.snapshots import to_plain
from privet.dp.plan import Plan
from privet.errors import ArgumentError, CheckpointError, PrivateTrainingError

__all__ = [
    "check_files",
    "check_loss",
    "check_seed",
    "describe",
    "make_optimizer",
    "make_scheduler",
    "refuse_ranks",
]

_LEARNING_RATE = 1e-3
_OPTIMIZER = "a function from parameters to an optimizer, such as lambda p: torch.optim.SGD(p, lr=0.1)"


def check_loss(loss: object) -> None:
    """Refuse what torch calls a loss: it takes outputs, and has a mean in it.

    Raises:
        ArgumentError: it is no function of (model, data).
    """
    if not callable(loss) or str(getattr(loss, "__module__", type(loss).__module__)).startswith("torch.nn"):
        shown = getattr(loss, "__name__", type(loss).__name__)
        raise ArgumentError(
            "loss",
            shown,
            "a function (model, data) -> losses (B,), one for each example",
            "Such as lambda model, data: F.mse_loss(model(data[0]), data[1], reduction='none').mean(1).",
        )


def check_seed(seed: object) -> None:
    """Refuse what torch takes for no seed.

    Raises:
        ArgumentError: it is no integer from 0 to 2^64 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ArgumentError("seed", seed, "an integer from 0 to 2**64 - 1")


def check_files(
    checkpoint: str | Path | None, resume: bool, every: int | None, weights: str | Path | None
) -> tuple[Path | None, Path | None]:
    """Where checkpoints and weights go.

    Raises:
        ArgumentError: a file cannot be written, or there is nothing to continue from.
        CheckpointError: the checkpoint exists and is not to be continued.
    """
    steps: object = every
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise ArgumentError("checkpoint_every", steps, "a whole number of steps, at least 1")
    if weights is not None:
        if Path(weights).suffix != ".safetensors":
            raise ArgumentError("weights", str(weights), "a file whose name ends in .safetensors")
        weights = check_destination("weights", weights)
    if checkpoint is None:
        if resume:
            raise ArgumentError("resume", resume, "False without a checkpoint", "Give the file to continue from.")
        return None, weights
    path = check_destination("checkpoint", checkpoint)
    if path.exists() and not resume:
        raise CheckpointError(
            f"{checkpoint} exists: give resume=True to continue it, or another file, or remove it. What it spent "
            "stays on the ledger either way."
        )
    return path, weights


def refuse_ranks() -> None:
    """Refuse several processes: each would write the files.

    Raises:
        PrivateTrainingError: there are several.
    """
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        raise PrivateTrainingError(
            "dp.fit is for one process, and torch.distributed runs with several. Write the loop: make_private and "
            "private.batches take all of them; save from rank 0."
        )


def make_optimizer(
    model: nn.Module,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None,
    learning_rate: float | None,
) -> Optimizer:
    """Adam, or what the user's function makes.

    Raises:
        ArgumentError: there is nothing to train, both are given, or it is no optimizer that fits.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ArgumentError("model", type(model).__name__, "a model with parameters that require gradients")
    if learning_rate is not None:
        rate: object = learning_rate
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
            raise ArgumentError("learning_rate", rate, "a finite number above 0")
        if optimizer is not None:
            raise ArgumentError("learning_rate", learning_rate, "either learning_rate or optimizer, not both")
    if optimizer is None:
        return torch.optim.Adam(parameters, lr=_LEARNING_RATE if learning_rate is None else learning_rate)
    maker: object = optimizer
    if isinstance(maker, Optimizer) or not callable(maker):
        raise ArgumentError("optimizer", type(maker).__name__, _OPTIMIZER)
    made: object = optimizer(parameters)
    if not isinstance(made, Optimizer):
        raise ArgumentError("optimizer", type(made).__name__, _OPTIMIZER)
    closure = inspect.signature(made.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        remedy = f"{type(made).__name__} asks for gradients several times a step; a step has one."
        raise ArgumentError("optimizer", type(made).__name__, "one whose step needs no closure, as SGD or Adam", remedy)
    return made


def make_scheduler(optimizer: Optimizer, scheduler: Callable[[Optimizer], LRScheduler] | None) -> LRScheduler | None:
    """What the user's function makes, if it does not want to see a loss.

    Raises:
        ArgumentError: it is no scheduler that fits.
    """
    if scheduler is None:
        return None
    if not callable(scheduler):
        raise ArgumentError("scheduler", type(scheduler).__name__, "a function from the optimizer to a scheduler")
    made: object = scheduler(optimizer)
    if isinstance(made, ReduceLROnPlateau):
        raise ArgumentError(
            "scheduler",
            "ReduceLROnPlateau",
            "one that looks at steps alone, such as CosineAnnealingLR",
            "It follows a loss, and a loss on private records is not covered by epsilon.",
        )
    if not isinstance(made, LRScheduler):
        raise ArgumentError("scheduler", type(made).__name__, "a function from the optimizer to a scheduler")
    return made


def describe(
    model: nn.Module,
    plan: Plan,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    average: float | None,
    test_run: object,
) -> dict[str, Any]:
    """What has to be the same for a run to go on, as plain JSON data. Nothing of the data is in it.

    Raises:
        ArgumentError: a hyper-parameter cannot be kept in a checkpoint.
    """
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    described = {
        **{f"plan {name}": value for name, value in plan.describe().items()},
        "model": re.sub(r" at 0x[0-9a-fA-F]+", "", repr(model)),
        "trained": [name for name, parameter in model.named_parameters() if parameter.requires_grad],
        "optimizer": _class_of(optimizer),
        **{f"optimizer group {index}": _numbers(group, "optimizer") for index, group in enumerate(groups)},
        "scheduler": "none" if scheduler is None else _class_of(scheduler),
        "scheduler numbers": {} if scheduler is None else _numbers(scheduler.state_dict(), "scheduler"),
        "average": average,
        "test_run": repr(test_run),
    }
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain


def _numbers(state: dict[str, Any], name: str) -> dict[str, Any]:
    tensors: dict[str, torch.Tensor] = {}
    plain = {str(key): to_plain(value, f"{name}.{key}", tensors) for key, value in state.items()}
    return {**plain, **{key: value.tolist() for key, value in tensors.items()}}


def _class_of(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
