"""Looks at a model and a loss before anything is released: are the engine's gradients those of single examples?"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from privet.dp.batches import map_tensors, slice_data
from privet.dp.per_example.engine import Engine, PerExampleLoss, check_losses, no_fast_path
from privet.dp.per_example.reference import per_example_gradients
from privet.errors import PrivateTrainingError, PrivetError

__all__ = ["Probe", "probe"]

_CLOSE = {torch.float32: 1e-3, torch.float64: 1e-6}  # of an example's gradient norm

_DROPOUTS: tuple[Callable[..., Any], ...] = (
    F.dropout,
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    F.alpha_dropout,
    F.feature_alpha_dropout,
)


_RECURRENT: tuple[Any, ...] = (torch._VF.lstm, torch._VF.gru, torch._VF.rnn_tanh, torch._VF.rnn_relu)
_DROPOUT = 5  # its place among their arguments


class _Comparable(TorchFunctionMode):
    """Leaves dropout out, and reduced precision: batch and single example could not be compared."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        if func in _DROPOUTS:
            return args[0] if args else named["input"]
        if func is F.scaled_dot_product_attention:
            args, named = args[:4], {**dict(zip(("dropout_p", "is_causal"), args[4:], strict=False)), **named}
            named["dropout_p"] = 0.0
        if func is F.multi_head_attention_forward:
            named["training"] = False
        if func in _RECURRENT and len(args) > _DROPOUT and isinstance(args[3], bool):  # not of packed sequences
            args = (*args[:_DROPOUT], 0.0, *args[_DROPOUT + 1 :])
        reduced = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
        with ExitStack() as stack:
            for kind in reduced:
                stack.enter_context(torch.autocast(kind, enabled=False))
            return func(*args, **named)


class Probe:
    """What a probe measured.

    Attributes:
        examples: how many were compared.
        worst: the largest distance between the engine's gradient of an example and that of the loop, as a share of the
            example's gradient norm.
    """

    def __init__(self, examples: int, worst: float) -> None:
        """Keep both."""
        self.examples, self.worst = examples, worst


def probe(engine: Engine, per_example_loss: PerExampleLoss, data: Any, size: int, examples: int = 4) -> Probe:
    """Compare the engine with a loop over single examples, on a few of them; nothing is released.

    The losses and gradients of an example must not depend on which others are in the batch. So two batch sizes and
    single examples are compared; dropout is left out of it.

    Args:
        engine: of the model.
        per_example_loss: from data to losses (B,).
        data: of ``size`` examples.
        size: how many there are.
        examples: how many to compare.

    Raises:
        PrivateTrainingError: they differ, or the loss draws random numbers, or a buffer changes; says what to do.
        UnsupportedLayerError: a layer was used in a way that is not known.
    """
    count = min(size, examples)
    data = slice_data(data, 0, count)
    if count < 3:  # two sizes above one are needed
        count, data = _repeated(data, count)
    buffers = {name: (buffer, buffer.clone()) for name, buffer in engine.model.named_buffers()}
    with no_fast_path(), _Comparable():
        with torch.no_grad():
            first, second = per_example_loss(data), per_example_loss(data)
        check_losses(first, count, differentiable=False)
        if not _same(first, second):
            raise PrivateTrainingError(
                "the per-example loss gives other values when it is asked twice: it draws random numbers that are not "
                "dropout, so its gradients cannot be checked. Draw them in the data set, record by record (there they "
                "may differ each time), and leave the loss a function of data and parameters."
            )
        flat = engine.flat()  # of its own: what is in the one of a step is seen as .grad
        worst = max(
            _compare(engine, per_example_loss, data, number, flat) for number in sorted({count, max(1, count - 1)})
        )
        if size > 1:  # copies of one record would all be NaN
            _check_apart(engine, per_example_loss, data, count)
    _check_buffers(buffers)
    return Probe(count, worst)


