"""Records as JSON files: written atomically, read with every field checked."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import types
import typing
from pathlib import Path
from typing import Any, TypeVar, Union

from dvtplan.core.errors import DvtError, cannot_read
from dvtplan.core.files import write_text

NOT_IN_DIGEST = "not_in_digest"
"""Field metadata key: leave this field out of the record's digest."""
OMIT_DEFAULT = "omit_default"
"""Field metadata key: while this field has its default, leave it out of the record's digest and of archives."""

SCHEMA = 1
"""Increased when the meaning of a field changes."""

R = TypeVar("R")


def save(record: Any, path: Path) -> str:
    """Write a record to a JSON file and return its digest."""
    write_text(path, dump(record))
    return digest(record)


def load(kind: type[R], path: Path, made_by: str, advice: str | None = None) -> R:
    """Read a record from a JSON file.

    Args:
        kind: the dataclass that the file must contain.
        path: the file.
        made_by: the function that writes the file, in backticks, for the message.
        advice: what to do about a file that is missing or damaged; None: fix it, or run ``made_by``.

    Raises:
        DvtError: if the file is missing or is not JSON, if a field is missing, unknown or invalid.
    """
    again = f"Fix it, or run {made_by}."
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DvtError(f"{path}: not found. {advice or f'Run {made_by} first.'}") from None
    except OSError as error:
        raise DvtError(cannot_read(path, error, "Fix the permissions or the path.")) from error
    except ValueError as error:
        raise DvtError(f"{path}: is not readable JSON ({error}). {advice or again}") from error
    try:
        return parse(kind, text)
    except ValueError as error:
        raise DvtError(f"{path}: {error}. {advice or again}") from error


def is_json(path: Path) -> bool:
    """Return whether a file contains JSON of any kind."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return True


def parse(kind: type[R], text: str) -> R:
    """Parse the text of a record's file.

    Raises:
        ValueError: if the text is not JSON or has another kind or schema, if a field is missing, unknown or invalid.
    """
    try:
        body = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not readable JSON ({error})") from error
    expected = getattr(kind, "__name__", str(kind))
    if not isinstance(body, dict) or body.get("record") != expected or body.get("schema") != SCHEMA:
        found = "a list or value"
        if isinstance(body, dict):
            found = f"{body.get('record', 'no record')}, schema {body.get('schema', 'missing')}"
        raise ValueError(f"expected {expected}, schema {SCHEMA}; found {found}")
    fields = {key: value for key, value in body.items() if key not in ("schema", "record")}
    return typing.cast(R, from_json(kind, fields, ""))


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is not a number")


def dump(record: Any, *, omit_default: bool = False) -> str:
    """Return the text of a record's file.

    With ``omit_default`` it lacks the fields of ``added_later`` that have their default, so that versions of dvtplan
    from before these fields can read it.
    """
    body = {"schema": SCHEMA, "record": type(record).__name__, **to_json(record, omit_default=omit_default)}
    return json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def digest(record: Any) -> str:
    """Return the SHA-256 of a record's content, independent of the file's layout.

    Fields with the metadata ``NOT_IN_DIGEST`` do not count, and those of ``added_later`` only if they differ from their
    default. So digests from before these fields existed stay valid.
    """
    text = json.dumps(to_json(record, for_digest=True), sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def to_json(value: Any, *, for_digest: bool = False, omit_default: bool = False) -> Any:
    """Convert a record to dicts, lists and plain values.

    Args:
        value: the record.
        for_digest: omit the fields that no digest counts.
        omit_default: omit the fields of ``added_later`` that have their default.
    """
    convert = functools.partial(to_json, for_digest=for_digest, omit_default=omit_default)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {
            field.name: convert(item)
            for field, item in items
            if not (for_digest and field.metadata.get(NOT_IN_DIGEST))
            and not ((for_digest or omit_default) and _is_added_default(field, item))
        }
    if isinstance(value, dict):
        return {key: convert(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [convert(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def _is_added_default(field: dataclasses.Field[Any], value: Any) -> bool:
    """Return whether a field was added later and has its default."""
    return bool(field.metadata.get(OMIT_DEFAULT)) and value == field.default


def added_later(default: Any) -> Any:
    """Declare a field that older files lack: with its default, a record keeps the digest that it had before."""
    return dataclasses.field(default=default, metadata={OMIT_DEFAULT: True})


def from_json(kind: Any, value: Any, where: str) -> Any:
    """Convert JSON values to the type of a hint.

    Raises:
        ValueError: naming the invalid field.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _record(typing.cast(type, kind), value, where)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        return from_json(next(p for p in parts if p is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} must be a list, not {value!r}")
        kinds = [parts[0]] * len(value) if parts[-1] is Ellipsis else list(parts)
        if len(kinds) != len(value):
            raise ValueError(f"{where} must hold {len(kinds)} values, not {value!r}")
        return tuple(from_json(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be an object, not {value!r}")
        return {str(key): from_json(parts[1], item, f"{where}.{key}") for key, item in value.items()}
    return _plain(kind, value, where)


def _record(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where or 'the file'} must be an object, not {value!r}")
    hints = typing.get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}
    unknown, missing = sorted(set(value) - names), sorted(_required(kind) - set(value))
    if unknown:
        raise ValueError(f"unknown field {where}{'.' if where else ''}{unknown[0]} (known: {', '.join(sorted(names))})")
    if missing:
        raise ValueError(f"field {where}{'.' if where else ''}{missing[0]} is missing")
    prefix = f"{where}." if where else ""
    return kind(**{name: from_json(hints[name], item, prefix + name) for name, item in value.items()})


def _required(kind: type) -> set[str]:
    empty = dataclasses.MISSING
    return {f.name for f in dataclasses.fields(kind) if f.default is empty and f.default_factory is empty}


def _plain(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{where} is larger than any float") from None
    if kind is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{where} must be {kind.__name__}, not {value!r}")
    return value
