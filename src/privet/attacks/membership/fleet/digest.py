"""What a training function is, as one digest: its code, and the values that its code can reach.

A function's digest covers its bytecode, defaults and closure, and whatever its code names: functions and classes by
their own digests, values by theirs, all the way down. It changes when a constant in a closure, a global, a method of a
class or a tensor changes, and stays when comments, or functions that are never reached, do. What an installed package
defines stands for itself with the package's version, and this library for the text of its files.

It does not see what training reads by itself: files, the environment, the network.
"""

from __future__ import annotations

import builtins
import copyreg
import dis
import enum
import functools
import hashlib
import importlib
import importlib.util
import inspect
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from privet.attacks.membership.fleet.packages import is_installed, release
from privet.errors import ArgumentError

__all__ = ["digest"]

_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, type(...), type(NotImplemented), range, slice)
_UNSEEN = (eval, exec, compile, globals, __import__, importlib.import_module)  # who names these may reach anything
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)
_WRAPPERS = (staticmethod, classmethod, functools._lru_cache_wrapper)
_BOOKKEEPING = frozenset(
    {
        *("__abstractmethods__", "__annotate__", "__annotations__", "__annotations_cache__", "__dataclass_fields__"),
        *("__dataclass_params__", "__dict__", "__doc__", "__firstlineno__", "__match_args__", "__module__"),
        *("__non_callable_proto_members__", "__orig_bases__", "__parameters__", "__protocol_attrs__"),
        *("__slotnames__", "__static_attributes__", "__type_params__", "__weakref__", "_abc_impl", "_is_protocol"),
    }
)


def digest(value: Any, name: str = "train_fn") -> str:
    """The digest of a function or value, equal in every process that would compute the same with it.

    Args:
        value: a function, method, partial or object that is called; or plain values, tensors, arrays, dataclasses,
            modules, and containers of these.
        name: the argument, as the caller wrote it.

    Returns:
        64 hexadecimal digits.

    Raises:
        ArgumentError: something it reaches cannot be told apart from another by its content.

    Example:
        >>> digest(functools.partial(round, ndigits=1)) == digest(functools.partial(round, ndigits=2))
        False
    """
    try:
        return _Walk().of(value).hex()
    except _NoDigestError as error:
        raise ArgumentError(
            name,
            value,
            f"a function of plain values, tensors, arrays, dataclasses and modules alone; it reaches {error}",
            "Or give version=, a text that you change whenever training changes.",
        ) from error


class _NoDigestError(Exception):
    """Says what has no digest."""


