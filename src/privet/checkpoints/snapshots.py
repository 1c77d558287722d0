"""The checkpoint file: one safetensors file, tensors as tensors, everything else as JSON in its metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from privet.atomic_file import check_destination, replacing
from privet.checkpoints.epoch_record import EpochRecord
from privet.errors import ArgumentError, CheckpointError

__all__ = ["Snapshot", "read_snapshot", "to_plain", "write_snapshot"]

_FORMAT = "privet checkpoint"
_VERSION = "1"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All that a run needs to continue as if it had never stopped.

    Args:
        model: the state of the model, tensors by name.
        optimizer: the state of the optimizer.
        scheduler: the state of the scheduler, or ``None``.
        callbacks: the states of the callbacks that have one, in order.
        random_states: random states by name, as bytes (uint8).
        history: a record for each finished epoch.
        configuration: what must be the same for the run to continue, plain values by name.
        best: the model's state after its best epoch, or ``None``.
    """

    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    scheduler: Mapping[str, Any] | None = None
    callbacks: tuple[Mapping[str, Any], ...] = ()
    random_states: Mapping[str, Tensor] = field(default_factory=dict)
    history: tuple[EpochRecord, ...] = ()
    configuration: Mapping[str, Any] = field(default_factory=dict)
    best: Mapping[str, Tensor] | None = None


def write_snapshot(path: str | Path, snapshot: Snapshot) -> None:
    """Write ``snapshot`` to ``path``; a process killed meanwhile leaves the old file whole.

    Args:
        path: the file, written over where it exists.
        snapshot: what to write.

    Raises:
        ArgumentError: the path cannot be written to, or a state holds something other than plain values and tensors.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "run.safetensors"
        ...     write_snapshot(path, Snapshot(model={"w": torch.ones(2)}, optimizer={"lr": 0.1}))
        ...     read_snapshot(path).optimizer
        {'lr': 0.1}
    """
    destination = check_destination("path", path)
    tensors: dict[str, Tensor] = {}
    content = {
        "model": to_plain(dict(snapshot.model), "model", tensors),
        "optimizer": to_plain(snapshot.optimizer, "optimizer", tensors),
        "scheduler": to_plain(snapshot.scheduler, "scheduler", tensors),
        "callbacks": to_plain(snapshot.callbacks, "callbacks", tensors),
        "random_states": to_plain(dict(snapshot.random_states), "random", tensors),
        "best": to_plain(snapshot.best, "best", tensors),
        "history": [asdict(record) for record in snapshot.history],
        "configuration": snapshot.configuration,
        "torch": torch.__version__,
    }
    # Copies: tied weights share memory, which the format does not allow.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    text = json.dumps(content)
    metadata = {"format": _FORMAT, "version": _VERSION, "content": text, "digest": _digest(text, copies)}
    with replacing(destination) as file:
        file.write(safetensors.torch.save(copies, metadata))


def read_snapshot(path: str | Path) -> Snapshot:
    """Read what ``write_snapshot`` wrote, and check that it is whole.

    Args:
        path: the file.

    Returns:
        The snapshot, its tensors on the CPU.

    Raises:
        CheckpointError: the file is missing, truncated, altered, or no checkpoint.

    Example:
        >>> read_snapshot("nowhere.safetensors")
        Traceback (most recent call last):
        privet.errors.CheckpointError: nowhere.safetensors: there is no such file.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: there is no such file.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: truncated, corrupt or not a checkpoint ({error}).") from error
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: a safetensors file, but not a checkpoint; load_weights reads plain weights.")
    if metadata.get("version") != _VERSION:
        found = metadata.get("version")
        raise CheckpointError(f"{path}: a checkpoint of version {found!r}; this privet reads version {_VERSION!r}.")
    text = metadata.get("content", "")
    if metadata.get("digest") != _digest(text, tensors):
        raise CheckpointError(f"{path}: its content does not match its digest; the file was altered or damaged.")
    try:
        content = json.loads(text)
        return Snapshot(
            model=_from_plain(content["model"], tensors),
            optimizer=_from_plain(content["optimizer"], tensors),
            scheduler=_from_plain(content["scheduler"], tensors),
            callbacks=_from_plain(content["callbacks"], tensors),
            random_states=_from_plain(content["random_states"], tensors),
            history=tuple(EpochRecord(**record) for record in content["history"]),
            configuration=dict(content["configuration"]),
            best=_from_plain(content["best"], tensors),
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not laid out as a checkpoint ({error!r}).") from error


def to_plain(value: object, name: str, tensors: dict[str, Tensor]) -> Any:
    """Turn nested state into JSON, its tensors set apart; every JSON object is a tag, so nothing is ambiguous.

    Args:
        value: ``None``, numbers, text, tensors, and lists, tuples and mappings of them.
        name: what the value is called; tensors are named after it.
        tensors: filled with the tensors by name.

    Returns:
        What ``json.dumps`` takes.

    Raises:
        ArgumentError: something else is among them.

    Example:
        >>> to_plain({"betas": (0.9, 0.99)}, "optimizer", {})
        {'mapping': [['betas', {'tuple': [0.9, 0.99]}]]}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str | int):
                raise ArgumentError(name, key, "keys that are text or integers")
        return {"mapping": [[key, to_plain(one, f"{name}.{key}", tensors)] for key, one in value.items()]}
    if isinstance(value, list | tuple):
        items = [to_plain(one, f"{name}.{index}", tensors) for index, one in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    raise ArgumentError(name, value, "a state of numbers, text and tensors", "A checkpoint holds nothing else.")


def _from_plain(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(plain, list):
        return [_from_plain(one, tensors) for one in plain]
    if not isinstance(plain, dict):
        return plain
    ((tag, inner),) = plain.items()
    if tag == "tensor":
        return tensors[inner]
    if tag == "tuple":
        return tuple(_from_plain(one, tensors) for one in inner)
    if tag == "mapping":
        return {key: _from_plain(one, tensors) for key, one in inner}
    raise ValueError(f"an unknown tag {tag!r}")


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
