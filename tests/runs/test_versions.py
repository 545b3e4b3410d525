"""Which code ran."""

import sys
from pathlib import Path

import pytest

from alto_runs.versions import source_digest


def test_a_digest_is_of_the_files_of_its_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    inner = tmp_path / "digested" / "inner"
    inner.mkdir(parents=True)
    for name in ("../__init__", "__init__", "a"):
        (inner / f"{name}.py").write_text("")
    before = source_digest("digested")
    (inner / "notes.txt").write_text("no code")
    assert source_digest("digested") == before
    (inner / "a.py").write_text("x = 1\n")
    changed = source_digest("digested")
    (inner / "a.py").rename(inner / "b.py")
    assert len({before, changed, source_digest("digested"), source_digest("absent_package")}) == 4
