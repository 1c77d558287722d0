"""What the networks ask of their arguments and of a batch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from privet.errors import ArgumentError

__all__ = ["check_activation", "check_batch", "check_count", "check_counts", "check_dropout"]


def check_count(name: str, value: object, least: int = 1) -> None:
    """Refuse ``value`` unless it is an integer of at least ``least``.

    Args:
        name: the argument, as the caller wrote it.
        value: what was given.
        least: the smallest integer allowed.

    Raises:
        ArgumentError: it is not.

    Example:
        >>> check_count("classes", 0)
        Traceback (most recent call last):
        privet.errors.ArgumentError: classes = 0 is not allowed; give an integer of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ArgumentError(name, value, f"an integer of at least {least}")


def check_counts(name: str, values: object, fewest: int = 1) -> None:
    """Refuse ``values`` unless it is a sequence of ``fewest`` or more integers of at least 1.

    Args:
        name: the argument, as the caller wrote it.
        values: what was given.
        fewest: how many integers there must be.

    Raises:
        ArgumentError: it is not.

    Example:
        >>> check_counts("sizes", (784, 0))
        Traceback (most recent call last):
        privet.errors.ArgumentError: sizes[1] = 0 is not allowed; give an integer of at least 1.
    """
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) < fewest:
        raise ArgumentError(name, values, f"a sequence of {fewest} or more integers")
    for index, value in enumerate(values):
        check_count(f"{name}[{index}]", value)


def check_dropout(value: object) -> None:
    """Refuse ``value`` unless it is a probability below 1.

    Args:
        value: the share of activations dropped, from 0 up to but not including 1.

    Raises:
        ArgumentError: it is not.

    Example:
        >>> check_dropout(0.5)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ArgumentError("dropout", value, "a number from 0 up to but not including 1")


def check_activation(name: str, value: object) -> None:
    """Refuse ``value`` unless it makes modules: a class such as ``nn.ReLU``, not a module.

    Args:
        name: the argument, as the caller wrote it.
        value: what was given.

    Raises:
        ArgumentError: it is a module, or cannot be called.

    Example:
        >>> check_activation("activation", nn.Tanh)
    """
    if isinstance(value, nn.Module) or not callable(value):
        raise ArgumentError(name, value, "a class of modules, such as torch.nn.ReLU (the class, not a module)")


def check_batch(inputs: Tensor, shape: tuple[int, ...], network: str) -> None:
    """Refuse a batch whose examples are not of ``shape``; plain enough for ``torch.export`` and ``torch.compile``.

    Args:
        inputs: the batch. Any shape.
        shape: the shape of one example.
        network: the name of the network, for the message.

    Raises:
        ArgumentError: the examples have another shape, or the batch dimension is missing.

    Example:
        >>> import torch
        >>> check_batch(torch.zeros(1, 28, 28), (1, 28, 28), "LeNet5")
        Traceback (most recent call last):
        privet.errors.ArgumentError: inputs.shape = (1, 28, 28) is not allowed; give (N, 1, 28, 28) for LeNet5.
    """
    if tuple(inputs.shape[1:]) != shape:
        expected = ", ".join(str(size) for size in shape)
        raise ArgumentError("inputs.shape", tuple(inputs.shape), f"(N, {expected}) for {network}")
