"""A run whose files of lines were compressed, as a user meets it."""

import gzip
from pathlib import Path

import pytest

from alto_runs.errors import UserError
from alto_runs.files.lines import compressed
from alto_service.serving import serve
from alto_service.settings import ServiceSettings
from tests.cli.typed import files_below, mistake, study_file, typed

Capture = pytest.CaptureFixture[str]

RECORDED = Path("traces/recorded/qasc-preferences-alto")


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """A run of a GPU, plain and compressed."""
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    plain.mkdir()
    packed.mkdir()
    for name, content in files_below(RECORDED).items():
        lines = gzip.decompress(content) if name.endswith(".gz") else content
        (plain / name.removesuffix(".gz")).write_bytes(lines)
    for name, content in files_below(plain).items():
        is_log = name.endswith(".jsonl")
        (packed / f"{name}{'.gz' * is_log}").write_bytes(compressed(content) if is_log else content)
    assert not {*files_below(packed)} & {"run.jsonl", "work.jsonl", "answers.jsonl"}
    return plain, packed


def test_verbs_tell_the_same_of_a_compressed_run(
    runs: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    _, packed = runs
    assert typed(capsys, "replay", packed).out.endswith(" entries, all decided the same\n")
    for verb in ("report", "simulate"):
        made = []
        for run in runs:
            out = tmp_path / verb / run.name / "out"
            assert typed(capsys, verb, run, "--out", out).status == 0
            made.append(files_below(out))
        assert made[0].keys() == made[1].keys()
        for name in made[0].keys() - {"report.html"}:  # which names the folder
            assert made[0][name] == made[1][name], name
    log = packed / "run.jsonl.gz"
    assert typed(capsys, "simulate", log, "--out", tmp_path / "of-its-log").status == 0


def test_a_damaged_one_is_a_mistake_and_no_shorter_run(
    runs: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    log = runs[1] / "run.jsonl.gz"
    log.write_bytes(log.read_bytes()[:-100])
    for verb, *options in (["report"], ["replay"], ["simulate", "--out", str(tmp_path / "out")]):
        told = mistake(capsys, verb, runs[1], *options)
        assert told.startswith(f"{log}: not a whole gzip file: ")


def test_a_run_that_was_compressed_does_not_begin_anew(
    runs: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    before = files_below(runs[1])
    study = study_file(tmp_path)
    told = mistake(capsys, "tune", study, "--out", runs[1], "--resume")
    assert told.startswith(f"{runs[1] / 'run.jsonl.gz'}: is compressed, and no run goes on in it")
    assert files_below(runs[1]) == before


def test_a_service_whose_log_was_compressed_does_not_begin_anew(tmp_path: Path) -> None:
    (tmp_path / "run.jsonl.gz").write_bytes(compressed(b""))
    (tmp_path / "service.sqlite").touch()
    settings = ServiceSettings()
    with pytest.raises(UserError, match=r"run\.jsonl\.gz: is compressed, and no run goes on in it"):
        serve(tmp_path, [tmp_path], host="localhost", port=-1, tokens=None, settings=settings)