def _compare(engine: Engine, per_example_loss: PerExampleLoss, data: Any, count: int, flat: Tensor) -> float:
    """The engine's gradients in a batch of ``count`` with those of single examples, one at a time to save memory."""
    gradients = engine.take(per_example_loss, slice_data(data, 0, count), count)
    noted = gradients.squared_norms.sqrt()  # (G, B)
    close = _CLOSE[engine.slots[0].parameter.dtype]
    worst = 0.0
    for index in range(count):
        single = per_example_gradients(engine.model, per_example_loss, slice_data(data, index, index + 1), 1)
        norm = math.sqrt(sum(float(value.norm()) ** 2 for value in single.values()))
        if not math.isfinite(norm):
            continue  # taken out of every sum, whatever the engine says
        chosen = torch.zeros_like(gradients.squared_norms)
        chosen[:, index] = 1.0
        gradients.add_to(flat.zero_(), chosen)
        least = max(norm, 1e-12)
        for name, view in engine.views(flat).items():
            share = float((single[name][0] - view).norm()) / least
            if not share <= close:
                raise PrivateTrainingError(_differs(name, share))
            worst = max(worst, share)
        for group, told in enumerate(noted[:, index].tolist()):
            names = [slot.name for slot in engine.slots if slot.group == group]
            real = math.sqrt(sum(float(single[name].norm()) ** 2 for name in names))
            if not told >= real - close * least:  # above it is the margin where terms cancel
                raise PrivateTrainingError(
                    f"the engine says gradient norm {told:.6g} where an example alone has {real:.6g} ({names[0]!r} and "
                    "what is clipped with it); it would be clipped at the wrong norm. Please report this with the "
                    "model's layers."
                )
    return worst


def _differs(name: str, share: float) -> str:
    much = f"{share:.1%} of" if share < 10.0 else "more than ten times"
    return (
        f"the gradient of parameter {name!r} in a batch differs from that of single examples by {much} the "
        "example's gradient norm: an example's loss or gradient depends on the others in the batch (a statistic over "
        "the batch, examples that are mixed or moved to other rows, a loss weighted by the batch), so clipping would "
        "bound nothing. Normalise within each example (nn.GroupNorm, nn.LayerNorm), and keep row i to example i."
    )


def _check_apart(engine: Engine, per_example_loss: PerExampleLoss, data: Any, count: int) -> None:
    """A record that is NaN must leave the others what they are: many a loss leaves out a batch with a NaN in it."""
    if count < 2:
        return

    def spoiled(values: Tensor) -> Tensor:
        if not values.is_floating_point():
            return values
        values = values.clone()
        values[-1] = math.nan
        return values

    others = torch.ones(len(engine.ranges), count, dtype=torch.float64, device=engine.flat().device)
    others[:, -1] = 0.0
    sums: list[Tensor] = []
    try:
        for given in (data, map_tensors(data, spoiled)):
            gradients = engine.take(per_example_loss, given, count)
            if bool(gradients.squared_norms[:, :-1].isfinite().all()) or sums:
                gradients.add_to(flat := engine.flat(), others)
                sums.append(flat)
    except PrivetError:
        raise
    except Exception:  # a loss that does not take NaN says so in training, too
        return
    if len(sums) == 2 and not float((sums[0] - sums[1]).norm()) <= 1e-2 * float(sums[0].norm()):
        raise PrivateTrainingError(
            "a record that is NaN changes the gradients of the others in its batch (a loss that leaves out a whole "
            "batch for one NaN, or a statistic over the batch), so clipping would bound nothing. Leave NaN alone: "
            "privet takes such an example out by itself."
        )


def _check_buffers(buffers: dict[str, tuple[Tensor, Tensor]]) -> None:
    for name, (buffer, before) in buffers.items():
        if not _same(buffer, before):
            raise PrivateTrainingError(
                f"buffer {name!r} changes in the forward pass: what it keeps of the data would leave the training "
                "without noise. Use a layer without running statistics, such as nn.GroupNorm."
            )


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())


def _repeated(data: Any, count: int) -> tuple[int, Any]:
    """Three examples out of fewer; what is not all tensors stays as it is."""

    def three(values: Tensor) -> Tensor:
        return values.repeat(3, *(1,) * (values.dim() - 1))[:3]

    try:
        repeated = map_tensors(data, three)
        return (3, slice_data(repeated, 0, 3))
    except ValueError:
        return count, data
