"""MNIST and Fashion-MNIST, from a folder of their four public IDX files."""

from __future__ import annotations

from pathlib import Path

from privet.data.arguments import AnyPath, as_path
from privet.data.examples import Examples
from privet.data.idx import read_idx_folder
from privet.data.reading import require_folder

__all__ = ["fashion_mnist", "mnist"]

_DIGITS = tuple("0123456789")
_CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
_FOUR_FILES = "a folder with train-images-idx3-ubyte and its three fellows, plain or with .gz"


def mnist(folder: AnyPath, train: bool = True) -> Examples:
    """MNIST: handwritten digits, 60,000 to train on and 10,000 to test on.

    Args:
        folder: where ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
            ``t10k-labels-idx1-ubyte`` are, plain or with ``.gz``.
        train: the training part, or else the test part.

    Returns:
        Images (N, 1, 28, 28) in [0, 1], ten classes.

    Raises:
        FileFormatError: a file is missing, cut off, corrupt or of another form.
        LabelError: a label above 9.

    Example:
        >>> mnist("no/such/folder")
        Traceback (most recent call last):
        privet.errors.FileFormatError: no/such/folder: found nothing there; expected a folder with \
train-images-idx3-ubyte and its three fellows, plain or with .gz.

    References:
        LeCun, Bottou, Bengio and Haffner (1998), Gradient-based learning applied to document recognition.
    """
    path = as_path("folder", folder)
    require_folder(path, _FOUR_FILES)
    return read_idx_folder(path, train, _DIGITS, "MNIST", "")


def fashion_mnist(folder: AnyPath | None = None, train: bool = True) -> Examples:
    """Fashion-MNIST: pictures of clothes, 60,000 to train on and 10,000 to test on.

    Args:
        folder: where the four IDX files are, named as those of MNIST; None for where Debian's package
            ``dataset-fashion-mnist`` puts them.
        train: the training part, or else the test part.

    Returns:
        Images (N, 1, 28, 28) in [0, 1], ten classes.

    Raises:
        FileFormatError: a file is missing, cut off, corrupt or of another form.
        LabelError: a label above 9.

    Example:
        >>> fashion_mnist("no/such/folder")
        Traceback (most recent call last):
        privet.errors.FileFormatError: no/such/folder: found nothing there; expected a folder with \
train-images-idx3-ubyte and its three fellows, plain or with .gz. On Debian and Ubuntu, \
apt-get install dataset-fashion-mnist brings them; elsewhere pass folder=.

    References:
        Xiao, Rasul and Vollgraf (2017), Fashion-MNIST: a novel image dataset for benchmarking machine learning
        algorithms.
    """
    path = _DEBIAN_FASHION_MNIST if folder is None else as_path("folder", folder)
    remedy = "On Debian and Ubuntu, apt-get install dataset-fashion-mnist brings them; elsewhere pass folder=."
    require_folder(path, _FOUR_FILES, remedy)
    return read_idx_folder(path, train, _CLOTHES, "Fashion-MNIST", remedy)
