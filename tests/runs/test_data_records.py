"""Data files in all their shapes, and what is said of one that is none of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyarrow import lib as pyarrow
from pyarrow import parquet

from alto_runs.data_records import (
    Chat,
    Completion,
    Message,
    Preference,
    Record,
    Text,
    read_records,
)
from alto_runs.errors import UserError

USER, ANSWER = Message("user", "Why?"), Message("assistant", "Because.")
TURNS = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
SHAREGPT = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]
SHAPES = (
    "(messages; conversations; chosen and rejected; prompt and completion; "
    "instruction and output; text)"
)
CONVERT = "docs/study.md has a line that converts other files, and other names of fields"
OTHER = Message("assistant", "Who knows?")
OTHER_TURN = {"role": "assistant", "content": "Who knows?"}

ROWS = [
    pytest.param({"messages": TURNS}, Chat((USER, ANSWER)), id="messages"),
    pytest.param({"conversations": SHAREGPT}, Chat((USER, ANSWER)), id="ShareGPT"),
    pytest.param(
        {"prompt": "Why?", "completion": "Because."}, Completion("Why?", "Because."), id="prompt"
    ),
    pytest.param(
        {"prompt": TURNS[:1], "completion": TURNS[1:]},
        Chat((USER, ANSWER), completion_from=1),
        id="prompt and completion of messages",
    ),
    pytest.param(
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
        Completion("Add.\n\n1 and 2", "3"),
        id="alpaca",
    ),
    pytest.param(
        {"instruction": "Add.", "input": "", "output": "3"},
        Completion("Add.", "3"),
        id="alpaca with a blank input",
    ),
    pytest.param(
        {"instruction": "Add.", "output": "3"}, Completion("Add.", "3"), id="alpaca, no input"
    ),
    pytest.param(
        {"prompt": "Why?", "chosen": "Because.", "rejected": "Who knows?"},
        Preference(Completion("Why?", "Because."), Completion("Why?", "Who knows?")),
        id="preference",
    ),
    pytest.param(
        {"prompt": TURNS[:1], "chosen": TURNS[1:], "rejected": [OTHER_TURN]},
        Preference(Chat((USER, ANSWER), 1), Chat((USER, OTHER), 1)),
        id="preference of messages",
    ),
    pytest.param(
        {"prompt": "Why?", "chosen": TURNS, "rejected": [*TURNS[:1], OTHER_TURN]},
        Preference(Chat((USER, ANSWER), 1), Chat((USER, OTHER), 1)),
        id="preference of whole conversations",
    ),
    pytest.param(
        {"prompt": "Why?", "chosen": TURNS[1:], "rejected": [OTHER_TURN]},
        Preference(Chat((USER, ANSWER), 1), Chat((USER, OTHER), 1)),
        id="preference, the prompt as text before messages",
    ),
    pytest.param(
        {"chosen": [*TURNS, *TURNS], "rejected": [*TURNS, *TURNS[:1], OTHER_TURN]},
        Preference(Chat((USER, ANSWER, USER, ANSWER), 3), Chat((USER, ANSWER, USER, OTHER), 3)),
        id="preference, no prompt beside what both conversations share",
    ),
    pytest.param(
        {"chosen": TURNS, "rejected": TURNS},
        Preference(Chat((USER, ANSWER), 1), Chat((USER, ANSWER), 1)),
        id="preference between equals",
    ),
    pytest.param({"text": "All of it."}, Text("All of it."), id="text"),
    pytest.param({"id": 7, "text": "x", "score": 0.5}, Text("x"), id="columns that say nothing"),
    pytest.param(
        {"text": "x", "messages": TURNS}, Chat((USER, ANSWER)), id="messages before their text"
    ),
]

ONE_LIST = "one list of records, expected a record on each line, as jq -c '.[]' FILE writes them"


def jsonl(folder: Path, *rows: object) -> Path:
    return written(folder, "".join(f"{json.dumps(row)}\n" for row in rows))


def written(folder: Path, text: str | bytes, name: str = "data.jsonl") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def told(path: Path) -> str:
    """What the user is told, without the name of the file."""
    with pytest.raises(UserError) as caught:
        read_records(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line.removeprefix(f"{path}: ")


@pytest.mark.parametrize(("row", "record"), ROWS)
def test_shapes_in_jsonl(row: Mapping[str, Any], record: Record, tmp_path: Path) -> None:
    assert read_records(jsonl(tmp_path, row, row)) == [record, record]


@pytest.mark.parametrize(("row", "record"), ROWS)
def test_shapes_in_parquet(row: Mapping[str, Any], record: Record, tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([row, row]), path)
    assert read_records(path) == [record, record]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('\n{"text": "a"}\n\n  \n{"text": "b"}\n', id="blank lines"),
        pytest.param('{"text": "a"}\n{"text": "b"}', id="no end of the last line"),
        pytest.param('{"text": "a"}\r\n{"text": "b"}\r\n', id="ends of lines as on Windows"),
        pytest.param('\ufeff{"text": "a"}\n{"text": "b"}\n', id="byte order mark"),
    ],
)
def test_files_as_editors_leave_them(text: str, tmp_path: Path) -> None:
    assert read_records(written(tmp_path, text)) == [Text("a"), Text("b")]


@pytest.mark.parametrize("name", ["d.jsonl", "d.ndjson", "D.JSONL"])
def test_extensions_of_json_lines(name: str, tmp_path: Path) -> None:
    assert read_records(written(tmp_path, '{"text": "a"}', name)) == [Text("a")]


def test_a_null_input_is_none(tmp_path: Path) -> None:
    rows: list[dict[str, str | None]] = [{"instruction": "A", "input": "b", "output": "c"}]
    rows.append(rows[0] | {"input": None})
    assert read_records(jsonl(tmp_path, *rows))[1] == Completion("A", "c")


def test_letters_beyond_ascii(tmp_path: Path) -> None:
    text = "na\u00efve \u2028 \U0001f600"
    path = written(tmp_path, json.dumps({"text": text}, ensure_ascii=False))
    assert read_records(path) == [Text(text)]
    escaped = jsonl(tmp_path, {"text": text})  # a whole surrogate pair
    assert read_records(escaped) == [Text(text)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        pytest.param(
            '{"text": "a"}\n\n{"text": b}\n',
            "line 3: not JSON: Expecting value at column 10",
            id="not JSON",
        ),
        pytest.param(
            '{"text": "a',
            "line 1: not JSON: Unterminated string starting at at column 10",
            id="torn",
        ),
        pytest.param('[\n{"text": "a"},\n{"text": "b"}\n]\n', "line 1: " + ONE_LIST, id="JSON"),
        pytest.param(
            '[{"text": "a"}, {"text": "b"}]', "line 1: " + ONE_LIST, id="a list of records"
        ),
        pytest.param("[" * 100_000, "line 1: not JSON that can be read", id="bottomless"),
        pytest.param(
            '{"text": "a"}\n{"text": ' + "9" * 5000 + "}",
            "line 2: not JSON that can be read",
            id="a number of 5000 digits",
        ),
        pytest.param(
            b'{"text": "\xff"}', "line 1: not UTF-8 text: invalid start byte", id="latin-1"
        ),
        pytest.param(
            '{"text": "a"}'.encode("utf-16"),
            "line 1: not UTF-8 text: invalid start byte",
            id="UTF-16",
        ),
        pytest.param("", "the file is empty, expected at least one record", id="empty"),
        pytest.param("\n \n", "the file is empty, expected at least one record", id="blank"),
        pytest.param('["a"]', 'line 1: expected an object, got ["a"]', id="a list"),
        pytest.param('{"text": "a"}\nnull', "line 2: expected an object, got null", id="null"),
        pytest.param(
            "{}",
            f"line 1: expected the fields of one shape {SHAPES}, found none; {CONVERT}",
            id="no fields",
        ),
        pytest.param(
            '{"question": "a", "answer": "b"}',
            f"line 1: expected the fields of one shape {SHAPES}, found 'question', 'answer'; "
            f"{CONVERT}",
            id="unknown fields",
        ),
        pytest.param(
            '{"instruction": "a", "prompt": "b"}',
            f"line 1: expected the fields of one shape {SHAPES}, found 'instruction', 'prompt'; "
            f"{CONVERT}",
            id="halves of two shapes",
        ),
    ],
)
def test_what_is_no_data(text: str | bytes, what: str, tmp_path: Path) -> None:
    assert told(written(tmp_path, text)) == what


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        pytest.param(
            [{"text": "a"}, {"txt": "b"}],
            "line 2: the field text is missing, found 'txt'",
            id="a later record without the field",
        ),
        pytest.param([{"text": 3}], "line 1: text: expected text, got 3", id="a number"),
        pytest.param([{"text": None}], "line 1: text: expected text, got null", id="null"),
        pytest.param(
            [{"text": ["x" * 99]}],
            f'line 1: text: expected text, got ["{"x" * 55}...',
            id="a long list",
        ),
        pytest.param(
            [{"text": "\ud800"}],
            "line 1: text: half of a surrogate pair is no text",
            id="half of a surrogate pair",
        ),
        pytest.param(
            [{"messages": "hello"}],
            'line 1: messages: expected a list of messages, got "hello"',
            id="messages that are text",
        ),
        pytest.param(
            [{"messages": []}],
            "line 1: messages: expected a list of messages, got []",
            id="no messages",
        ),
        pytest.param(
            [{"messages": [TURNS[0], "x"]}],
            'line 1: messages[1]: expected an object, got "x"',
            id="a message that is text",
        ),
        pytest.param(
            [{"messages": [{"role": "user"}]}],
            "line 1: the field messages[0].content is missing, found 'role'",
            id="a message without content",
        ),
        pytest.param(
            [{"messages": [{"role": "user", "content": None}]}],
            "line 1: messages[0].content: expected text, got null",
            id="content of null",
        ),
        pytest.param(
            [{"messages": [{"role": "human", "content": "a"}]}],
            "line 1: messages[0].role: expected one of system, developer, user, assistant, tool, "
            "got 'human'",
            id="a role of another shape",
        ),
        pytest.param(
            [{"conversations": [{"from": "bot", "value": "a"}]}],
            "line 1: conversations[0].from: expected one of system, human, user, gpt, assistant, "
            "tool, got 'bot'",
            id="an unknown speaker",
        ),
        pytest.param(
            [{"prompt": "a", "completion": 3}],
            "line 1: completion: expected text, got 3",
            id="a completion of another type",
        ),
        pytest.param(
            [{"prompt": TURNS[:1], "completion": "b"}],
            'line 1: completion: expected a list of messages, got "b"',
            id="a completion of another kind than its prompt",
        ),
        pytest.param(
            [{"instruction": "a", "input": 3, "output": "b"}],
            "line 1: input: expected text, got 3",
            id="an input of another type",
        ),
    ],
)
def test_records_that_are_not_of_their_shape(
    rows: Sequence[object], what: str, tmp_path: Path
) -> None:
    assert told(jsonl(tmp_path, *rows)) == what


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("d.csv", f"unknown extension '.csv', expected .jsonl or .parquet; {CONVERT}"),
        ("d.json", f"unknown extension '.json', expected .jsonl or .parquet; {CONVERT}"),
        ("plain", f"unknown extension '', expected .jsonl or .parquet; {CONVERT}"),
    ],
)
def test_files_that_are_not_read(name: str, what: str, tmp_path: Path) -> None:
    for other in ("d.csv", "d.json", "plain"):
        written(tmp_path, "text\na\n", other)
    assert told(tmp_path / name) == what


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("gone.jsonl", "no such file"),
        ("x" * 300, "no such file"),
        ("folder", "is a folder"),
    ],
)
def test_files_that_are_not_there(name: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError) as caught:
        read_records(tmp_path / name, "data.train")
    assert str(caught.value) == (
        f"data.train: value '{tmp_path / name}': {what}, expected a file of records, .jsonl or "
        ".parquet"
    )


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = jsonl(tmp_path, {"text": "a"})
    monkeypatch.setattr(Path, "open", refuse)
    assert told(path) == "cannot read this file: Permission denied"


def test_rows_of_parquet_are_named(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    parquet.write_table(pyarrow.table({"text": ["a", None]}), path)
    assert told(path) == "row 2: text: expected text, got null"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 99, b'{"text": "a"}'])
def test_what_is_no_parquet(content: bytes, tmp_path: Path) -> None:
    assert told(written(tmp_path, content, "d.parquet")).startswith("not a Parquet file: ")


def test_parquet_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), path)
    assert told(path) == "the file is empty, expected at least one record"


def test_parquet_with_text_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    bad = pyarrow.array([b"\xff"], pyarrow.binary()).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": bad}), path)
    assert told(path).startswith("not a Parquet file: ")
