"""How every reader meets a file it has no reason to trust."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from privet.errors import FileFormatError, PrivetError

__all__ = [
    "LARGEST",
    "one_error",
    "open_regular",
    "read_up_to",
    "require_folder",
    "unit_floats",
]

LARGEST = 2**29  # values of one data set in memory: 2 GiB as float32

_CHUNK = 2**20


class Readable(Protocol):
    """Something that gives bytes."""

    def read(self, count: int, /) -> bytes | bytearray:
        """At most ``count`` bytes, none at the end."""


@contextmanager
def one_error(path: Path, expected: str, remedy: str = "") -> Iterator[None]:
    """Whatever a parser of untrusted bytes raises becomes one FileFormatError that names the file."""
    try:
        yield
    except PrivetError:
        raise
    except Exception as error:  # parsers of broken bytes raise nearly everything; no list of types is complete
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise FileFormatError(path, f"bytes that cannot be read ({said[:300]})", expected, remedy) from error


@contextmanager
def open_regular(path: Path, expected: str, remedy: str = "") -> Iterator[BinaryIO]:
    """A regular file, opened for reading bytes; errors while it is read are turned into one."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # a pipe would be waited for, a device read without end
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise FileFormatError(path, kind, expected, remedy)
        file = path.open("rb")
    except FileNotFoundError:
        raise FileFormatError(path, "nothing there", expected, remedy) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise FileFormatError(path, f"a file that cannot be opened ({error})", expected, remedy) from error
    with file, one_error(path, expected, remedy):
        yield file


def require_folder(path: Path, expected: str, remedy: str = "") -> None:
    """A FileFormatError if ``path`` is not a folder."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise FileFormatError(path, "nothing there", expected, remedy) from None
    except (OSError, ValueError) as error:
        raise FileFormatError(path, f"a folder that cannot be opened ({error})", expected, remedy) from error
    if not stat.S_ISDIR(mode):
        raise FileFormatError(path, "a file", expected, remedy)


def read_up_to(stream: Readable, count: int) -> bytearray:
    """At most ``count`` bytes; memory grows with what is there, not with ``count``."""
    got = bytearray()
    while len(got) < count:
        chunk = stream.read(min(_CHUNK, count - len(got)))
        if not chunk:
            break
        got += chunk
    return got


def unit_floats(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """Bytes 0 ... 255 as float32 in [0, 1]: x / 255."""
    return torch.from_numpy(pixels).to(torch.float32).div_(255)
