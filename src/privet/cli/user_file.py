"""``file.py:function``: a function from a file that the user named on the command line. The file is executed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privet.errors import ArgumentError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["function_from", "network_from", "told"]


def function_from(name: str, reference: str) -> Callable[..., Any]:
    """The function of a ``file.py:function``; the file is executed, its folder is searched for what it imports.

    Args:
        name: of the argument, for errors.
        reference: as typed.

    Raises:
        ArgumentError: there is no such file or function, or the file ends in an error.
    """
    file, _, function = reference.rpartition(":")
    path = Path(file)
    if path.suffix != ".py" or not function.isidentifier():
        raise ArgumentError(name, reference, "file.py:function, such as model.py:build")
    if not path.is_file():
        raise ArgumentError(name, reference, "a file that exists", f"There is no {file}.")
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    known = sys.modules.get(path.stem)
    if known is None:
        sys.modules[path.stem] = module  # dataclasses and the like look for it there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        if known is None:
            del sys.modules[path.stem]
        said = f"It ended in {told(error, path)}."
        raise ArgumentError(name, reference, "a file that can be executed", said) from error
    found = getattr(module, function, None)
    if not callable(found):
        functions = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == path.stem]
        there = f"; there is {', '.join(functions[:8])}" if functions else ""
        raise ArgumentError(name, reference, f"a function that {file} defines{there}")
    return found  # type: ignore[no-any-return]


def network_from(name: str, reference: str) -> nn.Module:
    """The network that the function of a ``file.py:function`` builds, without arguments.

    Args:
        name: of the argument, for errors.
        reference: as typed.

    Raises:
        ArgumentError: as :func:`function_from`, or the function ends in an error or gives something else.
    """
    from torch import nn

    build = function_from(name, reference)
    try:
        network = build()
    except (Exception, SystemExit) as error:
        said = f"It ended in {told(error, Path(reference.rpartition(':')[0]))}."
        raise ArgumentError(name, reference, "a function that needs no arguments", said) from error
    if not isinstance(network, nn.Module):
        said = f"It gave a {type(network).__name__}."
        raise ArgumentError(name, reference, "a function that returns a torch.nn.Module", said)
    return network


def told(error: BaseException, path: Path) -> str:
    """One line about an error, with the line of the user's file it came from.

    Args:
        error: as it was raised.
        path: the user's file.
    """
    here = path.resolve()
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename) == here:
            line = trace.tb_lineno
        trace = trace.tb_next
    said = next(iter(str(error).strip().splitlines()), "").rstrip(".")
    where = "" if line is None else f" at line {line}"
    return f"{type(error).__name__}{where}{f': {said}' if said else ''}"
