"""Which code is the user's own, and which a package's, that its version stands for."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
import sys
import sysconfig
from pathlib import Path

__all__ = ["is_installed", "release"]

_PRIVET, _DEPTH = "privet", __name__.count(".") - 1
_INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib"))


@functools.cache
def is_installed(module: str | None) -> bool:
    """Whether a module is Python's own or of an installed package, and not the user's."""
    if module is None or module.partition(".")[0] == _PRIVET:
        return True
    found = sys.modules.get(module)
    if module in sys.builtin_module_names or (found is not None and getattr(found, "__spec__", None) is None):
        return module != "__main__" and module in sys.stdlib_module_names
    file = getattr(found, "__file__", None)
    if found is None or file is None:
        return module.partition(".")[0] in sys.stdlib_module_names
    return any(Path(file).resolve().is_relative_to(folder) for folder in _INSTALLED)


@functools.cache
def release(module: str) -> str:
    """A module's name and the version of its package."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return f"{module} {platform.python_version()}"
    if top == _PRIVET:
        return f"{module} {_sources_of_privet()}"
    version = getattr(sys.modules.get(top), "__version__", None)
    if not isinstance(version, str):
        try:
            version = importlib.metadata.version(top)
        except importlib.metadata.PackageNotFoundError:
            version = ""
    return f"{module} {version}"


@functools.cache
def _sources_of_privet() -> str:
    """This library by its text: between two versions its code changes too."""
    folder = Path(__file__).parents[_DEPTH]
    files = sorted(folder.rglob("*.py"))
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()
