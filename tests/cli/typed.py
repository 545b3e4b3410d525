"""What a user types, and what is told in return."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import alto_cli
from tests.tune.small_study import write_study

__all__ = ["STUDY", "Answer", "files_below", "mistake", "study_file", "typed"]

STUDY = """\
name: small
model: {model}
data: {{train: train.jsonl, validation: validation.jsonl, max_length: 96}}
search: {{learning_rate: [1.0e-3, 3.0e-3]}}
budget: {{samples: 4}}
reports: 2
executor: {{device: cpu, threads: 1}}
policy: {{name: alto, warmup: 0.5}}
"""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    out: str
    err: str


def typed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Answer:
    """As `alto ARGUMENTS` answers."""
    capsys.readouterr()
    try:
        status = alto_cli.main([str(argument) for argument in arguments])
    except SystemExit as exit_:  # of argparse
        status = int(exit_.code or 0)
    out, err = capsys.readouterr()
    return Answer(status, out, err)


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The line that tells the mistake, without the name of the program; nothing else is told."""
    answer = typed(capsys, *arguments)
    assert (answer.status, answer.out) == (2, "")
    lines = answer.err.splitlines()
    assert lines, "a mistake is told"
    assert [line for line in lines if line.startswith("alto")] == lines[-1:]
    assert "Traceback" not in answer.err
    return lines[-1].removeprefix("alto: ")


def study_file(folder: Path, *changes: tuple[str, str]) -> Path:
    """The small study with some of its text replaced; its data and model beside it."""
    text = STUDY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return write_study(folder, text)


def files_below(folder: Path) -> dict[str, bytes]:
    found: Sequence[Path] = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
