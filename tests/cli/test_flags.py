"""What is typed wrong in a flag is told as that flag, before anything is done."""

from pathlib import Path

import pytest

from alto_runs.profile import dump_rows, read_profile, shipped_profile
from tests.cli.typed import files_below, mistake

Capture = pytest.CaptureFixture[str]

TRACE = "traces/tiresias/60_job.csv.gz"
TUNING = "rows: tuning\n"
KINDS = "no data sheet of it, expected one of H100, H100-PCIe, H200, B200, A100"
EMPTY = "value '': expected one that is not empty"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with something of each kind in it."""
    trace = Path(TRACE).read_bytes()
    monkeypatch.chdir(tmp_path)
    Path("trace.csv.gz").write_bytes(trace)
    Path("file").write_text("mine")
    Path("folder").mkdir()
    Path("tuning.yaml").write_text(TUNING)
    Path("cluster.yaml").write_text("nodes: [{ gpu: H300, gpus: 8 }]\n")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "simulate trace.csv.gz --conditions tuning.yaml --gpu H300 --out o",
            f"--gpu: value 'H300': {KINDS}",
        ),
        (
            "workload --tasks 3 --load 1 --gpus 4 --gpu H300 --out o.jsonl",
            f"--gpu: value 'H300': {KINDS}",
        ),
        (
            "workload --tasks 3 --load 1 --cluster cluster.yaml --out o.jsonl",
            f"cluster.yaml: nodes[0].gpu: value 'H300': {KINDS}",
        ),
        ("simulate trace.csv.gz --gpu A100 --out o", "expected no --profile and no --gpu"),
        (
            "simulate trace.csv.gz --policy own --out o",
            "--policy: value 'own': expected one of alto,",
        ),
        ("simulate trace.csv.gz --gpu  --out o", f"argument --gpu: {EMPTY}"),
        ("simulate trace.csv.gz --out ", f"argument --out: {EMPTY}"),
        ("simulate  --out o", f"argument TRACE|STUDY.yaml|DIR: {EMPTY}"),
        ("tune study.yaml --out o --publish ", f"argument --publish: {EMPTY}"),
        ("tune study.yaml --out o --artifacts ", f"argument --artifacts: {EMPTY}"),
        ("tune study.yaml --out o --cluster ", f"argument --cluster: {EMPTY}"),
        ("profile --out o.jsonl --model ", f"argument --model: {EMPTY}"),
        ("profile --out o.jsonl --model folder", "--model: folder 'folder' has no config.json"),
        ("profile --out gone/o.jsonl", "--out: value 'gone/o.jsonl': there is no folder 'gone'"),
        (
            "workload --tasks 3 --gap 10 --out gone/o.jsonl",
            "--out: value 'gone/o.jsonl': there is no",
        ),
        (
            "workload --tasks 3 --gap 10 --out o.csv",
            "--out: value 'o.csv': expected a name that ends in",
        ),
        (
            "workload --tasks 3 --gap 1e308 --out o.jsonl",
            "--gap: value 1e+308: the last task would never",
        ),
        (
            "workload --tasks 1000001 --gap 1 --out o.jsonl",
            "--tasks: value '1000001': expected 1,000,000 at",
        ),
        ("cancel ", f"argument ID: {EMPTY}"),
        ("status s1 --server ", f"argument --server: {EMPTY}"),
        ("submit file --tenant ", f"argument --tenant: {EMPTY}"),
        ("serve --out o --root ", f"argument --root: {EMPTY}"),
    ],
)
def test_the_flag_is_named_and_nothing_is_begun(
    words: str, told: str, here: Path, capsys: Capture
) -> None:
    before = files_below(here)
    assert told in mistake(capsys, *words.split(" "))
    assert files_below(here) == before
    assert not (here / "o").exists()


def test_a_report_is_not_written_into_a_file(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "file"
    out.write_text("mine")
    told = mistake(capsys, "report", "traces/recorded/qasc-preferences-alto", "--out", out)
    assert told == f"{out}: is a file, expected a folder for the report"


def test_times_of_an_unknown_machine_are_carried_nowhere(here: Path, capsys: Capture) -> None:
    """The profile is at fault then, and not the flag; under its own name it will do."""
    text = dump_rows(read_profile(shipped_profile())).replace("NVIDIA H100 80GB HBM3", "an oven")
    Path("mine.jsonl").write_text(text)
    words = ["workload", "--tasks", "3", "--load", "1", "--gpus", "4", "--profile", "mine.jsonl"]
    told = mistake(capsys, *words, "--gpu", "A100", "--out", "o.jsonl")
    assert told.startswith(
        "mine.jsonl: gpu: value 'an oven': no data sheet of it, expected one of "
    )
    told = mistake(capsys, *words, "--gpu", "T5", "--out", "o.jsonl")
    assert told.startswith("--gpu: value 'T5'")
    told = mistake(capsys, *words, "--gpu", "an oven", "--out", "o.jsonl")
    assert told.endswith("no data sheet tells the memory of 'an oven'")
