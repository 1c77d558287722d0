"""A file that is either the old one or the new one, whenever the process is killed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from privet.errors import ArgumentError

__all__ = ["check_destination", "remove_leftovers", "write_atomically"]


def check_destination(name: str, path: str | Path) -> Path:
    """Return ``path`` with links followed, or refuse it where no file can be written.

    Args:
        name: the argument, as the caller wrote it.
        path: the file to write.

    Returns:
        The path.

    Raises:
        ArgumentError: it is a folder, or its folder is not there.

    Example:
        >>> check_destination("path", "/")
        Traceback (most recent call last):
        privet.errors.ArgumentError: path = '/' is not allowed; give a file in a folder that exists.
    """
    destination = Path(os.path.realpath(path))
    if destination.is_dir() or not destination.parent.is_dir():
        raise ArgumentError(name, str(path), "a file in a folder that exists")
    return destination


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` next to ``path``, force it to the disk, then put it in place in one step.

    A process killed in between leaves the old file and at most one ``.<name>.<random>.tmp`` beside it.

    Args:
        path: the file.
        data: its new content.

    Raises:
        OSError: the disk refuses; the old file is untouched.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_atomically(Path(folder) / "a", b"new")
        ...     [file.name for file in Path(folder).iterdir()]
        ['a']
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name is on the disk only once its folder is
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left beside ``path`` while writing it.

    Args:
        path: the file that was to be written; no other process may be writing it.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     leftover = Path(folder) / ".a.0123456789abcdef.tmp"
        ...     _ = leftover.write_bytes(b"half")
        ...     remove_leftovers(Path(folder) / "a")
        ...     leftover.exists()
        False
    """
    for file in path.parent.iterdir():
        middle = file.name.removeprefix(f".{path.name}.").removesuffix(".tmp")
        if file.name == f".{path.name}.{middle}.tmp" and len(middle) == 16:
            file.unlink(missing_ok=True)
