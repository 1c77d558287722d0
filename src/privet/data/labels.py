"""What labels and class names must be, said once for every reader."""

from __future__ import annotations

import unicodedata

import torch

from privet.errors import DataError, LabelError

__all__ = ["LONGEST_NAME", "MOST_CLASSES", "check_class_names", "check_labels", "numbered_names"]

MOST_CLASSES = 2**16  # beyond this a label is a number of something else: a row, a time, a price

LONGEST_NAME = 1_000  # characters of the name of one class

_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, direction and zero width, surrogates, ends of line and paragraph

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_labels(labels: torch.Tensor, classes: int, where: str) -> torch.Tensor:
    """Labels as int64, each checked: 0 <= y < classes.

    Args:
        labels: (N,), of an integer dtype.
        classes: how many classes there are.
        where: the file or source that the error names.

    Returns:
        The labels, (N,) int64.

    Raises:
        LabelError: another dtype or shape, or a label outside 0 ... classes - 1.

    Example:
        >>> check_labels(torch.tensor([0, -100]), 10, "train.bin")
        Traceback (most recent call last):
        privet.errors.LabelError: train.bin: labels[1] = -100 is not allowed; give integers from 0 to 9 \
(10 classes). PyTorch's losses skip -100; drop those examples first.
    """
    return _within(labels, classes, where, f"give integers from 0 to {classes - 1} ({classes} classes)")


def _within(labels: torch.Tensor, classes: int, where: str, allowed: str) -> torch.Tensor:
    _check_form(labels, where, allowed)
    labels = labels.to(torch.int64)
    wrong = ((labels < 0) | (labels >= classes)).nonzero()
    if len(wrong):
        index = int(wrong[0])
        value = int(labels[index])
        remedy = " PyTorch's losses skip -100; drop those examples first." if value == -100 else ""
        raise LabelError(f"{where}: labels[{index}] = {value} is not allowed; {allowed}.{remedy}")
    return labels


def numbered_names(labels: torch.Tensor, where: str) -> tuple[str, ...]:
    """Class names "0", "1", ..., as many as the largest label asks for.

    Args:
        labels: (N,), of an integer dtype.
        where: the file or source that the error names.

    Returns:
        max(labels) + 1 names.

    Raises:
        LabelError: another dtype or shape, a negative label, or a label of 65,536 or more.

    Example:
        >>> numbered_names(torch.tensor([0, -1]), "some.npz")
        Traceback (most recent call last):
        privet.errors.LabelError: some.npz: labels[1] = -1 is not allowed; give integers from 0, at most 65,535.
    """
    checked = _within(labels, MOST_CLASSES, where, f"give integers from 0, at most {MOST_CLASSES - 1:,}")
    return tuple(str(number) for number in range(int(checked.max()) + 1))


def check_class_names(names: object, where: str) -> None:
    """Class names are distinct, not empty, of 1,000 characters at most, and show as they are.

    Characters that are not seen, or that turn or break the line they stand in, could make one name pass for another,
    or for a line of a report.

    Args:
        names: one name a class.
        where: the file or source that the error names.

    Raises:
        DataError: no names, too many, or a name that is empty, doubled, too long or holds unseen characters.
    """
    if not isinstance(names, tuple) or not 1 <= len(names) <= MOST_CLASSES:
        found = f"{len(names)} names" if isinstance(names, tuple) else f"a {type(names).__name__}"
        raise DataError(f"{where}: class_names is {found}; give a tuple of 1 to {MOST_CLASSES} names, one a class.")
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if not _is_name(name):
            raise DataError(
                f"{where}: class_names[{index}] = {_shown(name)} is not allowed; "
                f"give text of 1 to {LONGEST_NAME:,} characters, none of them for control, direction or of zero width."
            )
        if name in first:
            raise DataError(
                f"{where}: class_names[{index}] = {name[:100]!r} is class_names[{first[name]}] again; "
                "give each class its own name."
            )
        first[name] = index


def _is_name(name: object) -> bool:
    if not isinstance(name, str) or len(name) > LONGEST_NAME or not name.strip():
        return False
    return all(unicodedata.category(character) not in _UNSEEN for character in name)


def _shown(name: object) -> str:
    return ascii(name[:100] if isinstance(name, str) else name)[:100]


def _check_form(labels: torch.Tensor, where: str, allowed: str) -> None:
    if labels.dtype not in _INTEGERS:
        raise LabelError(
            f"{where}: labels are {labels.dtype}, the first is {_first(labels)}; {allowed}, as torch.int64."
        )
    if labels.ndim != 1:
        raise LabelError(f"{where}: labels have shape {tuple(labels.shape)}; {allowed}, of shape (N,).")
    if not len(labels):
        raise LabelError(f"{where}: there are no labels; {allowed}, at least one.")


def _first(labels: torch.Tensor) -> object:
    return labels.flatten()[0].item() if labels.numel() else "missing"
