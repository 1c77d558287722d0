"""NumPy archives (.npz) of inputs and labels, read without pickle."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from privet.atomic_file import check_destination, replacing
from privet.data.arguments import AnyPath, as_path, is_whole
from privet.data.examples import Examples
from privet.data.labels import MOST_CLASSES, check_class_names, check_labels, numbered_names
from privet.data.reading import LARGEST, open_regular, read_up_to, unit_floats
from privet.errors import ArgumentError, FileFormatError, LabelError

__all__ = ["npz", "save_npz"]

_INPUTS, _LABELS, _NAMES = ("x", "inputs"), ("y", "labels"), ("class_names",)
_ARCHIVE = "a NumPy archive (.npz) with the arrays x and y"
_MOST_NAME_BYTES = 2**22  # of the names of all classes, four a character; 65,536 numbers need a third of it
_CHANNELS_FIRST = "images as (N, C, H, W): transpose (N, H, W, C) with x.transpose(0, 3, 1, 2)"
_TABLE = "floating values, or whole numbers up to 2**24"
_MOST_MEMBERS = 1_000
_LONGEST_HEADER = 10_000


def npz(path: AnyPath, classes: int | None = None) -> Examples:
    """Inputs and labels from one .npz file, as ``np.savez(path, x=x, y=y)`` writes it.

    Args:
        path: the file. It holds ``x`` (or ``inputs``): images (N, C, H, W) or (N, H, W), or a table (N, F); and ``y``
            (or ``labels``): (N,) integers. It may hold ``class_names``: text, one name a class.
            Images of uint8 are divided by 255; floating values are taken as they are, in float32; a table may also
            hold whole numbers.
        classes: how many classes there are, where the file names none; None for the largest label plus one.

    Returns:
        Images (N, C, H, W) or a table (N, F), float32.

    Raises:
        ArgumentError: ``classes`` is no number of classes.
        FileFormatError: the file is missing, corrupt, pickled, or its arrays are of another kind.
        LabelError: labels that are not integers in 0 ... classes - 1.

    Example:
        >>> npz("no_such_file.npz")
        Traceback (most recent call last):
        privet.errors.FileFormatError: no_such_file.npz: found nothing there; expected a NumPy archive (.npz) \
