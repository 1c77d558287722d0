"""Random bytes that nobody can predict: the source of noise and of samples."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from threading import Lock
from typing import Any, NoReturn, overload

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from privet.errors import ArgumentError, PrivateTrainingError

__all__ = ["KeyStream", "Span", "process"]

_ZEROS = np.zeros(1 << 20, np.uint8)
_ZEROS.flags.writeable = False

_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


def process() -> tuple[int, int]:
    """What tells this process from those it was forked from, even where a process number comes up again."""
    return os.getpid(), _forks


class _Secret:
    """On the class the way to make a secret stream, on a stream whether it is one: one name, and it cannot mislead."""

    @overload
    def __get__(self, stream: None, owner: type[KeyStream]) -> Callable[[], KeyStream]: ...
    @overload
    def __get__(self, stream: KeyStream, owner: type[KeyStream]) -> bool: ...
    def __get__(self, stream: KeyStream | None, owner: type[KeyStream]) -> Callable[[], KeyStream] | bool:
        if stream is None:
            return lambda: owner(os.urandom(32), is_secret=True)
        return stream._is_secret

    def __set__(self, stream: KeyStream, value: object) -> NoReturn:
        raise AttributeError("whether a stream is secret cannot be changed")


class KeyStream:
    r"""A stream of fresh bytes: AES-256 in counter mode.

    .. math:: \mathrm{AES}_k(0), \mathrm{AES}_k(1), \mathrm{AES}_k(2), \ldots

    ``KeyStream.secret()`` makes one whose key the operating system draws and nobody sees; ``stream.secret`` says
    whether a stream is one. What a stream protects that is not secret is not private.

    Threads may share a stream. It can be neither saved nor copied nor sent to another process, so that what was drawn
    once is not drawn again. After a fork a secret stream of the child takes a new key before its next byte; a seeded
    one refuses to go on. Every stretch of bytes has its own number in the upper half of the counter, so that no value
    of the counter serves twice.

    Example:
        >>> stream, numbers = KeyStream.secret(), np.zeros(4, np.uint8)
        >>> stream.fill(numbers)
        >>> stream, stream.secret
        (KeyStream(secret), True)

    References:
        Dworkin, "Recommendation for block cipher modes of operation", NIST SP 800-38A, 2001, section 6.5.
    """

    __slots__ = ("_is_secret", "_keyed")

    secret = _Secret()

    def __init__(self, key: bytes, *, is_secret: bool) -> None:
        self._is_secret = is_secret
        self._keyed = _Keyed(key)

    @classmethod
    def seeded(cls, seed: int, purpose: str, position: int = 0) -> KeyStream:
        """A stream for tests, the same in every run: its key is a hash of the three arguments.

        Args:
            seed: a whole number of at least 0.
            purpose: what the bytes are for; another purpose gives a stream independent of this one.
            position: which of the streams for this purpose, at least 0; as the step at which training goes on.

        Raises:
            ArgumentError: an argument is not of this kind.

        Example:
            >>> one, same, other = np.zeros((3, 2), np.uint8)
            >>> KeyStream.seeded(1, "noise").fill(one)
            >>> KeyStream.seeded(1, "noise").fill(same)
            >>> KeyStream.seeded(1, "sample").fill(other)
            >>> bool((one == same).all()), bool((one == other).all())
            (True, False)
        """
        numbers: list[tuple[str, object]] = [("seed", seed), ("position", position)]
        for name, value in numbers:
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ArgumentError(name, value, "a whole number of at least 0")
        if not isinstance(purpose, str):
            raise ArgumentError("purpose", purpose, "text")
        what = json.dumps(["privet seeded key stream", seed, purpose, position])
        return cls(hashlib.sha256(what.encode()).digest(), is_secret=False)

    def __repr__(self) -> str:
        return "KeyStream(secret)" if self._is_secret else "KeyStream(seeded, NOT PRIVATE: test run)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise PrivateTrainingError(
            "A key stream can be neither saved nor copied nor sent to another process: the copy would give the same "
            "noise again. Make a new stream with KeyStream.secret()."
        )

    def fill(self, buffer: NDArray[Any]) -> None:
        """Overwrite ``buffer`` with fresh bytes.

        Args:
            buffer: a writable, contiguous array.

        Raises:
            ArgumentError: the array is not contiguous or not writable.
            PrivateTrainingError: the stream is seeded and this is a forked process.
        """
        [span] = self.spans(1)
        span.fill(buffer)

    def spans(self, count: int) -> list[Span]:
        """The next ``count`` stretches of the stream, each to be read by one thread at a time.

        What they hold depends on their order alone, not on when or by which thread they are read.

        Raises:
            PrivateTrainingError: the stream is seeded and this is a forked process.
        """
        keyed = self._keyed
        if keyed.home != process():
            if not self._is_secret:
                raise PrivateTrainingError(
                    "A seeded key stream was carried into a forked process, where it would give the same numbers "
                    "again; make a stream in the process that uses it."
                )
            # Two threads may get here together: each goes on with a key of its own, and one key is kept.
            keyed = self._keyed = _Keyed(os.urandom(32))
        first = keyed.take(count)
        return [Span(keyed, number) for number in range(first, first + count)]


class Span:
    """A stretch of a key stream, read from its start; at most 2^64 blocks."""

    __slots__ = ("_encryptor", "_home")

    def __init__(self, keyed: _Keyed, number: int) -> None:
        counter = number.to_bytes(8, "big") + bytes(8)
        self._encryptor = Cipher(keyed.cipher, modes.CTR(counter)).encryptor()
        self._home = keyed.home

    def fill(self, buffer: NDArray[Any]) -> None:
        """Overwrite ``buffer``, a writable and contiguous array, with the next bytes of the stretch.

        Raises:
            ArgumentError: the array is not contiguous or not writable.
            PrivateTrainingError: this is a forked process.
        """
        if not (buffer.flags.c_contiguous and buffer.flags.writeable):
            raise ArgumentError("buffer", f"an array of shape {buffer.shape}", "a writable, contiguous array")
        if self._home != process():
            raise PrivateTrainingError("A span was carried into a forked process; take spans where they are read.")
        raw = buffer.reshape(-1).view(np.uint8)
        for start in range(0, len(raw), len(_ZEROS)):
            piece = raw[start : start + len(_ZEROS)]
            self._encryptor.update_into(_ZEROS[: len(piece)].data, piece.data)


class _Keyed:
    """A key, where it was made, and the number of the next span."""

    __slots__ = ("_lock", "_next", "cipher", "home")

    def __init__(self, key: bytes) -> None:
        self.home = process()
        self.cipher = algorithms.AES(key)
        self._lock = Lock()  # made anew with the key: a fork may leave the old one locked for ever
        self._next = 0

    def take(self, count: int) -> int:
        with self._lock:
            first = self._next
            self._next += count
        return first
