"""Each mistake of a user, from end to end: one line, status 2, nothing overwritten."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from alto_policy.events import TaskArrived
from alto_policy.policies import SETTINGS
from alto_policy.runlog import dump_entry
from alto_policy.types import JobId, Task
from alto_runs.files.directory import RunDirectory
from tests.cli.typed import files_below, mistake, study_file, typed
from tests.runs.cases import entry, fates, job, save, task

POLICIES = ", ".join(SETTINGS)
Capture = pytest.CaptureFixture[str]


def refused(folder: Path, capsys: Capture, *changes: tuple[str, str]) -> str:
    """What is told of the small study with these changes; its output is not begun."""
    path = study_file(folder, *changes)
    return of_study(path, capsys)


def of_study(path: Path, capsys: Capture) -> str:
    out = path.parent / "run"
    line = mistake(capsys, "tune", path, "--out", out)
    assert files_below(out) == {}
    return line.replace(str(path.parent), "FOLDER")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        pytest.param(
            ("reports: 2", "report: 2"),
            "FOLDER/study.yaml: report: value 2: unknown key, did you mean 'reports'?",
            id="unknown key",
        ),
        pytest.param(
            ("[1.0e-3, 3.0e-3]", "[1.0e-3, -1]"),
            "FOLDER/study.yaml: search.learning_rate[1]: value -1: "
            "learning_rate must be at least 0",
            id="value out of range",
        ),
        pytest.param(
            ("name: alto", "name: otto"),
            f"FOLDER/study.yaml: policy.name: value 'otto': expected one of {POLICIES}",
            id="unknown policy",
        ),
        pytest.param(
            ("reports: 2", "reports: 2\ntargets: [q_prj]"),
            "FOLDER/study.yaml: targets: 'q_prj' is no linear layer of this model; it has "
            "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj",
            id="unknown layer",
        ),
        pytest.param(
            ("train.jsonl", "gone.jsonl"),
            "FOLDER/study.yaml: data.train: value 'FOLDER/gone.jsonl': no such file, expected a "
            "file of records, .jsonl or .parquet",
            id="missing data",
        ),
        pytest.param(
            ("validation.jsonl", "gone.jsonl"),
            "FOLDER/study.yaml: data.validation: value 'FOLDER/gone.jsonl': no such file, expected "
            "a file of records, .jsonl or .parquet",
            id="missing validation data",
        ),
        pytest.param(
            ("max_length: 96", "max_length: 1"),
            "FOLDER/study.yaml: data.train: none of its 24 records can be used: 24 have no "
            "answer within data.max_length 1, 0 have no answer at all",
            id="all too long",
        ),
        pytest.param(
            ("model: {model}", "model: ./gone"),
            "FOLDER/study.yaml: model: there is no folder 'FOLDER/gone'",
            id="missing model",
        ),
        pytest.param(
            ("model: {model}", "model: no/such-model"),
            "FOLDER/study.yaml: model: 'no/such-model' is no folder here, and no model of that "
            "name is in the Hugging Face cache of this machine; fetch it first with: "
            "hf download no/such-model",
            id="a model that was not fetched",
        ),
    ],
)
def test_mistakes_in_a_study(
    change: tuple[str, str], line: str, tmp_path: Path, capsys: Capture
) -> None:
    assert refused(tmp_path, capsys, change) == line


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        pytest.param(
            "train.jsonl",
            '{"prompt": "a", "completion": "b"}\n{"prompt": a}\n',
            "FOLDER/train.jsonl: line 2: not JSON: Expecting value at column 12",
            id="bad JSON line",
        ),
        pytest.param(
            "train.jsonl",
            '{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n',
            "FOLDER/train.jsonl: line 2: the field completion is missing, found 'prompt'",
            id="a record without a field",
        ),
        pytest.param(
            "train.jsonl",
            '{"question": "a"}\n',
            "FOLDER/train.jsonl: line 1: expected the fields of one shape (messages; "
            "conversations; chosen and rejected; prompt and completion; instruction and output; "
            "text), found 'question'; docs/study.md has a line that converts other files, and "
            "other names of fields",
            id="a record without any of the fields",
        ),
        pytest.param(
            "validation.jsonl",
            "",
            "FOLDER/validation.jsonl: the file is empty, expected at least one record",
            id="empty validation set",
        ),
    ],
)
def test_mistakes_in_data(
    name: str, content: str, line: str, tmp_path: Path, capsys: Capture
) -> None:
    path = study_file(tmp_path)
    (tmp_path / name).write_text(content)
    assert of_study(path, capsys) == line


def test_a_split_that_leaves_nothing_to_validate(tmp_path: Path, capsys: Capture) -> None:
    data = "train: train.jsonl, validation: validation.jsonl"
    path = study_file(tmp_path, (data, "train: train.jsonl"))
    (tmp_path / "train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    assert of_study(path, capsys) == (
        "FOLDER/study.yaml: data.validation_fraction: 0.1 of the 1 records in "
        "'FOLDER/train.jsonl' leaves no training record; name a validation file"
    )


def without_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def with_torn_weights(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


def with_pickled_weights(model: Path) -> None:
    without_weights(model)
    (model / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")


def without_configuration(model: Path) -> None:
    (model / "config.json").unlink()


def with_torn_configuration(model: Path) -> None:
    (model / "config.json").write_text('{"model_type": ')


def without_tokenizer(model: Path) -> None:
    for path in model.glob("tokenizer*"):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without_weights, "safetensors"),
        (with_torn_weights, "cannot be loaded"),
        (with_pickled_weights, "safetensors"),
        (without_configuration, "config.json"),
        (with_torn_configuration, "config.json"),
        (without_tokenizer, "tokenizer"),
    ],
)
def test_damaged_models(
    damage: Callable[[Path], None], words: str, tmp_path: Path, capsys: Capture
) -> None:
    path = study_file(tmp_path)
    damage(tmp_path / "model")
    line = mistake(capsys, "tune", path, "--out", tmp_path / "run")
    assert line.startswith(f"{path}: model: ")
    assert words in line
    assert not (tmp_path / "pwned").exists()


def test_an_output_that_is_in_use(tmp_path: Path, capsys: Capture) -> None:
    path = study_file(tmp_path)
    before = files_below(tmp_path)
    told = mistake(capsys, "tune", path, "--out", tmp_path)
    assert told == f"{tmp_path}: the folder is not empty, expected a new or empty one"
    told = mistake(capsys, "simulate", path, "--out", tmp_path)
    assert told == f"{tmp_path}: the folder is not empty, expected a new or empty one"
    told = mistake(capsys, "tune", path, "--out", path)
    assert told == f"{path}: is a file, expected a new or empty folder"
    assert files_below(tmp_path) == before


def test_no_output(tmp_path: Path, capsys: Capture) -> None:
    told = mistake(capsys, "tune", study_file(tmp_path))
    assert told == "--out: missing, expected a new or empty folder for the run"


@pytest.mark.parametrize("verb", ["tune", "simulate"])
def test_files_that_are_not_there(verb: str, tmp_path: Path, capsys: Capture) -> None:
    for name in ("gone.yaml", "x" * 300 + ".yaml"):
        path = tmp_path / name
        assert mistake(capsys, verb, path, "--out", tmp_path / "run").startswith(f"{path}: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("verb", ["tune", "simulate"])
def test_an_unknown_policy(verb: str, tmp_path: Path, capsys: Capture) -> None:
    path = study_file(tmp_path)
    told = mistake(capsys, verb, path, "--out", tmp_path / "run", "--policy", "otto")
    assert told == f"--policy: value 'otto': expected one of {POLICIES}, or FILE.py"
    assert not (tmp_path / "run").exists()


TIMER = '{"event":{"kind":"TimerFired","t":1.0},"decisions":[]}\n'


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", "no task arrives in this trace"),
        (TIMER, "no task arrives in this trace"),
        ("{\n" + TIMER, "line 1: not JSON: Expecting property name enclosed in double quotes: "),
        ("[]\n", "line 1: expected an object, got []"),
        ("\xff", "not a run log: "),
        ('{"header":{"version":7}}\n', "line 1: header: Header needs the field 'policy'"),
    ],
)
def test_unreadable_traces(content: str, line: str, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(content.encode("latin-1"))
    told = mistake(capsys, "simulate", path, "--out", tmp_path / "run")
    assert told.startswith(f"{path}: {line}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("tasks", "line"),
    [
        ([task("t", [job("a")]), task("t", [job("b")])], "entry 2: task 't' has arrived before"),
        ([task("t", [job("a")]), task("u", [job("a")])], "entry 2: job a belongs to another task"),
        ([task("../../t", [job("a")])], "entry 1: '../../t' is no name of a file"),
        ([task("t", [job("/etc/x")])], "entry 1: '/etc/x' is no name of a file"),
    ],
)
def test_traces_of_what_cannot_be(
    tasks: list[Task], line: str, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(f"{dump_entry(entry(TaskArrived(0.0, one)))}\n" for one in tasks))
    told = mistake(capsys, "simulate", path, "--out", tmp_path / "run")
    assert told == f"{path}: {line}"
    assert not (tmp_path / "run").exists()


def test_a_full_disk(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "trace.jsonl"
    path.write_text(f"{dump_entry(entry(TaskArrived(0.0, task('t', [job('a')]))))}\n")
    monkeypatch.setattr("alto_runs.files.directory.LogWriter.write_entries", fail)
    told = mistake(capsys, "simulate", path, "--out", tmp_path / "run")
    assert told == "No space left on device"


@pytest.mark.parametrize("verb", ["simulate", "replay", "report"])
def test_folders_without_a_run(verb: str, tmp_path: Path, capsys: Capture) -> None:
    out = ["--out", str(tmp_path / "out")] if verb != "replay" else []
    told = mistake(capsys, verb, tmp_path, *out)
    assert told == f"{tmp_path}: no run here, expected a folder with the file run.jsonl"
    assert not (tmp_path / "out").exists()


def test_logs_that_cannot_be_replayed(tmp_path: Path, capsys: Capture) -> None:
    run = save(fates(), tmp_path / "run")
    lines = run.log_path.read_text().splitlines(keepends=True)
    run.log_path.write_text("".join(lines[1:]))
    assert mistake(capsys, "replay", run.path) == (
        f"{run.log_path}: line 1: no header, which names the policy that decided"
    )
    run.log_path.write_text("".join([lines[0], *lines[3:]]))
    assert mistake(capsys, "replay", run.path).startswith(
        f"{run.log_path}: this log cannot have happened: "
    )


def test_a_log_that_was_decided_by_hand_is_told_and_no_mistake(
    tmp_path: Path, capsys: Capture
) -> None:
    answer = typed(capsys, "replay", save(fates(), tmp_path / "run").path)
    assert (answer.status, answer.err) == (1, "")
    assert answer.out.splitlines()[0] == "entry 2 is decided differently"


def test_a_report_where_no_folder_can_be(tmp_path: Path, capsys: Capture) -> None:
    run = save(fates(), tmp_path / "run").path
    (tmp_path / "file").write_text("mine")
    told = mistake(capsys, "report", run, "--out", tmp_path / "file")
    assert told == f"{tmp_path / 'file'}: is a file, expected a folder for the report"
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the small study, and of a run of it that came to its end."""
    import alto_cli

    folder = tmp_path_factory.mktemp("tuned")
    path = study_file(folder)
    assert alto_cli.main(["tune", str(path), "--out", str(folder / "run")]) == 0
    return folder


