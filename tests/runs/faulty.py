"""How the tests of study files read a faulty one."""

from pathlib import Path

import pytest

from alto_runs.errors import UserError
from alto_runs.study import load_study

__all__ = ["WHOLE", "mistake"]

WHOLE = "name: s\nmodel: m\ndata: {train: t.jsonl}\n"


def mistake(text: str, folder: Path) -> str:
    """What the user is told, without the name of the file."""
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_study(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line.removeprefix(f"{path}: ")
