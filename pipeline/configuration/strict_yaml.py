"""YAML as people expect it: no key twice, ``1e-3`` is a number, errors say where."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ConfigError
from pipeline.redaction import without_secrets

_LONGEST_FILE_BYTES = 1 << 20


def parse(text: str, origin: str) -> Any:
    """The value of a YAML text; `origin` is what an error calls it.

    Raises:
        ConfigError: The text is not YAML, or uses what `_StrictLoader` refuses.
    """
    try:
        return yaml.load(text, _StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{origin}{place}: {what}") from None
    except (yaml.YAMLError, ValueError) as error:  # odd characters; dates and numbers out of range
        raise ConfigError(f"{origin}: not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ConfigError(f"{origin}: nested too deeply") from None


def read(path: Path) -> Any:
    """The value of a YAML file, with errors as in `parse`."""
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > _LONGEST_FILE_BYTES:
        raise ConfigError(f"{path}: longer than {_LONGEST_FILE_BYTES >> 20} MiB; not a config?")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not text in UTF-8; not a config?") from None
    return parse(text, str(path))


def dump(value: object) -> str:
    """`value` as YAML on one line, such that `parse` gives it back."""
    text = _dumped(value, allow_unicode=True)
    if parse(text, "dump") != value:  # YAML folds some odd line breaks
        text = _dumped(value, allow_unicode=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _dumped(value: object, allow_unicode: bool) -> str:
    text: str = yaml.dump(
        value,
        None,
        _Dumper,
        default_flow_style=True,
        width=float("inf"),
        allow_unicode=allow_unicode,
    )
    return text


class _StrictLoader(yaml.SafeLoader):
    """Plain YAML only.

    No key twice: the first would be lost unseen. No aliases: with them a small file can say
    something huge. No tags: they ask for Python types that no setting has.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML
        if isinstance(event, yaml.AliasEvent) or event.tag:
            problem = "aliases (*name) and tags (!!name) are not used in a configuration"
            raise yaml.composer.ComposerError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problem = "a key must be a word"
            elif key.value in seen:
                problem = f"duplicate key {without_secrets(key.value)!r}"
            else:
                seen.add(key.value)
                continue
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Puts in quotes what the loader would not take for text."""


# YAML 1.1 takes 1e-3 for text, because it has no dot.
_FLOAT_WITHOUT_DOT = re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$")
for _class in (_StrictLoader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT_WITHOUT_DOT, [*"-+0123456789"])
