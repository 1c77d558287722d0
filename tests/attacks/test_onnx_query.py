"""An ONNX file is asked as it was exported: any number of inputs, or a fixed one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from privet.attacks import Target
from privet.attacks.onnx_query import onnx_query
from privet.errors import DataError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

INPUTS = torch.linspace(-1.0, 1.0, 21).reshape(7, 3)


def written(folder: Path, size: int | str) -> Path:
    """A graph that adds one to each input and drops nothing."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    one = helper.make_tensor("one", kind, [1], [1.0])
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "one"], ["y"])],
        "add",
        [helper.make_tensor_value_info("x", kind, [size, 3])],
        [helper.make_tensor_value_info("y", kind, [size, 3])],
        [one],
    )
    file = folder / "add.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, file)
    return file


@pytest.mark.parametrize("size", ["n", 1, 3, 7, 20])
@pytest.mark.parametrize("batch_size", [2, 1_024])
def test_every_input_has_its_own_answer(tmp_path: Path, size: int | str, batch_size: int) -> None:
    asked = Target(onnx_query(written(tmp_path, size)), 3, batch_size=batch_size).ask(INPUTS)
    assert torch.allclose(asked, torch.log_softmax(INPUTS.double() + 1.0, -1), atol=1e-6)


@pytest.mark.parametrize("inputs", [torch.zeros(2, 4), torch.zeros(2, 3, 1), torch.zeros(2)])
def test_inputs_of_another_shape_are_refused_by_both_shapes(tmp_path: Path, inputs: torch.Tensor) -> None:
    with pytest.raises(DataError, match=r"takes inputs of shape \(n, 3\), and was given \(2"):
        onnx_query(written(tmp_path, "n"))(inputs)
