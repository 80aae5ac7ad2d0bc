"""Read the settings of a run from a YAML file and the command line; show them again.

Strict on purpose: a word that is not a setting is an error that names the nearest one, and every
value is checked against the type written in `pipeline.settings`. Layers are laid over each other
key by key: the defaults, the file, each ``--set``, the command line's own flags. Maps whose keys
are names (`zones`, `class_thresholds`) gain entries so; null takes one away, an empty map all.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pipeline.configuration import strict_yaml
from pipeline.errors import ConfigError
from pipeline.redaction import without_secrets, without_stream_key
from pipeline.settings import Settings, Within

S = TypeVar("S")

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_FOUND = {bool: "", int: "", float: "", str: "text ", list: "a list ", dict: "a map "}


def load_settings(
    path: str | None = None,
    overrides: Sequence[str] = (),
    flags: Iterable[tuple[str, str]] = (),
) -> Settings:
    """The settings from a YAML file, ``KEY=VALUE`` words and the command line's own flags.

    Args:
        path: A YAML file; None takes the defaults.
        overrides: Words such as ``engine.batch=4``; the value is read as YAML.
        flags: What was typed, such as ``--batch 4``, and the word that it stands for; they win
            over everything.

    Raises:
        ConfigError: A key is unknown, or a value of the wrong type or out of range.
    """
    settings = Settings()
    if path is not None:
        settings = _laid_over(settings, strict_yaml.read(Path(path)), str(path))
    for typed, word in [*((f"--set {word}", word) for word in overrides), *flags]:
        origin = _shown(typed)
        settings = _laid_over(settings, _read_override(word, origin), origin)
    return settings


def overlaid(section: S, words: Mapping[str, str], origin: str) -> S:
    """A section of the settings with ``key: value`` words laid over it, each read as YAML.

    Raises:
        ConfigError: As in `load_settings`; `origin` says where the words come from.
    """
    for key, word in words.items():
        section = _laid_over(section, {key: strict_yaml.parse(word, origin)}, origin)
    return section


def dump_settings(settings: Settings) -> str:
    """The settings as YAML with a comment on every line; `load_settings` reads it back.

    Passwords and tokens inside of URLs are shown as ``***``.
    """
    shown = replace(
        settings,
        sources=tuple(map(without_secrets, settings.sources)),
        out=tuple(map(_shown, settings.out)),
    )
    return "\n".join(_lines(shown, "")) + "\n"


def _shown(text: str) -> str:
    """`text`, which may hold an address, as an error may show it."""
    return without_stream_key(without_secrets(text))


def _read_override(word: str, origin: str) -> Any:
    key, equals, value = word.partition("=")
    if not equals or not key.strip() or "://" in key:  # rtsp://host/?channel=1 is no key
        raise ConfigError(
            f"{origin}: expected KEY=VALUE, such as engine.batch=4; "
            "a SOURCE goes before --set, or behind --"
        )
    return _nested(key.strip(), strict_yaml.parse(value, origin))


def _nested(dotted: str, value: object) -> dict[str, Any]:
    """``a.b`` and ``c`` -> ``{"a": {"b": "c"}}``."""
    for key in reversed(dotted.split(".")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def _laid_over(section: S, changes: object, origin: str) -> S:
    try:
        return _merged(section, changes, "")
    except ValueError as error:  # a ConfigError, or a number with too many digits to be shown
        raise ConfigError(f"{origin}: {error}") from None


def _merged(section: S | type[S], changes: object, at: str) -> S:
    """`section` (a dataclass, or its type: a new one) with `changes` (a map) laid over it."""
    kind: Any = section if isinstance(section, type) else type(section)
    hints = _hints(kind)
    if changes is None:  # a section of which every line is commented out
        changes = {}
    if not isinstance(changes, Mapping):
        where = f"{at!r} is a section" if at else "the top level"
        raise ConfigError(f"{where}: expected a map of {', '.join(hints)}; found {_found(changes)}")
    new = {}
    for key, value in changes.items():
        dotted = f"{at}.{key}" if at else str(key)
        if key not in hints:
            raise ConfigError(_unknown(dotted, list(hints)))
        new[key] = _checked(hints[key], value, dotted, getattr(section, key, None))
    try:
        if not isinstance(section, type):
            return replace(section, **new)  # type: ignore[type-var]  # a dataclass: it has hints
        missing = [name for name in _required(section) if name not in new]
        if missing:
            raise ConfigError(f"{missing[0]}: missing")
        return section(**new)
    except ConfigError as error:
        raise ConfigError(f"{at}.{error}" if at else str(error)) from None


def _required(section: Any) -> Iterator[str]:
    """Fields without a default."""
    for field in fields(section):
        if field.default is MISSING and field.default_factory is MISSING:
            yield field.name


def _checked(kind: Any, value: Any, at: str, current: Any = None) -> Any:
    """`value` as a `kind`, the type of the setting `at`; lists and maps are checked within."""
    origin, args = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _merged(kind if current is None else current, value, at)
    if origin is Annotated:
        if args[1].zero is not None and value == args[1].zero:
            return 0
        return _in_range(_checked(args[0], value, at), args[1], args[0], at)
    if origin in (Union, UnionType):
        inner = next(arg for arg in args if arg is not type(None))
        return None if value is None else _checked(inner, value, at)
    if origin is Literal:
        return _one_of(args, value, at)
    if origin is tuple:
        return _tuple(args, value, at)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{at}: expected a map, found {_found(value)}")
        entries = dict(current or {}) if value else {}
        for key, one in value.items():
            if one is None and key in entries:
                del entries[key]
            else:
                inside, known = f"{at}.{key}", entries.get(key)
                entries[_checked(str, key, at)] = _checked(args[1], one, inside, known)
        return entries
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < 1 << 1000 else float("inf")
    if type(value) is not kind:
        raise ConfigError(f"{at}: expected {_WORDS[kind]}, found {_found(value)}")
    return value


def _tuple(kinds: tuple[Any, ...], value: Any, at: str) -> tuple[Any, ...]:
    """A list as a tuple: of any length where `kinds` end with an ellipsis."""
    kind, free = kinds[0], kinds[-1] is Ellipsis
    items = [value] if kind is str and isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not (free or len(items) == len(kinds)):
        length = "" if free else f"{len(kinds)} "
        raise ConfigError(
            f"{at}: expected a list of {length}{_plural(kind)}, found {_found(value)}"
        )
    return tuple(_checked(kind, item, f"{at}[{i}]") for i, item in enumerate(items))


def _plural(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return {str: "text", float: "numbers", int: "whole numbers"}.get(kind, "lists")


def _in_range(value: Any, limits: Within, kind: type, at: str) -> Any:
    if not limits.low <= value <= limits.high:
        bounds = f"from {limits.low:,} to {limits.high:,}"
        remark = f" ({limits.remark})" if limits.remark else ""
        raise ConfigError(f"{at}: expected {_WORDS[kind]} {bounds}{remark}, found {_found(value)}")
    return value


def _one_of(choices: tuple[Any, ...], value: object, at: str) -> Any:
    if value in choices:
        return value
    meant = get_close_matches(str(value), choices, n=1)
    hint = f"; did you mean {meant[0]!r}?" if meant else ""
    raise ConfigError(f"{at}: expected one of {', '.join(choices)}; found {_found(value)}{hint}")


def _found(value: object) -> str:
    """How a wrong value is named: its kind and the start of what it says."""
    if value is None:
        return "nothing (null)"
    shown = _shown(repr(value))  # before it is cut: a login is known by its @
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return _FOUND.get(type(value), f"a {type(value).__name__} ") + shown


def _unknown(dotted: str, siblings: list[str]) -> str:
    """The message for a key that does not exist, with the nearest that does."""
    dotted = _shown(dotted)
    every = list(_dotted_keys(Settings()))
    by_leaf = {key.rpartition(".")[2]: key for key in reversed(every)}
    parent, _, leaf = dotted.rpartition(".")
    near_siblings = get_close_matches(leaf, siblings, n=1)
    if near_siblings:
        meant = [f"{parent}.{near_siblings[0]}" if parent else near_siblings[0]]
    else:
        meant = [by_leaf[near] for near in get_close_matches(leaf, by_leaf, n=1)]
    hint = f"did you mean {meant[0]!r}? " if meant else ""
    where = f" in {parent!r}" if parent else ""
    return f"unknown key {dotted!r}; {hint}known{where}: {', '.join(sorted(siblings))}"


def _dotted_keys(section: Any, at: str = "") -> Iterator[str]:
    for field in fields(section):
        yield at + field.name
        value = getattr(section, field.name)
        if is_dataclass(value):
            yield from _dotted_keys(value, f"{at}{field.name}.")


def _lines(section: Any, indent: str) -> Iterator[str]:
    """YAML of a dataclass, with the comments that its source has beside the fields."""
    kind: Any = type(section)
    comments, hints = _comments(kind), _hints(kind)
    for field in fields(section):
        value = getattr(section, field.name)
        if is_dataclass(value):
            yield ""
            yield f"{indent}{field.name}:  # {(type(value).__doc__ or '').lower().rstrip('.')}"
            yield from _lines(value, indent + "  ")
            continue
        comment = comments.get(field.name)
        shown = strict_yaml.dump(_in_words(value, hints[field.name]))
        yield f"{indent}{field.name}: {shown}" + (f"  # {comment}" if comment else "")


def _in_words(value: Any, kind: Any) -> Any:
    """The value as it is written: a zero that has a word of its own by that."""
    limits = get_args(kind)[1] if get_origin(kind) is Annotated else None
    if limits is not None and limits.zero is not None and value == 0:
        return limits.zero
    return _plain(value)


def _plain(value: Any) -> Any:
    """The value in the words of YAML: maps, lists and what has no parts."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


@cache
def _hints(section: Any) -> dict[str, Any]:
    """The types of its fields; working them out takes longer than all that is done with them."""
    return get_type_hints(section, include_extras=True)


@cache
def _comments(section: Any) -> dict[str, str]:
    """Comment of each field, and the words it may take."""
    try:
        source = inspect.getsource(section)
    except OSError:  # installed without its source
        return {}
    found = dict(re.findall(r"^    (\w+): .*?  # (.+)$", source, re.MULTILINE))
    for name, kind in get_type_hints(section).items():
        if get_origin(kind) is Literal:
            choices = " | ".join(get_args(kind))
            if len(choices) < 60:
                found[name] = f"{choices} ({found[name]})"
    return found
