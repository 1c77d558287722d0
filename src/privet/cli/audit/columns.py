"""Records, columns and scores from the files that were named."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privet import data
from privet.cli.audit.request import Request
from privet.errors import ArgumentError, FileFormatError

__all__ = ["column_from", "records_from", "scores_from", "vector_from"]


def scores_from(name: str, path: str) -> NDArray[np.float64]:
    """The scores (N,) of a .npy file.

    Args:
        name: the argument, for errors.
        path: of the file.

    Raises:
        FileFormatError: the file is missing, pickled, or no vector of numbers.
    """
    found = vector_from(name, path)
    if found.dtype.kind not in "biuf":
        raise FileFormatError(path, f"an array of {found.dtype}", "one number a record")
    return found.astype(np.float64)


def vector_from(name: str, path: str) -> NDArray[Any]:
    """The vector (N,) of a .npy file, of any type that needs no pickle.

    Args:
        name: the argument, for errors.
        path: of the file.

    Raises:
        FileFormatError: the file is missing, pickled, or holds no vector.
    """
    try:
        found = np.load(path, allow_pickle=False)
    except OSError as error:
        raise FileFormatError(path, error.strerror or "no file", f"an .npy file for {name}") from error
    except (ValueError, EOFError) as error:
        raise FileFormatError(path, "no array, or a pickled one", f"an .npy file for {name}") from error
    if not isinstance(found, np.ndarray) or found.ndim != 1:
        shape = found.shape if isinstance(found, np.ndarray) else "an archive"
        raise FileFormatError(path, f"{shape}", "a vector (N,)")
    return found


def records_from(name: str, reference: str, folder: str | None) -> data.Examples:
    """The records of a source as it was typed: a name, a path, or a name and which part, as in ``mnist:test``.

    Args:
        name: the argument, for errors.
        reference: as typed.
        folder: where the files of a data set known by its name are.

    Raises:
        ArgumentError: there is no such source.
        FileFormatError: a file of it is missing or of another form.
    """
    source, _, part = reference.rpartition(":")
    if not source or part not in ("train", "test"):
        source, part = reference, "train"
    in_folder = folder if source in ("mnist", "cifar10", "cifar100", "fashion-mnist") else None
    try:
        return data.load(source, in_folder, part == "train")
    except ArgumentError as error:
        raise ArgumentError(name, reference, error.allowed, error.remedy) from None


def column_from(name: str, request: Request, members: data.Examples, non_members: data.Examples) -> NDArray[Any]:
    """A column (M + N,): the names of the classes, or an array of both .npz files.

    Args:
        name: ``class``, or the name of an array.
        request: says which files.
        members: read from them.
        non_members: read from them.

    Raises:
        ArgumentError: there is no such column.
        FileFormatError: it does not have one value a record.
    """
    if name == "class":
        names = [np.asarray(each.class_names)[each.labels.numpy()] for each in (members, non_members)]
        return np.concatenate(names)
    parts = []
    for reference, records in ((request.members, members), (request.non_members, non_members)):
        assert reference is not None
        if not reference.endswith(".npz"):
            raise ArgumentError("--slice", name, f"class: {reference} is no .npz file and has no other columns")
        with np.load(reference, allow_pickle=False) as archive:
            if name not in archive.files:
                raise ArgumentError("--slice", name, f"class, or an array of {reference}: {', '.join(archive.files)}")
            try:
                part = archive[name]
            except ValueError as error:
                raise FileFormatError(reference, f"{name} pickled", "plain arrays") from error
        if part.shape != (len(records),):
            raise FileFormatError(reference, f"{name} of shape {part.shape}", f"({len(records)},), one a record")
        parts.append(part)
    return np.concatenate(parts)
