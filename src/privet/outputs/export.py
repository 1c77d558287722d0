"""A file that can only ever answer what the defense lets out."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from privet import atomic_file
from privet.errors import ArgumentError, DefenseError, MissingExtraError, NonFiniteOutputError
from privet.outputs.defense import Defense

__all__ = ["export_onnx"]

_LARGEST = 2**31 - 2**20  # an ONNX file holds less than 2 GiB
_NO_BFLOAT16 = (
    "the network is or answers bfloat16, which ONNX Runtime does not compute on a CPU; "
    "export a copy in float32, as in copy.deepcopy(defended).to(torch.float32)."
)


def export_onnx(
    defended: Defense, example_inputs: Tensor | Sequence[Tensor], path: str | Path, dynamic_batch: bool = True
) -> Path:
    """Writes a defended network as one ONNX file, with the defense inside the graph.

    The graph has no other outputs than ``scores`` (rounding), ``labels`` (labeling) or ``values`` and ``indices``
    (top-k), and ``kept_0`` ... for the parts named by ``keep``. Where the network answers NaN or infinity, the row is
    NaN and its label or indices are -1, because a graph cannot raise. The inputs are named ``x``, or ``x_0``, ``x_1``
    ... The file appears complete or not at all, and tells nothing of the source code of the network.

    Args:
        defended: the defense to write.
        example_inputs: what the network is called with, a tensor or several; their values are not written.
        path: the file, replaced if it is there.
        dynamic_batch: the first axis of every input may have any length; False: that of the example alone.

    Returns:
        The path of the file.

    Raises:
        ArgumentError: an argument is outside of what is allowed.
        MissingExtraError: the extra ``onnx`` is not installed.
        DefenseError: the graph answers something else than the defense, is too large for one file, or is in bfloat16,
            which ONNX Runtime does not compute on a CPU.
        FileWriteError: the system refuses to write the file.
    """
    path = Path(path)
    if not isinstance(defended, Defense):
        raise ArgumentError("defended", type(defended).__name__, "a defense: Rounding, Labeling or TopK")
    given: object = (example_inputs,) if isinstance(example_inputs, Tensor) else example_inputs
    inputs = tuple(given) if isinstance(given, Sequence) else ()
    if not inputs or not all(isinstance(one, Tensor) for one in inputs):
        raise ArgumentError("example_inputs", example_inputs, "a tensor or a sequence of tensors")
    if dynamic_batch and (
        any(one.ndim == 0 for one in inputs) or len({len(one) for one in inputs}) > 1 or not len(inputs[0])
    ):
        shapes = [tuple(one.shape) for one in inputs]
        raise ArgumentError(
            "example_inputs", shapes, "at least one row, as many in each input", "Or say dynamic_batch=False."
        )
    if not path.parent.is_dir():
        raise ArgumentError("path", str(path), "a file in a folder that exists")
    held = [one for one in defended.state_dict(keep_vars=True).values() if isinstance(one, Tensor)]
    if any(one.dtype == torch.bfloat16 for one in (*held, *inputs)):
        raise DefenseError(_NO_BFLOAT16)
    size = sum(one.numel() * one.element_size() for one in held)
    if size > _LARGEST:
        raise DefenseError(
            f"the network has {size:,} bytes; an ONNX file holds less than 2 GiB. Use torch.export instead."
        )
    if defended._defense.keep:
        with contextlib.suppress(NonFiniteOutputError):
            defended(*inputs)  # finds kept parts in the memory of the defended one, which a graph cannot
    content = _checked(_graph(defended, inputs, dynamic_batch), _output_names(defended))
    with atomic_file.replacing(path) as file:
        file.write(content)
    return path


def _graph(defended: Defense, inputs: tuple[Tensor, ...], dynamic_batch: bool) -> Any:
    for module in ("onnx", "onnxscript"):
        try:
            importlib.import_module(module)
        except ImportError:
            raise MissingExtraError("onnx", "writing an ONNX file") from None
    shapes = None
    if dynamic_batch:
        if len(inputs[0]) == 1:  # an axis of length 1 would be taken for a fixed one
            inputs = tuple(torch.cat([one, one]) for one in inputs)
        along = [{0: torch.export.Dim.DYNAMIC} for _ in inputs]
        shapes = (along[0], *([tuple(along[1:])] if along[1:] else []))  # as forward(x, *more) takes them
    names = ["x"] if len(inputs) == 1 else [f"x_{place}" for place in range(len(inputs))]
    program = torch.onnx.export(
        defended,
        inputs,
        input_names=names,
        output_names=_output_names(defended),
        dynamic_shapes=shapes,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    if program is None:
        raise DefenseError("PyTorch's exporter gave no graph.")
    return program.model_proto


def _output_names(defended: Defense) -> list[str]:
    form = defended.output_form
    names = ["labels"] if form.labels_only else ["scores"] if form.k is None else ["values", "indices"]
    return names + [f"kept_{place}" for place in range(len(defended._defense.keep))]


def _checked(model: Any, expected: list[str]) -> bytes:
    import onnx

    onnx.checker.check_model(model, full_check=True)
    found = [output.name for output in model.graph.output]
    if found != expected:
        raise DefenseError(
            f"the graph would answer {', '.join(found)}; the defense lets out {', '.join(expected)} alone."
        )
    if any(output.type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16 for output in model.graph.output):
        raise DefenseError(_NO_BFLOAT16)
    _forget(model)
    content: bytes = model.SerializeToString()
    return content


def _forget(message: Any) -> None:
    """Clears what the exporter notes for its own debugging: stack traces with source lines and paths, class names."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for one in value if isinstance(value, Sequence) else (value,):
                _forget(one)
