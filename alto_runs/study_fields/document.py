"""YAML as plain data: no tags, no anchors, no key twice, no numbers in disguise."""

import re
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from alto_runs.errors import UserError

if TYPE_CHECKING or not yaml.__with_libyaml__:
    from yaml import SafeDumper, SafeLoader
else:
    from yaml import CSafeDumper as SafeDumper
    from yaml import CSafeLoader as SafeLoader  # ten times as fast

__all__ = ["dump_document", "parse_document", "read_document"]

_MAX_BYTES = 4_000_000  # the most jobs that a study may write out take less
_MAX_DEPTH = 20
_MAX_DIGITS = 100  # of a number: to base 60, which YAML 1.1 knows, a megabyte takes hours
_INT, _FLOATING = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")


class _Loader(SafeLoader):
    """Refuses a key that stands twice, and reads 1e-4, as YAML 1.2 does, as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _RefusedError(key.start_mark, f"the key {key.value!r} stands twice")
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> float:
        if len(node.value) > _MAX_DIGITS:
            raise _RefusedError(node.start_mark, f"a number has {_MAX_DIGITS} digits at most")
        is_whole = node.tag == _INT
        return self.construct_yaml_int(node) if is_whole else self.construct_yaml_float(node)


class _Dumper(SafeDumper):
    """Quotes what `_Loader` would take for a number, and keeps lists of scalars on one line."""

    def represent_sequence(
        self, tag: str, sequence: Iterable[Any], flow_style: bool | None = None
    ) -> yaml.SequenceNode:
        is_flat = not any(isinstance(part, dict | list) for part in sequence)
        return super().represent_sequence(tag, sequence, flow_style=is_flat)


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(_FLOATING, _FLOAT, list("-+.0123456789"))
for _tag in (_INT, _FLOATING):
    _Loader.add_constructor(_tag, _Loader.construct_number)


class _RefusedError(yaml.MarkedYAMLError):
    def __init__(self, mark: Any, problem: str) -> None:
        super().__init__(problem=problem, problem_mark=mark)


def read_document(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds. Raises UserError with the line at fault."""
    return parse_document(_read_text(path), str(path))


def parse_document(text: str, source: str) -> dict[str, Any]:
    """The mapping that YAML text holds; `source` is what an error begins with. Raises UserError."""
    try:
        _refuse_more_than_data(text)
        document = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{source}: {place}{error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:  # control characters; the date 2024-99-99
        what = str(error).splitlines()[0].partition(";")[0]
        raise UserError(f"{source}: not YAML: {what}") from error
    if not isinstance(document, dict):
        found = {type(None): "nothing", list: "a list", str: "text"}.get(type(document), "a value")
        raise UserError(f"{source}: expected fields such as 'name:', found {found}")
    return document


def dump_document(document: dict[str, Any]) -> str:
    """YAML that `read_document` reads back as the same."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: larger than {_MAX_BYTES} bytes, expected a study file")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: {error.reason}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot read this file: {error.strerror}") from error


def _refuse_more_than_data(text: str) -> None:
    """Anchors let a few lines grow to gigabytes; deep nesting exhausts the stack."""
    depth = 0
    for event in yaml.parse(text, SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _RefusedError(
                event.start_mark, "anchors (&) and aliases (*) are not allowed here"
            )
        if getattr(event, "tag", None) is not None:
            raise _RefusedError(event.start_mark, "tags (!) are not allowed here")
        if isinstance(event, yaml.ScalarEvent) and not _is_text(event.value):
            raise _RefusedError(event.start_mark, "half of a surrogate pair is no text")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise _RefusedError(event.start_mark, f"nested deeper than {_MAX_DEPTH} levels")


def _is_text(value: str) -> bool:
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
