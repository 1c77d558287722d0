"""A data set by its name or path, for text that someone typed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from privet.data.arguments import AnyPath, as_path, check_flag
from privet.data.cifar import cifar10, cifar100
from privet.data.digits import digits
from privet.data.examples import Examples
from privet.data.folder import image_folder
from privet.data.mnist import fashion_mnist, mnist
from privet.data.mnist5k import mnist5k
from privet.data.npz import npz
from privet.errors import ArgumentError

__all__ = ["NAMES", "load"]

_CARRIED: dict[str, Callable[[], Examples]] = {"digits": digits, "mnist5k": mnist5k}
_IN_A_FOLDER: dict[str, Callable[[AnyPath, bool], Examples]] = {
    "mnist": mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
}
_FASHION = "fashion-mnist"
NAMES = (*_CARRIED, _FASHION, *_IN_A_FOLDER)


def load(name: AnyPath, folder: AnyPath | None = None, train: bool = True) -> Examples:
    """The data set of this name, or at this path.

    Args:
        name: ``digits``, ``mnist5k``, ``fashion-mnist``, ``mnist``, ``cifar10`` or ``cifar100``; or the path of an
            .npz file or of a folder of images. A name goes before a path: ``./digits`` is the folder.
        folder: where the files are, for ``mnist``, ``cifar10`` and ``cifar100``, and if need be ``fashion-mnist``.
        train: the training part, or else the test part, of a data set that has two.

    Returns:
        The examples.

    Raises:
        ArgumentError: there is no such name or path, or ``folder`` or ``train`` does not go with it.
        FileFormatError: a file is missing, cut off, corrupt or of another form.
        LabelError: a label is not one of the classes.

    Example:
        >>> load("digits")
        Examples(1797 of shape (1, 8, 8), 10 classes, from the digits of scikit-learn)
    """
    check_flag("train", train)
    path = as_path("name", name)
    text = os.fspath(name)
    if text in _IN_A_FOLDER:
        if folder is None:
            raise ArgumentError("folder", folder, f"the folder with the files of {text}")
        return _IN_A_FOLDER[text](folder, train)
    if text == _FASHION:
        return fashion_mnist(folder, train)
    if text not in _CARRIED and path.suffix != ".npz" and not _is_folder(path):
        raise ArgumentError("name", text, f"{', '.join(NAMES)}, or the path of an .npz file or of a folder of images")
    if folder is not None:
        raise ArgumentError("folder", str(folder), f"None for {text}, which needs no folder")
    if not train:
        raise ArgumentError(
            "train", train, f"True for {text}, which has no test part", "Use split(...) to set some apart."
        )
    if text in _CARRIED:
        return _CARRIED[text]()
    return image_folder(path) if _is_folder(path) else npz(path)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
