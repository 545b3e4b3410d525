"""A file gets the name of another one, by an exchange where the system can."""

import os
from pathlib import Path

import pytest

from alto_runs.files import exchanging
from alto_runs.files.artifacts import FolderArtifact
from alto_runs.files.exchanging import take_name


@pytest.fixture(params=["as here", "no exchange", "it fails"])
def _exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "no exchange":
        monkeypatch.setattr(exchanging, "_renameat2", lambda: None)
    elif request.param == "it fails":
        monkeypatch.setattr(exchanging, "_renameat2", lambda: lambda *_: -1)


@pytest.mark.usefixtures("_exchange")
def test_the_name_is_that_of_the_new_content_alone(tmp_path: Path) -> None:
    path, made = tmp_path / "weights", tmp_path / "made"
    for content in (b"first", b"second"):
        made.write_bytes(content)
        take_name(made, path)
        assert path.read_bytes() == content
        assert os.listdir(tmp_path) == ["weights"]
    with pytest.raises(FileNotFoundError):
        take_name(made, path)
    assert path.read_bytes() == b"second"


def test_files_of_jobs_exchange_their_names_on_linux(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file is renamed over another: whoever has the old one open reads on."""
    file = FolderArtifact(tmp_path / "weights")
    file.write(b"first")
    if exchanging._renameat2() is None:
        pytest.skip("Linux's renameat2")
    monkeypatch.delattr(os, "replace")
    with file.path.open("rb") as opened:
        file.write([b"sec", b"ond"])
        assert opened.read() == b"first"
    assert file.path.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["weights"]
