"""Strict configuration: one TOML file ↔ nested frozen dataclasses, and nothing that is ignored in silence."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from entropy_vision.errors import InputError, InputReason, UsageError

T = TypeVar("T")

HIGHEST_SEED = 2**32 - 1
"""The largest seed of a recipe or an option: every generator takes it, multiplied by steps and processes as it is."""


def load_config(path: str | Path, cls: type[T], overrides: Sequence[str] = ()) -> T:
    """Read a TOML file into `cls`, a dataclass whose fields are plain values or such dataclasses (TOML tables).

    Field types: bool, int, float (takes whole numbers too), str, Path, an Enum (by value), Literal, tuple[X, ...],
    tuple[X, Y], a dataclass, and X | None with the default None (TOML has no null: leave the key out).

    Args:
        path: the file, UTF-8.
        overrides: "key.path=value", later ones win. Texts need no quotes; other values are written as in TOML.

    Raises:
        InputError: there is no such file, or it cannot be read.
        UsageError: not TOML, an unknown or missing key, a value of the wrong type, or what the dataclass itself
            refuses when it is made. The message has the file, the key path and the mend.
    """
    table = _read(Path(path))
    _check_keys(table, cls, (), str(path))
    for override in overrides:
        _apply(table, cls, override)
    return _build(table, cls, (), f"{path} with its overrides" if overrides else str(path))


def to_toml(config: object) -> str:
    """The whole configuration as TOML, defaults included; `load_config` reads it back to an equal one."""
    if not is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"to_toml takes a dataclass instance, got {type(config).__name__}")
    return "\n".join(_lines(config, ())).strip() + "\n"


def fingerprint(config: object) -> str:
    """sha256 (hex) of the resolved configuration: equal settings, equal fingerprint, whatever the file looked like."""
    return hashlib.sha256(to_toml(config).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(path, InputReason.MISSING, "no such configuration file") from error
    except IsADirectoryError as error:
        raise InputError(path, InputReason.NOT_A_FILE, "a folder, not a configuration file") from error
    except OSError as error:
        raise InputError(path, InputReason.UNREADABLE, f"cannot be read ({error.strerror})") from error
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not TOML: {error}") from error


# ---- keys ----------------------------------------------------------------------------------------------------


def _settable(cls: type) -> dict[str, Field[Any]]:
    return {f.name: f for f in fields(cls) if f.init}


def _key_paths(cls: type, prefix: tuple[str, ...] = ()) -> Iterator[str]:
    hints = get_type_hints(cls)
    for name in _settable(cls):
        yield ".".join((*prefix, name))
        if is_dataclass(hints[name]):
            yield from _key_paths(hints[name], (*prefix, name))


def _unknown(name: str, cls: type, at: tuple[str, ...], root: type, where: str) -> UsageError:
    """The nearest name: among the siblings first, then the same name anywhere else in the configuration."""
    key = ".".join((*at, name))
    near = difflib.get_close_matches(name, _settable(cls), n=1, cutoff=0.6)
    elsewhere = [p for p in _key_paths(root) if p.rpartition(".")[2] == name]
    if near:
        hint = f"did you mean {'.'.join((*at, near[0]))}?"
    elif elsewhere:
        hint = f"did you mean {' or '.join(elsewhere)}?"
    else:
        hint = f"known here: {', '.join(_settable(cls))}"
    return UsageError(f"{where}: unknown key {key}; {hint}")


def _check_keys(table: Mapping[str, Any], cls: type, at: tuple[str, ...], where: str, root: type | None = None) -> None:
    root = root or cls
    hints = get_type_hints(cls)
    known = _settable(cls)
    for name, value in table.items():
        if name not in known:
            raise _unknown(name, cls, at, root, where)
        if is_dataclass(hints[name]) and isinstance(value, Mapping):
            _check_keys(value, hints[name], (*at, name), where, root)


def _apply(table: dict[str, Any], root: type, override: str) -> None:
    """Write one override into the table, checked by itself, so that the message names it and not the file."""
    where = f"override {override!r}"
    path, equals, written = override.partition("=")
    names = [part.strip() for part in path.split(".")]
    if not equals or not all(names):
        raise UsageError(f"{where}: write it as key.path=value")
    cls, here = root, table
    for depth, name in enumerate(names):
        at = tuple(names[:depth])
        if not is_dataclass(cls):
            raise UsageError(f"{where}: {'.'.join(at)} is a value, not a table; it has no key {name!r}")
        if name not in _settable(cls):
            raise _unknown(name, cls, at, root, where)
        hint = get_type_hints(cls)[name]
        if depth == len(names) - 1:
            here[name] = _convert(_parse(written.strip(), hint, where), hint, tuple(names), where)
            return
        inner = here.setdefault(name, {})
        if not isinstance(inner, dict):
            raise UsageError(f"{where}: {'.'.join((*at, name))} is not a table in the file")
        cls, here = hint, inner


def _parse(written: str, hint: Any, where: str) -> Any:
    if _is_text(hint) and not written.startswith(('"', "'")):
        return written
    try:
        parsed = tomllib.loads(f"value = {written}")
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where}: the value is not {_expected(hint)}, written as in TOML") from error
    if set(parsed) != {"value"}:
        raise UsageError(f"{where}: one value, on one line")
    return parsed["value"]


def _is_text(hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_is_text(arg) for arg in get_args(hint))
    if origin is Literal:
        return all(isinstance(arg, str) for arg in get_args(hint))
    return isinstance(hint, type) and issubclass(hint, str | Path | Enum)


# ---- values --------------------------------------------------------------------------------------------------


def _build(table: Mapping[str, Any], cls: type[T], at: tuple[str, ...], where: str) -> T:
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, f in _settable(cls).items():
        key = (*at, name)
        if name in table:
            values[name] = _convert(table[name], hints[name], key, where)
        elif f.default is MISSING and f.default_factory is MISSING:
            raise UsageError(f"{where}: key {'.'.join(key)} is missing; expected {_expected(hints[name])}")
    try:
        return cls(**values)
    except UsageError as error:
        prefix = "" if str(error).startswith(where) else f"{where}: "
        raise UsageError(f"{prefix}{error}") from error


def _convert(value: Any, hint: Any, key: tuple[str, ...], where: str) -> Any:
    origin = get_origin(hint)
    if is_dataclass(hint):
        if isinstance(value, hint):  # type: ignore[arg-type]
            return value
        if isinstance(value, Mapping):
            _check_keys(value, hint, key, where)  # type: ignore[arg-type]
            return _build(value, hint, key, where)  # type: ignore[arg-type]
    elif origin in (Union, types.UnionType):
        return value if value is None else _convert(value, _without_none(hint), key, where)
    elif origin is Literal:
        if any(type(value) is type(arg) and value == arg for arg in get_args(hint)):
            return value
    elif origin is tuple:
        converted = _convert_tuple(value, get_args(hint), key, where)
        if converted is not None:
            return converted
    elif isinstance(hint, type) and issubclass(hint, Enum):
        if any(value == member.value for member in hint):
            return hint(value)
    elif hint is float:
        if type(value) in (int, float):
            return float(value)
    elif hint is Path:
        if isinstance(value, str | Path):
            return Path(value)
    elif hint in (bool, int, str):
        if type(value) is hint:
            return value
    else:
        raise TypeError(f"configuration field {'.'.join(key)}: type {hint!r} has no TOML form")
    mend = f'; write it in quotes, "{value}"' if hint is str and type(value) in (int, float) else ""
    raise UsageError(f"{where}: {'.'.join(key)} must be {_expected(hint)}, got {_shown(value)}{mend}")


def _convert_tuple(value: Any, args: tuple[Any, ...], key: tuple[str, ...], where: str) -> tuple[Any, ...] | None:
    if not isinstance(value, list | tuple):
        return None
    hints = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
    if len(hints) != len(value):
        return None
    pairs = zip(value, hints, strict=True)
    return tuple(_convert(v, h, (*key[:-1], f"{key[-1]}[{i}]"), where) for i, (v, h) in enumerate(pairs))


def _without_none(hint: Any) -> Any:
    rest = [arg for arg in get_args(hint) if arg is not type(None)]
    if len(rest) != 1:
        raise TypeError(f"configuration type {hint!r}: only X | None is supported")
    return rest[0]


def _expected(hint: Any) -> str:
    origin = get_origin(hint)
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path (a text)"}
    if hint in plain:
        return plain[hint]
    if is_dataclass(hint):
        return "a table"
    if origin in (Union, types.UnionType):
        return _expected(_without_none(hint))
    if origin is Literal:
        return "one of " + ", ".join(json.dumps(arg) for arg in get_args(hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(json.dumps(member.value) for member in hint)
    if origin is tuple:
        args = get_args(hint)
        if args[-1] is Ellipsis:
            return f"a list, each {_expected(args[0])}"
        return "a list of " + " and ".join(_expected(arg) for arg in args)
    return repr(hint)


def _shown(value: Any) -> str:
    words = {bool: "a truth value", int: "a whole number", float: "a number", str: "a text", list: "a list"}
    kind = words.get(type(value), "a table" if isinstance(value, Mapping) else type(value).__name__)
    text = str(value) if len(str(value)) <= 60 else str(value)[:57] + "..."
    return f"{kind} ({text!r})" if isinstance(value, str) else f"{kind} ({text})"


# ---- writing -------------------------------------------------------------------------------------------------


def _lines(config: Any, at: tuple[str, ...]) -> Iterator[str]:
    nested: list[tuple[str, Any]] = []
    for name, f in _settable(type(config)).items():
        value = getattr(config, name)
        if is_dataclass(value):
            nested.append((name, value))
        elif value is not None:
            yield f"{name} = {_literal(value)}"
        elif f.default is not None:
            raise TypeError(
                f"configuration field {'.'.join((*at, name))} is None, but TOML has no null: default to None"
            )
    for name, value in nested:
        yield ""
        yield f"[{'.'.join((*at, name))}]"
        yield from _lines(value, (*at, name))


def _literal(value: Any) -> str:
    if isinstance(value, Enum):
        return _literal(value.value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)  # the shortest text that reads back to the same float; inf and nan are TOML too
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_literal(v) for v in value) + "]"
    raise TypeError(f"a {type(value).__name__} has no TOML form")
