"""A gzip stream read byte for byte: never more is decompressed than was asked for."""

from __future__ import annotations

import zlib
from typing import BinaryIO

__all__ = ["GzipBytes"]

_GZIP = 31  # zlib's code for a gzip header and trailer with the largest window
_CHUNK = 2**16


class GzipBytes:
    """The decompressed bytes of an open gzip file.

    The check sum of a member is compared when its end is read, so a caller that wants it compared asks for one byte
    more than it needs.

    Args:
        file: a file opened for reading bytes.

    Example:
        >>> import gzip, io
        >>> GzipBytes(io.BytesIO(gzip.compress(b"hedge"))).read(3)
        bytearray(b'hed')
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._packed = b""
        self._inflate = zlib.decompressobj(_GZIP)

    def read(self, count: int) -> bytearray:
        """The next ``count`` bytes, fewer only where the stream ends.

        Args:
            count: how many bytes, 0 or more.

        Returns:
            The bytes; as much memory is used as there are bytes, whatever ``count`` says.

        Raises:
            EOFError: the file ends inside the gzip stream.
            zlib.error: the file is no gzip file, or its check sum differs.
        """
        got = bytearray()
        while len(got) < count:
            if self._inflate.eof and not self._next_member():
                break
            packed = self._packed or self._file.read(_CHUNK)
            unpacked = self._inflate.decompress(packed, count - len(got))
            self._packed = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            got += unpacked
            if not packed and not unpacked and not self._inflate.eof:
                raise EOFError("the file ends inside the gzip stream")
        return got

    def _next_member(self) -> bool:
        # A gzip file may be several, one after the other; zlib refuses anything else that follows.
        self._packed = self._packed or self._file.read(_CHUNK)
        if not self._packed:
            return False
        self._inflate = zlib.decompressobj(_GZIP)
        return True
