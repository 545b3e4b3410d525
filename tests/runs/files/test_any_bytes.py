"""Whatever a file holds, a user is told in one line or gets what they asked for."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alto_policy.runlog import dump_entry, dump_header
from alto_runs.data_records import read_records
from alto_runs.errors import UserError
from alto_runs.files.lines import compressed
from alto_runs.result import Result
from alto_runs.study import load_study, resolved_yaml
from tests.runs.cases import fates

STUDY = b"""\
name: s
model: m
data: {train: t.jsonl, validation_fraction: 0.2}
targets: [q_proj, v_proj]
budget: {epochs: 2}
policy: {name: alto, rules: {window: 3}}
prompts: ["a\\u00e9b"]
tasks:
  one: {search: {learning_rate: [1e-4, .5], alpha: [null, 3]}}
  two: {jobs: [{rank: 4, clip: 1.0}], reports: 3}
"""
RECORDS = b"""\
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
{"messages": [{"role": "user", "content": "\\ud83d\\ude00"}]}
"""
LOG = "\n".join(
    [dump_header(fates().header), *map(dump_entry, fates().entries)]  # type: ignore[arg-type]
).encode()
PIECES = [b"\0", b"\xff", b"\xed\xa0\x80", b"\n", b"\r", b" ", b"\t", b"{", b"}", b"[", b"]", b":"]
PIECES += [
    b",",
    b"-",
    b"&a ",
    b"*a",
    b"!!x ",
    b"<<: ",
    b"? ",
    b"null",
    b"1e999",
    b"NaN",
    b'"',
    b"'",
]
PIECES += [b"9" * 30, b"\\ud800", b"#", b"- ", b"--- ", b"..", b"/", b"true", b"2024-01-01"]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The file with some bytes taken out and others put in, here and there."""
    content = whole
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        end = at + draw(st.integers(0, 12))
        content = (
            content[:at] + draw(st.sampled_from(PIECES) | st.binary(max_size=3)) + content[end:]
        )
    return content


def told(error: UserError, path: Path) -> None:
    assert str(error).startswith(str(path))
    assert len(str(error).splitlines()) == 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any")


@settings(max_examples=100)
@given(content=damaged(STUDY) | st.binary(max_size=40))
def test_a_damaged_study(content: bytes, folder: Path) -> None:
    path = folder / "study.yaml"
    path.write_bytes(content)
    try:
        study = load_study(path)
    except UserError as error:
        told(error, path)
    else:
        path.write_text(resolved_yaml(study), encoding="utf-8")
        assert load_study(path) == study


@settings(max_examples=100)
@given(content=damaged(RECORDS) | st.binary(max_size=40))
def test_damaged_data(content: bytes, folder: Path) -> None:
    path = folder / "data.jsonl"
    path.write_bytes(content)
    try:
        for record in read_records(path):
            repr(record).encode()
    except UserError as error:
        told(error, path)


@settings(max_examples=60)
@given(content=damaged(LOG) | st.binary(max_size=40))
def test_a_damaged_log(content: bytes, folder: Path) -> None:
    path = folder / "run.jsonl"
    path.write_bytes(content)
    try:
        assert len(Result(folder).leaderboard) in (0, 12)
    except UserError as error:
        told(error, path)


@settings(max_examples=60)
@given(content=damaged(compressed(LOG)) | damaged(LOG).map(compressed) | st.binary(max_size=40))
def test_a_damaged_compressed_log(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("compressed") / "run.jsonl.gz"
    path.write_bytes(content)
    try:
        assert len(Result(path.parent).leaderboard) in (0, 12)
    except UserError as error:
        told(error, path)
