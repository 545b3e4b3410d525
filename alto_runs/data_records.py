"""Records of a data file, as they were written: no tokenizer, no chat template."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

from alto_runs.errors import UserError

__all__ = [
    "Chat",
    "Completion",
    "Message",
    "Preference",
    "Record",
    "Single",
    "Text",
    "evenly",
    "read_records",
]

_ROLES = ("system", "developer", "user", "assistant", "tool")
_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "tool": "tool",
}


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation; its answers are the assistant's turns from `completion_from` on, or all."""

    messages: tuple[Message, ...]
    completion_from: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Text:
    text: str


Single = Chat | Completion | Text
"""A record that is one sequence."""


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to one prompt, the better one first."""

    chosen: Chat | Completion
    rejected: Chat | Completion


_ONE_LIST = "one list of records, expected a record on each line, as jq -c '.[]' FILE writes them"
_CONVERT = "docs/study.md has a line that converts other files, and other names of fields"

Record = Single | Preference
_Item = TypeVar("_Item")
Row = Mapping[str, Any]


class _MisfitError(ValueError):
    """A field of a record is not what its shape asks for."""


def read_records(path: Path, field: str = "data") -> list[Record]:
    """All records of a JSONL or Parquet file; the columns of the first one tell their shape.

    Raises UserError that names the file, the line or row, the field and what was found there; or
    the study's `field` that names the file, where there is none.
    """
    if not os.path.isfile(path):  # unlike Path's own, takes names that are too long
        what = "is a folder" if os.path.isdir(path) else "no such file"
        raise UserError(
            f"{field}: value {str(path)!r}: {what}, expected a file of records, .jsonl or .parquet"
        )
    parse: Callable[[Row], Record] | None = None
    records: list[Record] = []
    for place, row in _rows_of(path):
        try:
            if isinstance(row, list) and row and isinstance(row[0], dict):
                raise _MisfitError(_ONE_LIST)
            if not isinstance(row, dict):
                raise _MisfitError(f"expected an object, got {_quoted(row)}")
            parse = parse or _shape_of(row)
            records.append(parse(row))
        except _MisfitError as error:
            raise UserError(f"{path}: {place}: {error}") from error
    if not records:
        raise UserError(f"{path}: the file is empty, expected at least one record")
    return records


def evenly(items: list[_Item], limit: int | None) -> list[_Item]:
    """At most `limit` of them, evenly spaced: files are often sorted by subject."""
    if limit is None or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def _rows_of(path: Path) -> Iterator[tuple[str, Any]]:
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return _json_lines(path)
        case ".parquet":
            return _parquet_rows(path)
        case suffix:
            raise UserError(
                f"{path}: unknown extension {suffix!r}, expected .jsonl or .parquet; {_CONVERT}"
            )


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot read this file: {error.strerror}") from error
    with file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield f"line {number}", json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                raise UserError(f"{path}: line {number}: not UTF-8 text: {error.reason}") from error
            except json.JSONDecodeError as error:
                if line.lstrip()[:1] == b"[":
                    raise UserError(f"{path}: line {number}: {_ONE_LIST}") from error
                what = f"{error.msg} at column {error.colno}"
                raise UserError(f"{path}: line {number}: not JSON: {what}") from error
            except (ValueError, RecursionError) as error:  # numbers too long, lists too deep
                raise UserError(f"{path}: line {number}: not JSON that can be read") from error


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    from pyarrow import parquet
    from pyarrow.lib import ArrowException

    try:
        rows = parquet.read_table(path).to_pylist()
    except (ArrowException, OSError, ValueError) as error:  # text in another encoding
        raise UserError(f"{path}: not a Parquet file: {str(error).splitlines()[0]}") from error
    for number, row in enumerate(rows, start=1):
        yield f"row {number}", row


def _shape_of(row: Row) -> Callable[[Row], Record]:
    for columns, parse in _SHAPES:
        if all(column in row for column in columns):
            return parse
    shapes = "; ".join(" and ".join(columns) for columns, _ in _SHAPES)
    found = ", ".join(repr(name) for name in row) or "none"
    raise _MisfitError(f"expected the fields of one shape ({shapes}), found {found}; {_CONVERT}")


def _chat(row: Row) -> Chat:
    return Chat(_messages(row, "messages"))


def _sharegpt_chat(row: Row) -> Chat:
    turns = _list(row, "conversations")
    return Chat(
        tuple(
            _message(turn, f"conversations[{i}]", ("from", "value"), _SHAREGPT_ROLES)
            for i, turn in enumerate(turns)
        )
    )


def _completion(row: Row) -> Chat | Completion:
    if not isinstance(row.get("prompt"), list):
        return Completion(_text(row, "prompt"), _text(row, "completion"))
    prompt = _messages(row, "prompt")
    return Chat((*prompt, *_messages(row, "completion")), completion_from=len(prompt))


def _instruction(row: Row) -> Completion:
    prompt = _text(row, "instruction")
    if row.get("input") is not None and (context := _text(row, "input")).strip():
        prompt = f"{prompt}\n\n{context}"
    return Completion(prompt, _text(row, "output"))


def _preference(row: Row) -> Preference:
    """Answers as text, as the turns that follow a prompt, or as whole conversations."""
    if not isinstance(_present(row, "chosen"), list):
        prompt = _text(row, "prompt")
        answers = (Completion(prompt, _text(row, name)) for name in ("chosen", "rejected"))
        return Preference(*answers)
    chosen, rejected = _messages(row, "chosen"), _messages(row, "rejected")
    if isinstance(row.get("prompt"), list):
        before = _messages(row, "prompt")
    else:
        both = zip(chosen, rejected, strict=False)
        shared = len(list(takewhile(lambda pair: pair[0] == pair[1], both)))
        shared = min(shared, len(chosen) - 1, len(rejected) - 1)
        before, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
        if not before:
            before = (Message("user", _text(row, "prompt")),)
    return Preference(
        Chat((*before, *chosen), completion_from=len(before)),
        Chat((*before, *rejected), completion_from=len(before)),
    )


def _plain_text(row: Row) -> Text:
    return Text(_text(row, "text"))


_SHAPES: tuple[tuple[tuple[str, ...], Callable[[Row], Record]], ...] = (
    (("messages",), _chat),
    (("conversations",), _sharegpt_chat),
    (("chosen", "rejected"), _preference),
    (("prompt", "completion"), _completion),
    (("instruction", "output"), _instruction),
    (("text",), _plain_text),
)


def _messages(row: Row, field: str) -> tuple[Message, ...]:
    roles = {role: role for role in _ROLES}
    return tuple(
        _message(turn, f"{field}[{i}]", ("role", "content"), roles)
        for i, turn in enumerate(_list(row, field))
    )


def _message(turn: Any, place: str, keys: tuple[str, str], roles: Mapping[str, str]) -> Message:
    if not isinstance(turn, dict):
        raise _MisfitError(f"{place}: expected an object, got {_quoted(turn)}")
    role, content = (_text(turn, key, within=f"{place}.") for key in keys)
    if role not in roles:
        raise _MisfitError(f"{place}.{keys[0]}: expected one of {', '.join(roles)}, got {role!r}")
    return Message(roles[role], content)


def _list(row: Row, field: str) -> list[Any]:
    value = _present(row, field)
    if not isinstance(value, list) or not value:
        raise _MisfitError(f"{field}: expected a list of messages, got {_quoted(value)}")
    return value


def _text(row: Row, field: str, within: str = "") -> str:
    value = _present(row, field, within)
    if not isinstance(value, str):
        raise _MisfitError(f"{within}{field}: expected text, got {_quoted(value)}")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise _MisfitError(f"{within}{field}: half of a surrogate pair is no text")
    return value


def _present(row: Row, field: str, within: str = "") -> Any:
    if field not in row:
        found = ", ".join(repr(name) for name in row) or "none"
        raise _MisfitError(f"the field {within}{field} is missing, found {found}")
    return row[field]


def _quoted(value: Any) -> str:
    """JSON of the value, cut to what fits in a message."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
