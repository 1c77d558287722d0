"""Run something in a forked process and read what it says."""

import os
import signal
from collections.abc import Callable


def forked(say: Callable[[], bytes]) -> bytes:
    """What ``say`` returns in a forked child; the name and text of what it raises, if it does."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:  # no pytest, no cleaning up in here; and an end, should it hang
        signal.alarm(30)
        try:
            said = say()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}".encode()
        os.write(writer, said)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said
