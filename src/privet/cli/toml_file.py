"""A TOML file whose every key is known and every value of its type, or one line that says which is not."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from privet.errors import FileFormatError

__all__ = ["Form", "TomlTable", "read_toml", "refusal", "tables_of"]


class TomlTable(BaseModel):
    """A table of such a file: nothing more than its keys, nothing converted, nothing infinite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Form = TypeVar("Form", bound=TomlTable)


def tables_of(path: Path) -> dict[str, Any]:
    """What the file says, unchecked.

    Raises:
        FileFormatError: it cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise FileFormatError(path, error.strerror or "no file", "a TOML file") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML
        raise FileFormatError(path, " ".join(str(error).split()), "TOML") from error


def read_toml(path: Path, form: type[Form]) -> Form:
    """Read a file.

    Args:
        path: the file.
        form: the whole file's table.

    Raises:
        FileFormatError: it cannot be read, is no TOML, or has a key or a value that is not allowed; says which.
    """
    tables = tables_of(path)
    try:
        return form.model_validate(tables)
    except ValidationError as error:
        raise refusal(path, form, error.errors()) from error


def refusal(path: Path, form: type[TomlTable], errors: Sequence[Any]) -> FileFormatError:
    """What is wrong with a file in one line: unknown keys first, since they explain missing ones.

    Args:
        path: the file.
        form: the whole file's table.
        errors: of pydantic.
    """
    first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    key = ".".join(map(str, first["loc"])) or "the file"
    match first["type"]:
        case "extra_forbidden":
            known = ", ".join(_keys(form, first["loc"][:-1]))
            return FileFormatError(path, f"an unknown key {key}", f"only {known} there")
        case "missing":
            return FileFormatError(path, f"no {key}", "it to be given")
        case "value_error":
            return FileFormatError(path, f"[{key}] {_shown(first['input'])}", str(first["ctx"]["error"]))
    allowed = first["msg"].removeprefix("Input should be ")
    return FileFormatError(path, f"{key} = {_shown(first['input'])}", allowed)


def _keys(form: type[TomlTable], place: tuple[str | int, ...]) -> list[str]:
    table = form
    for step in place:
        if isinstance(step, str):
            table = _table_in(table.model_fields[step].annotation) or table
    return list(table.model_fields)


def _table_in(annotation: Any) -> type[TomlTable] | None:
    """The table that a field holds, alone or as one of several kinds."""
    if isinstance(annotation, type) and issubclass(annotation, TomlTable):
        return annotation
    return next((found for one in get_args(annotation) if (found := _table_in(one)) is not None), None)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