class _Walk:
    """One walk over all that is reached; what is met again, or within itself, is not walked again."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, bytes]] = {}  # the value is held, so that its id stays its own
        self._open: list[int] = []

    def of(self, value: Any) -> bytes:
        """The digest of ``value``."""
        if isinstance(value, _PLAIN) and type(value) in _PLAIN:
            return _joined(type(value).__name__, repr(value))
        if id(value) in self._known:
            return self._known[id(value)][1]
        if id(value) in self._open:
            return _joined("again", str(self._open.index(id(value))))
        self._open.append(id(value))
        try:
            found = _joined(*self._parts(value))
        except RecursionError:
            raise _NoDigestError("values nested too deeply") from None
        finally:
            self._open.pop()
        self._known[id(value)] = (value, found)
        return found

    def _parts(self, value: Any) -> Iterator[bytes | str]:
        match value:
            case torch.Tensor():
                return _tensor(value)
            case np.ndarray() if not value.dtype.hasobject:
                return _array(value)
            case torch.dtype() | torch.device() | np.dtype() | np.generic() | torch.Size():
                return iter((type(value).__name__, str(getattr(value, "dtype", "")), repr(value)))
            case torch.Generator():
                return iter(("generator", *_tensor(value.get_state())))
            case enum.Enum():
                return iter(("enum", self.of(type(value)), value.name))
            case types.CodeType():
                return self._code(value)
            case types.ModuleType():
                return self._module(value, frozenset())
            case type():
                return self._class(value)
            case _ if isinstance(value, _WRAPPERS):
                return iter((type(value).__name__, self.of(value.__wrapped__)))
            case functools.cached_property():
                return self._all("cached property", (value.func,))
            case property():
                return self._all("property", (value.fget, value.fset, value.fdel))
            case types.MappingProxyType():
                return self._all("mapping", (*value.items(),))
            case _ if isinstance(value, _FUNCTIONS):
                return self._function(value)
            case list() | tuple() if type(value) in (list, tuple):
                return self._all(type(value).__name__, value)
            case dict() if type(value) is dict:
                return self._all("dict", (part for item in value.items() for part in item))
            case set() | frozenset() if type(value) in (set, frozenset):
                return iter(("set", *sorted(self.of(part) for part in value)))
        return self._object(value)

    def _all(self, kind: str, values: Iterable[Any]) -> Iterator[bytes | str]:
        yield kind
        for value in values:
            yield self.of(value)

    def _function(self, value: Any) -> Iterator[bytes | str]:
        _refuse_unseen(value)
        if isinstance(value, functools.partial):
            return self._all("partial", (value.func, value.args, value.keywords))
        if isinstance(value, types.MethodType):
            return self._all("method", (value.__func__, value.__self__))
        if isinstance(value, types.BuiltinFunctionType):
            owner = value.__self__
            bound_to_c = type(owner).__module__ == "pybind11_builtins" or type(owner).__name__ == "PyCapsule"
            if owner is None or bound_to_c or isinstance(owner, types.ModuleType | type):
                return iter(("builtin", value.__qualname__, release(value.__module__ or "builtins")))
            return self._all("builtin method " + value.__name__, (owner,))
        if is_installed(value.__module__):
            # A closure of an installed function is the user's: a decorated function, say.
            cells = tuple(_cell(cell) for cell in value.__closure__ or ())
            kind = f"installed {value.__qualname__} {release(value.__module__)}"
            return self._all(kind, (cells, value.__defaults__, value.__kwdefaults__))
        return self._user_function(value)

    def _user_function(self, value: types.FunctionType) -> Iterator[bytes | str]:
        yield "function"
        yield value.__qualname__
        for part in (value.__code__, value.__defaults__, value.__kwdefaults__, value.__dict__):
            yield self.of(part)
        for cell in value.__closure__ or ():
            yield self.of(_cell(cell))
        codes = list(_codes(value.__code__))
        attributes = frozenset(name for code in codes for name in code.co_names)
        for code in codes:
            for name, found in _named(code, value.__globals__):
                yield name
                if isinstance(found, types.ModuleType):
                    yield from self._module(found, attributes)
                else:
                    yield self.of(found)

    def _code(self, code: types.CodeType) -> Iterator[bytes | str]:
        yield "code"
        yield code.co_code
        yield code.co_exceptiontable
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        yield repr((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags, names))
        for constant in code.co_consts:
            yield self.of(constant)

    def _module(self, module: types.ModuleType, attributes: frozenset[str]) -> Iterator[bytes | str]:
        """A module that is the user's own: its text, and the present values of what is asked of it."""
        name = module.__name__
        if is_installed(name):
            for attribute in attributes & vars(module).keys():
                _refuse_unseen(vars(module)[attribute])
            yield f"installed module {name} {release(name)}"
            return
        yield "module"
        file = getattr(module, "__file__", None)
        try:
            yield Path(file).read_bytes() if file is not None else b""
        except OSError as error:
            raise _NoDigestError(f"the module {name}, whose file cannot be read") from error
        for attribute in sorted(attributes & vars(module).keys()):
            yield attribute
            yield self.of(vars(module)[attribute])

    def _class(self, value: type) -> Iterator[bytes | str]:
        if is_installed(value.__module__):
            yield f"installed class {value.__qualname__} {release(value.__module__)}"
            return
        yield "class"
        yield value.__qualname__
        for base in value.__bases__:
            yield self.of(base)
        for name, part in sorted(vars(value).items()):
            if name not in _BOOKKEEPING and not isinstance(
                part, types.GetSetDescriptorType | types.MemberDescriptorType
            ):
                yield name
                yield self.of(part)

    def _object(self, value: Any) -> Iterator[bytes | str]:
        """Any other object by what it says it is made of, as when it is copied."""
        yield "object"
        yield self.of(type(value))
        try:
            registered = copyreg.dispatch_table.get(type(value))
            made_of = value.__reduce_ex__(4) if registered is None else registered(value)
        except Exception as error:
            raise _NoDigestError(f"a {type(value).__qualname__}, whose content cannot be read") from error
        if isinstance(made_of, str):
            yield made_of
            return
        make, arguments, state, items, pairs = (*made_of, None, None, None, None)[:5]
        yield self.of(make)
        yield self.of(tuple(argument for argument in arguments if argument is not type(value)))
        if isinstance(state, dict):  # what is cached follows from the rest
            state = {key: part for key, part in state.items() if not _is_cached(type(value), key)} or None
        yield self.of(state)
        yield self.of(None if items is None else list(items))
        yield self.of(None if pairs is None else [tuple(pair) for pair in pairs])


def _is_cached(kind: type, name: Any) -> bool:
    found = inspect.getattr_static(kind, name, None) if isinstance(name, str) else None
    return isinstance(found, functools.cached_property)


def _refuse_unseen(value: Any) -> None:
    if any(value is one for one in _UNSEEN):
        raise _NoDigestError(f"{value.__name__}, behind which anything may stand")


def _joined(*parts: bytes | str) -> bytes:
    """The digest of parts, each with its length, so that none runs into the next."""
    found = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        found.update(len(data).to_bytes(8, "little"))
        found.update(data)
    return found.digest()


def _tensor(value: torch.Tensor) -> Iterator[bytes | str]:
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        raise _NoDigestError(f"a tensor of layout {value.layout} on {value.device}")
    plain = value.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    yield f"tensor {value.dtype} {tuple(value.shape)} {value.requires_grad}"
    yield hashlib.sha256(plain.view(torch.uint8).numpy().data if plain.numel() else b"").digest()


def _array(value: np.ndarray[Any, Any]) -> Iterator[bytes | str]:
    yield f"array {value.dtype.str} {value.dtype!r} {value.shape}"
    plain = np.ascontiguousarray(value).reshape(-1)
    yield hashlib.sha256(plain.view(np.uint8).data if plain.nbytes else b"").digest()


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _named(code: types.CodeType, scope: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The globals and imports that ``code`` names, with what stands behind each now."""
    before: list[Any] = [None, None]
    seen = set()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("EXTENDED_ARG", "CACHE"):
            continue
        name = instruction.argval
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME") and name not in seen:
            seen.add(name)
            if name in scope:
                yield name, scope[name]
            else:
                _refuse_unseen(getattr(builtins, name, None))
        elif instruction.opname == "IMPORT_NAME":
            yield name, _imported(name, before[0], scope)
        before = [before[1], instruction.argval]


def _imported(name: str, level: Any, scope: dict[str, Any]) -> types.ModuleType:
    """A module that the function imports when it runs; importing it now is what would happen then."""
    try:
        if level:
            name = importlib.util.resolve_name("." * level + name, scope.get("__package__") or "")
        return importlib.import_module(name)
    except ImportError as error:
        raise _NoDigestError(f"the module {name}, which cannot be imported") from error
