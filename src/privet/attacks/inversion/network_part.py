"""The part of a network whose answers are inverted: all of it, a layer by name, a module, or any function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from privet.errors import ArgumentError, DataError

__all__ = ["Function", "check_answers", "check_modes", "part_of"]

Function = Callable[[Tensor], Tensor]
_SAME = 1e-3  # of the largest number: other batch sizes are rounded otherwise


def part_of(network: Function | nn.Module, layer: str | None) -> Function:
    """What is inverted, as a function of the images.

    Args:
        network: a module or any differentiable function of a batch of images.
        layer: the name of a module within; its output is what is inverted, and what comes after it is not computed.

    Raises:
        ArgumentError: ``network`` cannot be called, or has no such layer.
    """
    if hasattr(network, "origin_network"):
        remedy = "Its answers have no gradient. Use Representation.behind(served, ...)."
        raise ArgumentError("network", type(network).__name__, "a network without its defense", remedy)
    if not callable(network):
        raise ArgumentError("network", type(network).__name__, "a network, or a function from images to answers")
    if layer is None:
        return network
    if not isinstance(network, nn.Module):
        raise ArgumentError("layer", layer, "None for a function that is no module")
    names = dict(network.named_modules())
    if layer not in names or not layer:
        some = ", ".join(map(repr, list(names)[1:6]))
        raise ArgumentError("layer", layer, f"the name of a module within, such as {some}")
    return _Until(network, names[layer])


class _Reached(Exception):
    pass


class _Until:
    """Runs a network until one of its modules has answered."""

    def __init__(self, network: nn.Module, module: nn.Module) -> None:
        self._network, self._module = network, module

    def __call__(self, images: Tensor) -> Tensor:
        found: list[Any] = []

        def hold(module: nn.Module, inputs: Any, output: Any) -> None:
            found.append(output)
            raise _Reached

        handle = self._module.register_forward_hook(hold)
        try:
            self._network(images)
        except _Reached:
            pass
        finally:
            handle.remove()
        if not found or not isinstance(found[0], Tensor):
            raise DataError("the layer was not reached, or does not answer one tensor; name another.")
        answer: Tensor = found[0]
        return answer


def check_modes(network: object) -> None:
    """Refuse a network in training mode that would answer otherwise each time, or for each batch.

    Raises:
        ArgumentError: a module with dropout, batch statistics or running statistics is in training mode.
    """
    if not isinstance(network, nn.Module):
        return
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.track_running_stats:
            raise ArgumentError(
                "network",
                f"{name or 'network'} ({type(module).__name__}) without running statistics",
                "a network that answers about each image apart",
                "It normalises each image by the batch that it happens to be in.",
            )
        if module.training and _answers_otherwise(module):
            raise ArgumentError(
                "network",
                f"{name or 'network'} ({type(module).__name__}) in training mode",
                "a network in evaluation mode",
                "Call network.eval(): what it answers in training mode is random, or depends on the batch.",
            )


def check_answers(part: Function, images: Tensor) -> None:
    """Ask about a batch and twice about one image of it, and refuse what is no answer, or another each time.

    Args:
        part: what is inverted, with its normalisation.
        images: (N, C, H, W), inside the bounds.

    Raises:
        ArgumentError: the network does not take such images, answers no tensor (N, ...), without a gradient, at random,
            or about an image by the others in its batch.
    """
    try:
        with torch.no_grad():
            first, second = part(images), part(images[:1])
        alone = part(images[:1].detach().requires_grad_())
    except (ArgumentError, DataError):
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        said = f"The network says: {str(error).partition(chr(10))[0]}"
        raise ArgumentError("image_shape", tuple(images.shape[1:]), "a shape that the network takes", said) from error
    answer: object = first
    if not isinstance(answer, Tensor) or answer.dim() < 1 or len(answer) != len(images):
        found = f"{tuple(answer.shape)}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"
        raise ArgumentError("network", f"one that answers {found}", f"one that answers a tensor ({len(images)}, ...)")
    if not alone.requires_grad:
        raise ArgumentError("network", "answers without a gradient", "answers that images can be followed from")
    for here, said in ((second, "random (dropout?)"), (first[:1], "made by the other images of its batch, too")):
        both = here.isfinite() & alone.isfinite()
        if _most(here - alone, both) > _SAME * max(_most(here, both), _most(alone, both)):
            raise ArgumentError(
                "network", "another answer about the same image", "the same each time", f"It is {said}."
            )


def _most(values: Tensor, where: Tensor) -> float:
    chosen = values.detach()[where]
    return float(chosen.abs().max()) if chosen.numel() else 0.0


def _answers_otherwise(module: nn.Module) -> bool:
    """Whether what a module answers in training mode is random, depends on the batch, or changes the module."""
    if isinstance(module, nn.modules.dropout._DropoutNd | nn.modules.batchnorm._NormBase | nn.RReLU):
        return getattr(module, "track_running_stats", True)
    return isinstance(module, nn.RNNBase | nn.MultiheadAttention) and module.dropout > 0.0
