"""The weights of a model in a file of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from privet.atomic_file import check_destination, replacing
from privet.errors import ArgumentError, FileFormatError

__all__ = ["describe_tensor", "load_weights", "save_weights", "state_of"]


def save_weights(path: str | Path, model: nn.Module) -> None:
    """Write parameters and buffers of ``model`` as safetensors; shared tensors are written under each name.

    Args:
        path: ends in ``.safetensors``; written over where it exists, in one step.
        model: any module whose state is tensors.

    Raises:
        ArgumentError: the path has another ending or cannot be written to, or the state holds more than tensors.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> first, second = nn.Linear(2, 1), nn.Linear(2, 1)
        >>> with TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/net.safetensors", first)
        ...     load_weights(f"{folder}/net.safetensors", second)
        >>> bool(torch.equal(first.weight, second.weight))
        True
    """
    if Path(path).suffix != ".safetensors":
        raise ArgumentError("path", str(path), "a file whose name ends in .safetensors")
    destination = check_destination("path", path)
    state = state_of(model)
    copies = {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    with replacing(destination) as file:
        file.write(safetensors.torch.save(copies, {"format": "pt"}))


def load_weights(path: str | Path, model: nn.Module) -> None:
    """Read weights into ``model``; names, shapes and types must agree, and nothing changes where they do not.

    Args:
        path: a ``.safetensors`` file, or a ``.pt`` or ``.pth`` file of a state dictionary, read without running code.
        model: takes the weights. A tensor it shares under several names may stand in the file under one of them.

    Raises:
        FileFormatError: the file is missing, unreadable, or of another model; says what differs.

    Example:
        >>> load_weights("nowhere.safetensors", nn.Linear(2, 1))
        Traceback (most recent call last):
        privet.errors.FileFormatError: nowhere.safetensors: found no such file; expected weights of a model.
    """
    stored = _read(path)
    here = state_of(model)
    for names in _shared(here):
        given = [name for name in names if name in stored]
        for name in given:
            if not torch.equal(stored[name], stored[given[0]]):
                raise FileFormatError(path, f"{given[0]} and {name} differ", "equal tensors: the model shares them")
        stored.update({name: stored[given[0]] for name in names if given})
    missing, extra = sorted(here.keys() - stored.keys()), sorted(stored.keys() - here.keys())
    if missing or extra:
        found = "; ".join(f"{word} {_some(names)}" for word, names in (("no", missing), ("unknown", extra)) if names)
        raise FileFormatError(path, found, f"the {len(here)} names of {type(model).__name__}")
    for name, tensor in here.items():
        if describe_tensor(stored[name]) != describe_tensor(tensor):
            found = f"{name} as {describe_tensor(stored[name])}"
            raise FileFormatError(path, found, describe_tensor(tensor), "Build the model as it was when saved.")
    model.load_state_dict(stored)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, detached, sharing memory with the model.

    Args:
        model: any module whose state is tensors.

    Returns:
        Tensors by name.

    Raises:
        ArgumentError: the state holds something other than tensors.

    Example:
        >>> sorted(state_of(nn.Linear(2, 1)))
        ['bias', 'weight']
    """
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            shown = f"{name} of type {type(value).__name__}"
            raise ArgumentError("model", shown, "a model whose state_dict holds tensors only")
        state[name] = value.detach()
    return state


def describe_tensor(tensor: Tensor) -> str:
    """Return type and shape in words.

    Args:
        tensor: any tensor.

    Returns:
        Its type and shape.

    Example:
        >>> describe_tensor(torch.zeros(6, 1, 5, 5))
        'float32 (6, 1, 5, 5)'
    """
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _read(path: str | Path) -> dict[str, Tensor]:
    suffix = Path(path).suffix
    if not Path(path).is_file():
        raise FileFormatError(path, "no such file", "weights of a model")
    if suffix not in (".safetensors", ".pt", ".pth"):
        raise FileFormatError(path, f"the ending {suffix!r}", "a name ending in .safetensors, .pt or .pth")
    try:
        if suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes the reader raise
        what = str(error).partition("\n")[0]
        remedy = "A torch file must hold model.state_dict() alone; save_weights(path, model) writes safetensors."
        raise FileFormatError(path, f"what cannot be read safely ({what})", "weights of a model", remedy) from error
    plain = isinstance(loaded, Mapping) and all(isinstance(value, Tensor) for value in loaded.values())
    if not plain or not all(isinstance(name, str) for name in loaded):
        remedy = "Save model.state_dict(), or save_weights(path, model)."
        raise FileFormatError(path, f"an object of type {type(loaded).__name__}", "tensors by name", remedy)
    return dict(loaded)


def _shared(state: Mapping[str, Tensor]) -> list[list[str]]:
    places: dict[object, list[str]] = {}
    for name, tensor in state.items():
        if tensor.numel():
            place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
            places.setdefault(place, []).append(name)
    return [names for names in places.values() if len(names) > 1]


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