def cut_short(tuned: Path, folder: Path) -> RunDirectory:
    """A copy of the run as it was when both its jobs had just paused."""
    original = RunDirectory(tuned / "run")
    run = RunDirectory.create(folder / "run")
    run.study_path.write_bytes(original.study_path.read_bytes())
    lines = original.log_path.read_text().splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if '"how":"paused"' in line)
    run.log_path.write_text("".join(lines[:last]))
    return run


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\xff" * 99])
def test_a_corrupt_checkpoint(content: bytes, tuned: Path, tmp_path: Path, capsys: Capture) -> None:
    run = cut_short(tuned, tmp_path)
    for number in (0, 1):
        path = Path(str(run.checkpoint(JobId(f"small-0{number}"))))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    told = mistake(capsys, "tune", tuned / "study.yaml", "--out", run.path, "--resume")
    assert told.startswith(f"{run.path / 'checkpoints' / 'small-0'}")
    assert "not a checkpoint of a job, or damaged" in told


def test_a_task_of_which_no_job_fits(tmp_path: Path, capsys: Capture) -> None:
    """Its leaderboard is printed, since other tasks may have winners."""
    study = study_file(tmp_path, ("threads: 1", "threads: 1, memory_gb: 1.0e-5"))
    answer = typed(capsys, "tune", study, "--out", tmp_path / "run")
    assert (answer.status, answer.out.count("does not fit")) == (2, 2)
    told = answer.err.splitlines()[-1]
    assert told.startswith(
        "alto: task small: none of its 2 jobs fits into the memory that there is"
    )


