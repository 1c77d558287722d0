"""One writer at a time: a lock that ends with its process, however that ends."""

from __future__ import annotations

import io
import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from privet.errors import CheckpointError, FileWriteError

if sys.platform != "win32":
    import fcntl

__all__ = ["locked"]

_HELD: weakref.WeakSet[io.FileIO] = weakref.WeakSet()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock ``path``, a file beside what it protects.

    Args:
        path: the lock file, made if it is not there, and left.

    Raises:
        CheckpointError: another process, or another part of this one, holds it.
        FileWriteError: the system refuses.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, locked(Path(folder) / "lock"):
        ...     print("mine")
        mine
    """
    if sys.platform == "win32":
        raise CheckpointError(f"{path.parent}: a store needs the file locks of Linux or macOS; leave store= out.")
    try:
        file = io.FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+")
    except OSError as error:
        raise FileWriteError(path, error.strerror or str(error)) from error
    with file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = file.read(32).decode("ascii", "replace")
            raise CheckpointError(
                f"{path.parent}: process {holder or 'unknown'} is adding shadow models to this store. One run at a "
                "time: wait until it ends, or give another store."
            ) from error
        os.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), str(os.getpid()).encode("ascii"), 0)
        _HELD.add(file)
        yield


def _close_in_child() -> None:
    """A forked child shares the lock: were its copy left open, it would hold the lock after its parent's end."""
    for file in list(_HELD):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
