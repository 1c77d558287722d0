"""The state of a suppression as a checkpoint keeps it, read back with every part checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from privet.errors import CheckpointError
from privet.suppression.layers import Chosen
from privet.suppression.ramp import Ramp

__all__ = ["State", "read_state", "settings_of"]

_BOUNDS = ("minimum_kept", "lower_clip", "upper_bound", "noise_std", "noise_from")


@dataclass(frozen=True, eq=False)
class State:
    """What was read."""

    step: int
    released: bool
    private_step: int
    ledger_head: str | None
    weights: str | None
    test_run: bool
    masked: dict[str, Tensor]
    history: list[tuple[int, ...]]
    generator: Tensor | None


def settings_of(ramp: Ramp, chosen: Sequence[Chosen]) -> dict[str, Any]:
    """What must be the same for a state to fit, in plain values."""
    return {
        "steps": [ramp.start, ramp.end, ramp.updates],
        "sparsity": [ramp.sparsity_start, ramp.sparsity_end],
        "layers": {one.name: {name: str(getattr(one.rule, name)) for name in _BOUNDS} for one in chosen},
    }


def read_state(
    state: Mapping[str, Any], settings: Mapping[str, Any], shapes: Mapping[str, torch.Size], *, noise: bool
) -> State:
    """Check a state against the suppression that is to take it.

    Args:
        state: what ``Suppression.state_dict`` gave, perhaps by way of a file.
        settings: of the suppression here.
        shapes: of its weights, by name.
        noise: whether it draws noise.

    Raises:
        CheckpointError: it is no such state, or of another suppression; says what differs.
    """
    try:
        if state["version"] != 1:
            raise CheckpointError(f"a suppression state of version {state['version']!r}; this privet reads version 1.")
        for name, here in settings.items():
            there = state["settings"].get(name)
            if there != here:
                raise CheckpointError(f"a suppression state of another run: its {name} are {there}, here {here}.")
        masked, history, generator = dict(state["masked"]), state["history"], state["generator"]
        for name, shape in shapes.items():
            if masked[name].dtype != torch.bool or masked[name].shape != shape:
                found = f"{masked[name].dtype} {tuple(masked[name].shape)}"
                raise CheckpointError(f"the mask of {name!r} is {found} there; here it is torch.bool {tuple(shape)}.")
        if (generator is not None) != noise:
            raise CheckpointError("a suppression state with noise, and here there is none, or the other way round.")
        if history.shape[1:] != (1 + len(shapes),):
            raise CheckpointError(f"a history of {history.shape[1] - 1} layers, and here there are {len(shapes)}.")
        rows = [tuple(map(int, row)) for row in history.tolist()]
        counts = tuple(int(masked[name].count_nonzero()) for name in shapes)
        if counts != (rows[-1][1:] if rows else (0,) * len(shapes)):
            raise CheckpointError(f"masks of {counts} weights, and a history that ends with {rows[-1:]}.")
        for name, kind in (("step", int), ("private_step", int), ("released", bool), ("test_run", bool)):
            if type(state[name]) is not kind or state[name] < 0:
                raise CheckpointError(f"a suppression state with {name} = {state[name]!r}.")
        cpu = None if generator is None else generator.cpu()
        return State(
            step=state["step"],
            released=state["released"],
            private_step=state["private_step"],
            ledger_head=state["ledger_head"],
            weights=state["weights"],
            test_run=state["test_run"],
            masked=masked,
            history=rows,
            generator=cpu,
        )
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"not a state of Suppression ({error!r}).") from error
