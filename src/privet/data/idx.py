"""IDX files, the format of MNIST and of what followed it: unsigned bytes, plain or in gzip."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from privet.data.arguments import check_flag
from privet.data.examples import Examples
from privet.data.gzip_bytes import GzipBytes
from privet.data.labels import check_labels
from privet.data.reading import LARGEST, Readable, one_error, open_regular, read_up_to, unit_floats
from privet.errors import FileFormatError

__all__ = ["read_idx", "read_idx_folder"]

_SIDE = 28
_UNSIGNED_BYTES = 0x08


def read_idx(path: Path, sides: tuple[int, ...]) -> NDArray[np.uint8]:
    """The unsigned bytes of one IDX file.

    The file is: 0, 0, 8, the number of dimensions, each dimension as four bytes (the highest first), the values.

    Args:
        path: the file; a name ending in ``.gz`` is read as gzip.
        sides: all dimensions but the first, which is the number of records.

    Returns:
        (N, *sides), N at least 1.

    Raises:
        FileFormatError: there is no such file, or it is anything else than announced.
    """
    what = f"an IDX file of unsigned bytes, {_shape_text('N', sides)}" + (", in gzip" if path.suffix == ".gz" else "")
    with open_regular(path, what) as file:
        stream: Readable = GzipBytes(file) if path.suffix == ".gz" else file
        count = _records(path, bytes(read_up_to(stream, 4 * (2 + len(sides)))), sides)
        values = count * math.prod(sides)
        body = read_up_to(stream, values + 1)  # one more: it must not be there
    announced = f"{values:,} bytes after the header ({_shape_text(f'{count:,}', sides)})"
    if len(body) < values:
        raise FileFormatError(path, f"{len(body):,} bytes after the header", announced, "The file is cut off.")
    if len(body) > values:
        raise FileFormatError(path, "more bytes than its header announces", announced)
    return np.frombuffer(body, dtype=np.uint8).reshape(count, *sides)


def read_idx_folder(folder: Path, train: bool, class_names: tuple[str, ...], title: str, remedy: str) -> Examples:
    """Images of 28 x 28 and their labels, from the two IDX files of one part.

    Args:
        folder: where ``train-images-idx3-ubyte`` and its fellows are, plain or with ``.gz``; plain goes first.
        train: the training part, or else the test part (``t10k-...``).
        class_names: one name a label.
        title: what the data set is called.
        remedy: what to do where a file is missing.

    Returns:
        Images (N, 1, 28, 28).

    Raises:
        FileFormatError: a file is missing or broken, or the two differ in number.
        LabelError: a label is not one of the classes.
    """
    check_flag("train", train)
    part = "train" if train else "t10k"
    images_path = _plain_or_gzip(folder / f"{part}-images-idx3-ubyte", remedy)
    labels_path = _plain_or_gzip(folder / f"{part}-labels-idx1-ubyte", remedy)
    labels = torch.from_numpy(read_idx(labels_path, ()))
    labels = check_labels(labels, len(class_names), str(labels_path))
    images = read_idx(images_path, (_SIDE, _SIDE))
    if len(images) != len(labels):
        raise FileFormatError(
            labels_path, f"{len(labels):,} labels", f"{len(images):,}, one for each image in {images_path.name}"
        )
    with one_error(images_path, "images that fit into memory"):
        inputs = unit_floats(images).unsqueeze(1)  # (N, 1, 28, 28)
    return Examples(inputs, labels, class_names, f"{title}, {'training' if train else 'test'} part, in {folder}")


def _records(path: Path, header: bytes, sides: tuple[int, ...]) -> int:
    dimensions = 1 + len(sides)
    expected = f"an IDX header of unsigned bytes, {_shape_text('N', sides)}"
    if len(header) < 4 * (1 + dimensions):
        raise FileFormatError(path, f"{len(header)} bytes in all", expected)
    magic = bytes((0, 0, _UNSIGNED_BYTES, dimensions))
    if header[:4] != magic:
        raise FileFormatError(path, f"a beginning of {header[:4].hex(' ')}", f"{magic.hex(' ')}, {expected}")
    count, *found = struct.unpack(f">{dimensions}I", header[4:])
    if tuple(found) != sides:
        raise FileFormatError(path, f"a header of {_shape_text(f'{count:,}', tuple(found))}", expected)
    most = LARGEST // (_SIDE * _SIDE)
    if not 1 <= count <= most:
        raise FileFormatError(path, f"a header of {_shape_text(f'{count:,}', sides)}", f"1 to {most:,} records")
    return int(count)


def _plain_or_gzip(path: Path, remedy: str) -> Path:
    packed = path.with_name(path.name + ".gz")
    with one_error(path, "an IDX file, plain or with .gz"):
        for candidate in (path, packed):
            if candidate.exists():
                return candidate
    raise FileFormatError(path, "nothing there", "an IDX file, plain or with .gz", remedy)


def _shape_text(count: str, sides: tuple[int, ...]) -> str:
    return f"{count} labels" if not sides else f"{count} images of {' x '.join(str(side) for side in sides)}"
