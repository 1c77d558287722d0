"""What a model answers and how often it is right, in evaluation mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from privet.checkpoints.device import device_of
from privet.errors import ArgumentError, DataError, DivergedError, PrivetError
from privet.training.arguments import as_count
from privet.training.examples import AnyExamples, Source, check_labels, read_examples

__all__ = ["Evaluation", "count_classes", "evaluate", "evaluate_source", "mode_kept", "predict"]

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Evaluation:
    """How a model does on examples; point values, not estimates.

    Args:
        accuracy: share of examples whose largest output is their label, 0 to 1.
        loss: mean loss over the examples.
        n: how many examples.
    """

    accuracy: float
    loss: float
    n: int


def evaluate(
    model: nn.Module, examples: AnyExamples, *, batch_size: int = 1024, loss: Loss = functional.cross_entropy
) -> Evaluation:
    """Measure accuracy and mean loss in evaluation mode, without gradients.

    Args:
        model: inputs (B, ...) -> outputs (B, classes). Its mode and its weights are left as they were.
        examples: as for ``fit``.
        batch_size: examples at a time, at least 1; the result does not depend on it beyond rounding.
        loss: outputs (B, classes), labels (B,) -> the mean over the batch.

    Returns:
        Accuracy, loss and the number of examples.

    Raises:
        ArgumentError: an argument is outside what is allowed.
        DataError: the examples cannot be used, or the model refuses them.
        LabelError: a label is not one of the model's classes.
        DivergedError: the model answers NaN or infinity, or the loss is not finite.

    Example:
        >>> evaluate(nn.Identity(), (torch.eye(3), torch.tensor([0, 1, 0]))).accuracy
        0.6666666666666666
    """
    batch_size = as_count("batch_size", batch_size)
    source = read_examples("examples", examples)
    with mode_kept(model):
        check_labels("examples", source.labels, count_classes(model, source))
        return evaluate_source(model, source, batch_size, loss)


def predict(model: nn.Module, inputs: Tensor, batch_size: int = 1024) -> Tensor:
    """Return what the model answers in evaluation mode, without gradients.

    Args:
        model: inputs (B, ...) -> outputs (B, ...). Its mode is left as it was.
        inputs: (N, ...), on any device.
        batch_size: examples at a time, at least 1.

    Returns:
        The outputs (N, ...), on the device of ``inputs``.

    Raises:
        ArgumentError: an argument is outside what is allowed.
        DataError: the model answers something other than one tensor.

    Example:
        >>> predict(nn.Linear(4, 2), torch.zeros(5, 4), batch_size=2).shape
        torch.Size([5, 2])
    """
    batch_size = as_count("batch_size", batch_size)
    if not isinstance(inputs, Tensor):
        raise ArgumentError("inputs", type(inputs).__name__, "a tensor (N, ...)", "Arrays: torch.from_numpy(inputs).")
    if inputs.dim() < 1:
        raise ArgumentError("inputs.shape", tuple(inputs.shape), "(N, ...)")
    device = device_of(model)
    with mode_kept(model), torch.no_grad():
        model.eval()
        starts = range(0, max(len(inputs), 1), batch_size)
        answers = (model(inputs[start : start + batch_size].to(device)) for start in starts)
        return torch.cat([_one_tensor(answer).to(inputs.device) for answer in answers])


def evaluate_source(model: nn.Module, source: Source, batch_size: int, loss: Loss) -> Evaluation:
    """Measure accuracy and mean loss on checked examples; leaves ``model`` in evaluation mode.

    Args:
        model: inputs (B, ...) -> outputs (B, classes).
        source: the examples.
        batch_size: examples at a time.
        loss: outputs, labels -> the mean over the batch.

    Returns:
        Accuracy, loss and the number of examples.

    Raises:
        DivergedError: the model answers NaN or infinity, or the loss is not finite.

    Example:
        >>> source = read_examples("examples", (torch.eye(3), torch.tensor([0, 1, 2])))
        >>> evaluate_source(nn.Identity(), source, 2, functional.cross_entropy).accuracy
        1.0
    """
    device = device_of(model)
    total, correct = 0.0, 0
    model.eval()
    with torch.no_grad():
        for start in range(0, len(source), batch_size):
            batch = slice(start, start + batch_size)
            labels = source.labels[batch].to(device)  # (B,)
            outputs = model(source.take(batch).to(device))  # (B, classes)
            _refuse_not_finite(outputs, start)
            value = float(loss(outputs, labels))
            if not math.isfinite(value):
                raise DivergedError(f"The loss is {value} over the examples from index {start}; it must be finite.")
            total += value * len(labels)
            correct += int((outputs.argmax(1) == labels).sum())
    return Evaluation(accuracy=correct / len(source), loss=total / len(source), n=len(source))


def count_classes(model: nn.Module, source: Source) -> int:
    """Return how many numbers the model answers, by one look at one example; leaves it in evaluation mode.

    Args:
        model: inputs (B, ...) -> outputs (B, classes).
        source: the examples.

    Returns:
        The number of classes.

    Raises:
        DataError: the model refuses the examples, or does not answer (B, classes).

    Example:
        >>> count_classes(nn.Linear(4, 2), read_examples("examples", (torch.zeros(3, 4), torch.tensor([0, 1, 0]))))
        2
    """
    inputs = source.take(slice(0, 1)).to(device_of(model))
    model.eval()
    with torch.no_grad():
        try:
            outputs = model(inputs)
        except PrivetError:
            raise
        except Exception as error:
            shown = f"a batch of shape {tuple(inputs.shape)} of {inputs.dtype}"
            raise DataError(f"The model refuses {shown}: {error}") from error
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or len(outputs) != 1 or not outputs.is_floating_point():
        given = f"a tensor {tuple(outputs.shape)} of {outputs.dtype}" if isinstance(outputs, Tensor) else None
        raise DataError(
            f"The model answers {given or type(outputs).__name__} to one example; it must answer one score for each "
            "class, a floating tensor (1, classes). A defense that lets out labels or the top k alone has no such "
            "scores: use its origin_network()."
        )
    return outputs.shape[1]


def _one_tensor(answer: object) -> Tensor:
    if not isinstance(answer, Tensor):
        raise DataError(f"The model answers {type(answer).__name__}; it must answer one tensor (B, ...). "
                        "A defense that lets out the top k alone is called directly, model(inputs).")  # fmt: skip
    return answer


def _refuse_not_finite(outputs: Tensor, start: int) -> None:
    if not bool(torch.isfinite(outputs).all()):
        first = int((~torch.isfinite(outputs)).reshape(len(outputs), -1).any(1).nonzero()[0])
        raise DivergedError(
            f"The model answers NaN or infinity to the example at index {start + first}; accuracy and loss would "
            "mean nothing. Look at its weights: training may have diverged."
        )


@contextmanager
def mode_kept(model: nn.Module) -> Iterator[None]:
    """Put every module back into the mode it was in, training or evaluation.

    Args:
        model: any module; its parts may be in different modes.

    Example:
        >>> net = nn.Dropout()
        >>> with mode_kept(net):
        ...     _ = net.eval()
        >>> net.training
        True
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