def test_a_corrupt_adapter(tuned: Path, tmp_path: Path, capsys: Capture) -> None:
    run = RunDirectory.create(tmp_path / "run")
    for name, content in files_below(tuned / "run").items():
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_bytes(content)
    run.comparison_path.unlink()
    for weights in run.path.rglob("adapter_model.safetensors"):
        weights.write_bytes(b"damaged")
    told = mistake(capsys, "tune", tuned / "study.yaml", "--out", run.path, "--resume")
    assert told.startswith(str(run.path))
    assert "not a PEFT adapter, or damaged" in told


def test_a_run_is_resumed_with_its_own_study(tuned: Path, tmp_path: Path, capsys: Capture) -> None:
    before = files_below(tuned / "run")
    other = study_file(tmp_path, ("reports: 2", "reports: 1"))
    told = mistake(capsys, "tune", other, "--out", tuned / "run", "--resume")
    assert told.startswith(f"{tuned / 'run' / 'study.yaml'}: the run was begun with ")
    assert files_below(tuned / "run") == before


def test_what_is_right_prints_its_result_and_nothing_else(
    tuned: Path, tmp_path: Path, capsys: Capture
) -> None:
    run, again = tuned / "run", tmp_path / "again"
    answer = typed(capsys, "replay", run)
    assert (answer.status, answer.err) == (0, "")
    assert answer.out.endswith(": 9 entries, all decided the same\n")
    answer = typed(capsys, "simulate", run, "--out", again, "--json")
    assert answer.status == 0
    assert json.loads(answer.out) == json.loads((again / "metrics.json").read_text())
    answer = typed(capsys, "report", again)
    assert (answer.status, answer.out, answer.err) == (0, f"{again / 'report.html'}\n", "")
