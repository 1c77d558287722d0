"""CIFAR-10 and CIFAR-100, from their public binary files; never from the pickles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from privet.data.arguments import AnyPath, as_path, check_flag
from privet.data.examples import Examples
from privet.data.labels import check_class_names, check_labels
from privet.data.reading import LARGEST, one_error, open_regular, read_up_to, require_folder, unit_floats
from privet.errors import FileFormatError

__all__ = ["cifar10", "cifar100"]

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_NAMES_AT_MOST = 2**16  # bytes of a file of class names


def cifar10(folder: AnyPath, train: bool = True) -> Examples:
    """CIFAR-10: photographs of ten kinds of things, 50,000 to train on and 10,000 to test on.

    Args:
        folder: where the *binary* files are: ``data_batch_1.bin`` ... ``data_batch_5.bin`` and ``test_batch.bin``.
            ``batches.meta.txt`` names the classes; without it they are named by number.
        train: the five training batches, or else the test batch.

    Returns:
        Images (N, 3, 32, 32) in [0, 1], ten classes.

    Raises:
        FileFormatError: a file is missing, cut off or of another form, or the folder holds the Python pickles.
        LabelError: a label above 9.

    Example:
        >>> cifar10("no/such/folder")
        Traceback (most recent call last):
        privet.errors.FileFormatError: no/such/folder: found nothing there; expected a folder with \
data_batch_1.bin to data_batch_5.bin and test_batch.bin.

    References:
        Krizhevsky (2009), Learning multiple layers of features from tiny images.
    """
    check_flag("train", train)
    path = as_path("folder", folder)
    require_folder(path, "a folder with data_batch_1.bin to data_batch_5.bin and test_batch.bin")
    names = [f"data_batch_{number}" for number in range(1, 6)] if train else ["test_batch"]
    for name in names:
        _require(path, name, "CIFAR-10 binary version (cifar-10-binary.tar.gz)")
    batches = [_records(path / f"{name}.bin", 1, files=len(names)) for name in names]
    for name, batch in zip(names, batches, strict=True):
        check_labels(torch.from_numpy(batch[:, 0]), 10, str(path / f"{name}.bin"))
        if len(batch) != len(batches[0]):
            raise FileFormatError(
                path / f"{name}.bin", f"{len(batch):,} images", f"{len(batches[0]):,}, as many as in {names[0]}.bin"
            )
    class_names = _class_names(path / "batches.meta.txt", 10)
    return _examples(np.concatenate(batches), 0, 1, class_names, f"CIFAR-10, {_part(train)}", path)


def cifar100(folder: AnyPath, train: bool = True, coarse: bool = False) -> Examples:
    """CIFAR-100: photographs of a hundred kinds of things, 50,000 to train on and 10,000 to test on.

    Args:
        folder: where the *binary* files ``train.bin`` and ``test.bin`` are. ``fine_label_names.txt`` and
            ``coarse_label_names.txt`` name the classes; without them they are named by number.
        train: the training file, or else the test file.
        coarse: the 20 coarse labels instead of the 100 fine ones.

    Returns:
        Images (N, 3, 32, 32) in [0, 1]; a hundred classes, or twenty.

    Raises:
        FileFormatError: a file is missing, cut off or of another form, or the folder holds the Python pickles.
        LabelError: a fine label above 99 or a coarse one above 19.

    Example:
        >>> cifar100("no/such/folder")
        Traceback (most recent call last):
        privet.errors.FileFormatError: no/such/folder: found nothing there; expected a folder with \
train.bin and test.bin.

    References:
        Krizhevsky (2009), Learning multiple layers of features from tiny images.
    """
    check_flag("train", train)
    check_flag("coarse", coarse)
    path = as_path("folder", folder)
    require_folder(path, "a folder with train.bin and test.bin")
    name = "train" if train else "test"
    _require(path, name, "CIFAR-100 binary version (cifar-100-binary.tar.gz)")
    file = path / f"{name}.bin"
    records = _records(file, 2, files=1)
    check_labels(torch.from_numpy(records[:, 0]), 20, f"{file}, coarse")
    check_labels(torch.from_numpy(records[:, 1]), 100, f"{file}, fine")
    kind, classes, column = ("coarse", 20, 0) if coarse else ("fine", 100, 1)
    class_names = _class_names(path / f"{kind}_label_names.txt", classes)
    return _examples(records, column, 2, class_names, f"CIFAR-100 ({kind} labels), {_part(train)}", path)


def _require(folder: Path, name: str, version: str) -> None:
    file = folder / f"{name}.bin"
    with one_error(file, f"a file of the {version}"):
        if file.exists():
            return
        pickled = (folder / name).exists()
    if pickled:
        raise FileFormatError(
            folder / name,
            "the Python version, which is pickled and can run code when it is read",
            f"{name}.bin of the {version}",
            "Get the binary version; it holds the same images.",
        )
    raise FileFormatError(file, "nothing there", f"a file of the {version}")


def _records(path: Path, labels: int, files: int) -> NDArray[np.uint8]:
    record = labels + _PIXELS
    most = LARGEST // (record * files)  # all files are of one length, so each has its share of the bound
    expected = f"1 to {most:,} records of {record:,} bytes: {labels} of labels, {_PIXELS:,} of pixels"
    with open_regular(path, expected) as file:
        content = read_up_to(file, most * record + 1)
    if len(content) > most * record:
        raise FileFormatError(path, f"more than {most * record:,} bytes", expected)
    if not content or len(content) % record:
        found = (
            f"{len(content):,} bytes, which is {len(content) // record:,} records and {len(content) % record:,} bytes"
        )
        raise FileFormatError(path, found, expected)
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, record)


def _class_names(path: Path, classes: int) -> tuple[str, ...]:
    expected = f"{classes} lines of text, the name of a class each"
    with one_error(path, expected):
        if not path.exists():
            return tuple(str(number) for number in range(classes))
    with open_regular(path, expected) as file:
        content = read_up_to(file, _NAMES_AT_MOST + 1)
        text = content.decode("utf-8")
    names = tuple(line.strip() for line in text.split("\n") if line.strip())
    if len(content) > _NAMES_AT_MOST or len(names) != classes:
        raise FileFormatError(path, f"{len(names):,} lines in {len(content):,} bytes", expected)
    check_class_names(names, str(path))
    return names


def _examples(
    records: NDArray[np.uint8], column: int, labels: int, class_names: tuple[str, ...], title: str, folder: Path
) -> Examples:
    with one_error(folder, "images that fit into memory"):
        inputs = unit_floats(records[:, labels:]).reshape(-1, *_SHAPE)
    return Examples(inputs, torch.from_numpy(records[:, column].astype(np.int64)), class_names, f"{title}, in {folder}")


def _part(train: bool) -> str:
    return "training part" if train else "test part"