with the arrays x and y.
    """
    if classes is not None and not is_whole(classes, 1, MOST_CLASSES):
        raise ArgumentError("classes", classes, f"an integer from 1 to {MOST_CLASSES:,}, or None")
    file = as_path("path", path)
    with _members(file) as (archive, keys):
        x = _announced(file, archive, _key(file, keys, _INPUTS), keys)
        y = _announced(file, archive, _key(file, keys, _LABELS), keys)
        names = _announced(file, archive, _NAMES[0], keys) if _NAMES[0] in keys else None
        _check_announced(file, x, y, names)  # before any of them is unpacked
        labels = _label_tensor(file, _array(file, archive, y))
        class_names = _names(file, None if names is None else _array(file, archive, names), labels, classes)
        check_labels(labels, len(class_names), str(file))
        return Examples(_input_tensor(file, _array(file, archive, x)), labels, class_names, str(file))


def save_npz(path: AnyPath, examples: Examples) -> None:
    """Write examples as ``npz`` reads them: x, y and class_names.

    The file appears whole or not at all; one that is already there is replaced.

    Args:
        path: where to, ending in ``.npz``, in a folder that exists.
        examples: of float32, or of 16 bits, which are written as float32; shape (N, F) or (N, C, H, W).

    Raises:
        ArgumentError: another suffix, dtype or shape, or a folder that is not there.
        FileWriteError: the system refuses the file.

    Example:
        >>> save_npz("digits.csv", None)
        Traceback (most recent call last):
        privet.errors.ArgumentError: path = 'digits.csv' is not allowed; give a path that ends in .npz.
    """
    target = as_path("path", path)
    if target.suffix != ".npz":
        raise ArgumentError("path", str(path), "a path that ends in .npz")
    if not isinstance(examples, Examples):
        raise ArgumentError("examples", examples, "Examples")
    if examples.inputs.dtype == torch.float64:
        raise ArgumentError(
            "examples.inputs.dtype",
            torch.float64,
            "torch.float32",
            "Choose the rounding: Examples(inputs.float(), ...).",
        )
    if examples.inputs.ndim not in (2, 4):
        raise ArgumentError("examples.inputs.shape", tuple(examples.inputs.shape), "(N, F) or (N, C, H, W)")
    if _channels_last(tuple(examples.inputs.shape)):
        raise ArgumentError("examples.inputs.shape", tuple(examples.inputs.shape), _CHANNELS_FIRST)
    arrays = {
        _INPUTS[0]: examples.inputs.detach().to("cpu", torch.float32).numpy(),
        _LABELS[0]: examples.labels.cpu().numpy(),
        _NAMES[0]: np.array(examples.class_names, dtype=np.str_),
    }
    if arrays[_NAMES[0]].nbytes > _MOST_NAME_BYTES:  # NumPy gives every name the room of the longest
        allowed = f"fewer or shorter names, {_MOST_NAME_BYTES:,} bytes with each as wide as the longest"
        raise ArgumentError("examples.class_names", f"{len(examples.class_names):,} names", allowed)
    with replacing(check_destination("path", target)) as file:
        np.savez(file, allow_pickle=False, **arrays)


@contextlib.contextmanager
def _members(path: Path) -> Iterator[tuple[zipfile.ZipFile, tuple[str, ...]]]:
    with open_regular(path, _ARCHIVE) as file, zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if len(names) > _MOST_MEMBERS or len(set(names)) != len(names):
            raise FileFormatError(path, f"{len(names):,} entries, {len(set(names)):,} of them distinct", _ARCHIVE)
        yield archive, tuple(name.removesuffix(".npy") for name in names if name.endswith(".npy"))


def _key(path: Path, keys: tuple[str, ...], names: tuple[str, ...]) -> str:
    there = [name for name in names if name in keys]
    if len(there) != 1:
        shown = ", ".join(keys)[:300] or "none"
        raise FileFormatError(path, f"the arrays {shown}", f"exactly one of {' and '.join(names)} among them")
    return there[0]


@dataclass(frozen=True)
class _Announced:
    """What the header of an array says; nothing of it is believed."""

    info: zipfile.ZipInfo
    where: str
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def values(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        return self.values * self.dtype.itemsize


def _announced(path: Path, archive: zipfile.ZipFile, key: str, keys: tuple[str, ...]) -> _Announced:
    info = archive.getinfo(f"{key}.npy")
    where = f"the array {key!r} (arrays: {', '.join(keys)[:300]})"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise FileFormatError(path, f"{where} encrypted or compressed by another method", "stored or deflated entries")
    with archive.open(info) as member:
        shape, fortran, dtype = _header(path, member, where)  # type: ignore[arg-type]
    if dtype.hasobject:
        raise FileFormatError(path, f"{where} of pickled objects, which can run code", "numbers, or text (dtype U)")
    if dtype.kind not in "iufUb" or not shape or min(shape) < 1 or dtype.itemsize < 1:
        raise FileFormatError(path, f"{where} of {dtype}, shape {shape}", "numbers or text, not empty")
    return _Announced(info, where, shape, fortran, dtype)


def _check_announced(path: Path, x: _Announced, y: _Announced, names: _Announced | None) -> None:
    if len(x.shape) not in (2, 3, 4):
        raise FileFormatError(path, f"inputs of shape {x.shape}", "(N, F), (N, H, W) or (N, C, H, W)")
    if _channels_last(x.shape):
        raise FileFormatError(path, f"inputs of shape {x.shape}", _CHANNELS_FIRST)
    if x.values > LARGEST or x.size > 8 * LARGEST:  # as float64; wider floats are few
        raise FileFormatError(path, f"{x.values:,} values", f"at most {LARGEST:,}")
    table = len(x.shape) == 2
    if x.dtype.kind not in "iuf" or not (table or x.dtype.kind == "f" or x.dtype == np.uint8):
        raise FileFormatError(path, f"inputs of {x.dtype}", _TABLE if table else "uint8 or floating values")
    if y.dtype.kind not in "iu" or len(y.shape) != 1:
        raise LabelError(
            f"{path}: labels are {y.dtype} of shape {y.shape}; give integers from 0, of shape (N,), as int64."
        )
    if x.shape[0] != y.shape[0]:
        raise FileFormatError(path, f"{x.shape[0]:,} inputs and {y.shape[0]:,} labels", "one label for each input")
    if names is None:
        return
    if names.dtype.kind != "U" or len(names.shape) != 1:
        raise FileFormatError(path, f"class_names of {names.dtype}, shape {names.shape}", "text (dtype U), a row of it")
    if names.size > _MOST_NAME_BYTES:
        raise FileFormatError(path, f"class_names of {names.size:,} bytes", f"at most {_MOST_NAME_BYTES:,}")


def _channels_last(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3)


def _array(path: Path, archive: zipfile.ZipFile, announced: _Announced) -> NDArray[Any]:
    # np.load would allocate whatever the header claims; here memory grows with what the entry holds.
    where, size, dtype = announced.where, announced.size, announced.dtype
    with archive.open(announced.info) as member:
        _header(path, member, where)  # type: ignore[arg-type]
        content = read_up_to(member, size + 1)
    if len(content) != size:
        found = f"{len(content):,} bytes" if len(content) < size else "more bytes"
        raise FileFormatError(path, f"{found} in {where}", f"{size:,}, as its header announces")
    array = np.frombuffer(content, dtype=dtype).reshape(announced.shape, order="F" if announced.fortran else "C")
    return array.astype(dtype.newbyteorder("="), order="C", copy=False)


def _header(path: Path, member: BinaryIO, where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(member, max_header_size=_LONGEST_HEADER)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(member, max_header_size=_LONGEST_HEADER)
    raise FileFormatError(path, f"{where} in version {version} of the format", "version (1, 0) or (2, 0)")


def _label_tensor(path: Path, y: NDArray[Any]) -> torch.Tensor:
    if y.dtype == np.uint64 and (too_large := np.flatnonzero(y > np.uint64(2**63 - 1))).size:
        index = int(too_large[0])  # as int64 it would turn negative
        raise LabelError(
            f"{path}: labels[{index}] = {int(y[index])} is not allowed; give integers from 0, at most "
            f"{MOST_CLASSES - 1:,}."
        )
    return torch.from_numpy(y.astype(np.int64))


def _names(path: Path, names: NDArray[Any] | None, labels: torch.Tensor, classes: int | None) -> tuple[str, ...]:
    if names is None:
        return numbered_names(labels, str(path)) if classes is None else tuple(str(number) for number in range(classes))
    if classes is not None and classes != len(names):
        raise ArgumentError("classes", classes, f"{len(names)}, as many as {path} names, or None")
    class_names = tuple(str(name) for name in names.tolist())
    check_class_names(class_names, str(path))
    return class_names


def _input_tensor(path: Path, x: NDArray[Any]) -> torch.Tensor:
    images = x.ndim > 2
    if x.ndim == 3:
        x = x[:, None]  # (N, 1, H, W)
    if images and x.dtype == np.uint8:
        return unit_floats(x)
    if x.dtype.kind != "f" and not ((x >= -(2**24)) & (x <= 2**24)).all():
        raise FileFormatError(path, f"inputs of {x.dtype} beyond 2**24", _TABLE)
    with np.errstate(over="ignore"):
        single = x.astype(np.float32)
    if not np.isfinite(single).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(single))[0])
        raise FileFormatError(path, f"inputs{list(index)} = {x[index]}", "finite numbers that fit into float32")
    return torch.from_numpy(single)
