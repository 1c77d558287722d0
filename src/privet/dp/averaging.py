"""A moving average of the weights: computed from what was released, so it costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from privet.errors import ArgumentError

__all__ = ["Average"]


class Average:
    r"""An exponential moving average of a model's state.

    .. math:: \bar w \leftarrow d_t \bar w + (1 - d_t) w, \qquad d_t = \min(d, (1 + t) / (10 + t))

    The decay rises to d, so that the initial weights are soon forgotten.

    Args:
        model: whose floating-point parameters and buffers are averaged; others are taken as they are.
        decay: d, from 0 to below 1.

    Raises:
        ArgumentError: the decay is out of range.

    Example:
        >>> import torch
        >>> net = nn.Linear(1, 1, bias=False)
        >>> average = Average(net, 0.5)
        >>> before = net.weight.item()
        >>> with torch.no_grad():
        ...     net.weight += 1.0
        >>> average.update(net)
        >>> round(average.state["weight"].item() - before, 4)  # quick at first
        0.8182

    References:
        De et al., "Unlocking high-accuracy differentially private image classification through scale", 2022.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Begin with the model as it is."""
        given: object = decay
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0.0 <= given < 1.0:
            raise ArgumentError("average", given, "a decay from 0 to below 1, such as 0.99")
        self.decay, self.steps = float(decay), 0
        self.state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def update(self, model: nn.Module) -> None:
        """Take one more step's weights in."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, tensor in model.state_dict().items():
            mean = self.state[name]
            if mean.is_floating_point():
                mean.lerp_(tensor.detach(), 1.0 - decay)
            else:
                mean.copy_(tensor)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"steps": self.steps, "state": dict(self.state)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where it was kept."""
        stored: Mapping[str, Tensor] = state["state"]
        for name, mean in self.state.items():
            mean.copy_(stored[name])
        self.steps = int(state["steps"])
