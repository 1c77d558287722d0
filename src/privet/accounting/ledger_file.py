"""Where a ledger's bytes lie: a file held by one process, or memory.

Bytes are only ever appended. No byte that was written is changed or removed.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import sys
import weakref
from pathlib import Path
from typing import Protocol

from privet.accounting.history import LARGEST_FILE
from privet.errors import LedgerBusyError, LedgerCorruptError, LedgerError

if sys.platform != "win32":
    import fcntl

__all__ = ["DiskFile", "LedgerFile", "MemoryFile", "read_bytes"]


class LedgerFile(Protocol):
    """What a ledger needs of its storage. A fake that fails on purpose is how the ledger is tested."""

    @property
    def name(self) -> str:
        """How messages name it."""

    def read(self) -> bytes:
        """All bytes."""

    def size(self) -> int:
        """How many bytes there are now.

        Raises:
            OSError: the storage is gone or was replaced.
        """

    def write(self, data: bytes) -> int:
        """Append, and return how many of the bytes were taken, which may be fewer.

        Raises:
            OSError: it refuses, after any number of them.
        """

    def sync(self) -> None:
        """Return once everything written outlasts a loss of power.

        Raises:
            OSError: it may not.
        """

    def close(self) -> None:
        """Let go of it. A second call does nothing."""


class MemoryFile:
    """Bytes that end with the process."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = bytearray(data)

    @property
    def name(self) -> str:
        """How messages name it."""
        return "ledger in memory"

    def read(self) -> bytes:
        """All bytes."""
        return bytes(self._data)

    def size(self) -> int:
        """How many bytes there are."""
        return len(self._data)

    def write(self, data: bytes) -> int:
        """Append all of them."""
        self._data += data
        return len(data)

    def sync(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class DiskFile:
    """A regular file, locked for as long as it is open, written at its end alone.

    Args:
        path: the file.
        create: make it; it must not be there. Otherwise it must be.

    Raises:
        LedgerBusyError: another process, or this one, holds it.
        LedgerCorruptError: it is larger than a ledger may be.
        LedgerError: it cannot be opened for the reason given.
    """

    def __init__(self, path: str | Path, *, create: bool) -> None:
        self._path = Path(os.path.abspath(path))  # noqa: PTH100  # resolve() would follow a link
        if sys.platform == "win32":
            raise LedgerError(f"{path}: a ledger on disk needs the file locks of Linux or macOS; use Ledger.in_memory.")
        flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT | os.O_EXCL if create else 0)
        self._file = _open(self._path, flags, "rb+")
        try:
            _lock(self._file.fileno(), self._path)
            self.size()
            if create:
                _sync_folder(self._path.parent)
        except BaseException as error:
            self.remove() if create else self.close()
            if isinstance(error, OSError):
                raise LedgerError(f"{self._path}: it cannot be opened: {error}.") from error
            raise
        _OPEN_FILES.add(self)

    @property
    def name(self) -> str:
        """The path."""
        return str(self._path)

    def read(self) -> bytes:
        """All bytes."""
        return _read(self._file, self._path)

    def size(self) -> int:
        """How many bytes there are; a file that was replaced, moved or removed is an :class:`OSError`."""
        here, there = os.fstat(self._file.fileno()), os.lstat(self._path)
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            raise OSError(errno.ESTALE, "it was moved or replaced by another file")
        return here.st_size

    def write(self, data: bytes) -> int:
        """Append what the file takes in one go."""
        return self._file.write(data) or 0

    def sync(self) -> None:
        """Force it to the disk itself; on macOS that takes more than ``fsync``."""
        if sys.platform == "darwin":
            with contextlib.suppress(OSError):  # file systems without it have fsync alone
                fcntl.fcntl(self._file.fileno(), fcntl.F_FULLFSYNC)
                return
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close it, which unlocks it."""
        self._file.close()

    def remove(self) -> None:
        """Close a file whose creation failed, and remove it."""
        with contextlib.suppress(OSError):
            self.size()  # raises unless the path is still this file
            self._path.unlink()
        self.close()


def read_bytes(path: str | Path) -> bytes:
    """Return the bytes of a ledger without locking it.

    Args:
        path: the file; not a link, folder or pipe.

    Raises:
        LedgerCorruptError: it is larger than a ledger may be.
        LedgerError: it cannot be read for the reason given.
    """
    with _open(Path(path), os.O_RDONLY, "rb") as file:
        return _read(file, Path(path))


def _open(path: Path, flags: int, mode: str) -> io.FileIO:
    """Open a regular file and nothing else: no link is followed, and no pipe is waited for."""
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    flags |= getattr(os, "O_BINARY", 0)
    file = None
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise LedgerError(f"{path}: it is not a regular file; give the path of the ledger itself.")
        descriptor = os.open(path, flags, 0o666)
        file = io.FileIO(descriptor, mode)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise LedgerError(f"{path}: it is not a regular file; give the path of the ledger itself.")
        return file
    except FileExistsError as error:
        raise LedgerError(f"{path}: it is there already, and a ledger is never replaced; open it instead.") from error
    except FileNotFoundError as error:
        raise LedgerError(f"{path}: there is no such file or folder.") from error
    except (OSError, ValueError) as error:
        raise LedgerError(f"{path!s}: it cannot be opened: {error}.") from error
    except LedgerError:
        if file is not None:
            file.close()
        raise


def _read(file: io.FileIO, path: Path) -> bytes:
    try:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST_FILE:
            raise LedgerCorruptError(f"{path}: it has {size:,} bytes; a ledger has at most {LARGEST_FILE:,}.")
        file.seek(0)
        return file.readall()
    except OSError as error:
        raise LedgerError(f"{path}: it cannot be read: {error}.") from error


def _sync_folder(folder: Path) -> None:
    """Make the name of a new file outlast a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if sys.platform != "win32":

    def _lock(descriptor: int, path: Path) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LedgerBusyError(
                f"{path}: {_holder(os.fstat(descriptor))} holds this ledger. A ledger has one writer at a time: wait "
                "until it ends, or end it."
            ) from error

    def _holder(status: os.stat_result) -> str:
        """Name the process that holds the lock, where the system tells."""
        device, inode = status.st_dev, status.st_ino
        wanted = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
        with contextlib.suppress(OSError, ValueError):
            for line in Path("/proc/locks").read_text().splitlines():
                words = line.split()
                if len(words) > 5 and words[1] == "FLOCK" and words[5] == wanted and int(words[4]) > 0:
                    ours = " (this one)" if int(words[4]) == os.getpid() else " (or a child it left)"
                    return f"process {words[4]}{ours}"
        return "another process"


_OPEN_FILES: weakref.WeakSet[DiskFile] = weakref.WeakSet()


def _close_in_child() -> None:
    """A forked worker shares the lock: were its copy left open, it would hold the lock after its parent's end."""
    for file in list(_OPEN_FILES):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
