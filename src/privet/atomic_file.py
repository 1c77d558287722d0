"""A file that is either the old one or the new one, whole, whenever the process is killed."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from privet.errors import ArgumentError, FileWriteError

__all__ = ["check_destination", "remove_leftovers", "replacing"]

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def check_destination(name: str, path: str | os.PathLike[str]) -> Path:
    """Return ``path`` with links followed, or refuse it where no file can be written.

    Args:
        name: the argument, as the caller wrote it.
        path: the file to write.

    Returns:
        The path.

    Raises:
        ArgumentError: it is a folder or a device, or its folder is not there.

    Example:
        >>> check_destination("path", "/")
        Traceback (most recent call last):
        privet.errors.ArgumentError: path = '/' is not allowed; give a file in a folder that exists.
    """
    try:
        destination = _followed(path)
        _rights(destination)
        usable = destination.parent.is_dir()
    except OSError:
        usable = False
    if not usable:
        raise ArgumentError(name, str(path), "a file in a folder that exists")
    return destination


@contextmanager
def replacing(path: str | os.PathLike[str], *, make_folder: bool = False) -> Iterator[BinaryIO]:
    """Open a draft next to ``path`` for writing; on leaving, force it to the disk and put it in place in one step.

    Links are followed. A new file has the rights the umask leaves; one that replaces another has no right the other
    did not have. An error inside leaves what was there and no draft; a process killed inside leaves what was there and
    at most one ``.<name>.<random>.tmp`` beside it.

    Args:
        path: the file.
        make_folder: make its folder, and those above, where they are missing.

    Yields:
        The draft, opened for writing bytes.

    Raises:
        FileWriteError: the system refuses, in whatever way.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with replacing(Path(folder) / "a") as file:
        ...         _ = file.write(b"new")
        ...     [file.name for file in Path(folder).iterdir()]
        ['a']
    """
    draft: Path | None = None
    try:
        target = _followed(path)
        if make_folder:
            target.parent.mkdir(parents=True, exist_ok=True)
        rights = _rights(target)
        name = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        handle = os.open(name, _NEW, rights)
        draft = name
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
        draft = None
    except OSError as error:
        raise FileWriteError(os.fspath(path), _said(error)) from error
    finally:
        if draft is not None:
            with suppress(OSError):
                draft.unlink()
    _settle(target)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left beside ``path`` while writing it.

    Args:
        path: the file that was to be written, links followed; no other process may be writing it.

    Raises:
        FileWriteError: the system refuses.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     leftover = Path(folder) / ".a.0123456789abcdef.tmp"
        ...     _ = leftover.write_bytes(b"half")
        ...     remove_leftovers(Path(folder) / "a")
        ...     leftover.exists()
        False
    """
    try:
        for file in path.parent.iterdir():
            middle = file.name.removeprefix(f".{path.name}.").removesuffix(".tmp")
            if file.name == f".{path.name}.{middle}.tmp" and len(middle) == 16:
                file.unlink(missing_ok=True)
    except OSError as error:
        raise FileWriteError(path, _said(error)) from error


def _followed(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(os.path.realpath(path))
    except ValueError as error:  # a null byte
        raise OSError(str(error)) from error


def _rights(target: Path) -> int:
    """The mode to ask for: the umask takes its part of it, in every thread alike and with nothing set."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return 0o666
    if not stat.S_ISREG(mode):  # a folder cannot be replaced, and a device should not be
        raise OSError("it is a folder" if stat.S_ISDIR(mode) else "it is no regular file")
    return stat.S_IMODE(mode) & 0o666


def _settle(target: Path) -> None:
    """The new name is on the disk only once its folder is."""
    if os.name != "posix":
        return
    try:
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        remains = "the new content is there, but may not outlive a power failure"
        raise FileWriteError(target, _said(error), remains) from error


def _said(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
