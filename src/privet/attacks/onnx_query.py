"""An ONNX file as what an attacker asks."""

from __future__ import annotations

import importlib
from collections import namedtuple
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privet.errors import DataError, FileFormatError, MissingExtraError

__all__ = ["OnnxQuery", "onnx_query"]

_TopK = namedtuple("_TopK", ["values", "indices"])
_TYPES = {
    "tensor(float)": torch.float32,
    "tensor(double)": torch.float64,
    "tensor(float16)": torch.float16,
}


@dataclass(frozen=True, eq=False)
class OnnxQuery:
    """An ONNX file that is asked: inputs (N, ...) -> answers.

    Attributes:
        file: where it is.
        session: of ONNX Runtime.
        outputs: the names of what the graph answers.
        name: of its input.
        kind: the type of its input.
        shape: of its input; a name or None stands for any length.
    """

    file: Path
    session: Any
    outputs: tuple[str, ...]
    name: str
    kind: torch.dtype
    shape: tuple[Any, ...]

    def __call__(self, batch: Tensor) -> Any:
        """The answers about a batch of inputs."""
        given = batch.detach().cpu().to(self.kind).numpy()
        if self.shape and not _fits(given.shape, self.shape):
            raise DataError(
                f"{self.file} takes inputs of shape {_read(self.shape)}, and was given {_read(given.shape)}."
            )
        parts = [self.session.run(self.outputs, {self.name: part}) for part in _parts(given, self.shape)]
        answers = [torch.from_numpy(np.concatenate(each)[: len(given)]) for each in zip(*parts, strict=True)]
        found = dict(zip(self.outputs, answers, strict=True))
        return _TopK(found["values"], found["indices"]) if len(found) == 2 else answers[0]


def onnx_query(path: str | Path) -> OnnxQuery:
    """Ask an ONNX file, on the CPU, by ONNX Runtime.

    A graph of one input is asked. One output is passed on as it is: scores (N, C), or labels (N,). Two outputs, named
    ``values`` and ``indices``, are the k largest scores and their classes. What more a graph answers is refused, for
    an attacker would see it too. A graph that was exported for a fixed number of inputs is asked so many at a time.

    Args:
        path: the file.

    Returns:
        Inputs (N, ...) -> the answers, for :class:`~privet.attacks.Target`. Inputs of another shape than the graph's
        raise a :class:`~privet.errors.DataError`.

    Raises:
        MissingExtraError: the extra ``onnx`` is not installed.
        FileFormatError: the file is missing or no graph of this kind.
    """
    file = Path(path)
    if not file.is_file():
        raise FileFormatError(file, "no such file", "an ONNX file")
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingExtraError("onnx", "asking an ONNX file") from error
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has no common class of its own
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise FileFormatError(file, said, "an ONNX file that ONNX Runtime reads") from error
    inputs, names = session.get_inputs(), [one.name for one in session.get_outputs()]
    if len(inputs) != 1 or inputs[0].type not in _TYPES:
        found = ", ".join(f"{one.name} {one.type}" for one in inputs)
        raise FileFormatError(file, f"the inputs {found}", "one input of floating values")
    if len(names) != 1 and sorted(names) != ["indices", "values"]:
        raise FileFormatError(file, f"the outputs {', '.join(names)}", "one output, or values and indices")
    name, kind, shape = inputs[0].name, _TYPES[inputs[0].type], list(inputs[0].shape)
    return OnnxQuery(file, session, tuple(names), name, kind, tuple(shape))


def _fits(given: tuple[int, ...], shape: Sequence[Any]) -> bool:
    """Whether all but the number of inputs is as the graph says; a name or None stands for any length."""
    known = zip(given[1:], shape[1:], strict=False)
    return len(given) == len(shape) and all(got == want for got, want in known if isinstance(want, int))


def _parts(given: NDArray[Any], shape: Sequence[Any]) -> list[NDArray[Any]]:
    """So many inputs at a time as the graph takes, the last part filled up with its last input."""
    size = shape[0] if shape and isinstance(shape[0], int) and shape[0] > 0 else len(given)
    missing = -len(given) % size
    return np.split(np.concatenate((given, given[-1:].repeat(missing, 0))), (len(given) + missing) // size)


def _read(shape: Sequence[Any]) -> str:
    return f"({', '.join(map(str, shape))})"
