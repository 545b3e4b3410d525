"""Workloads that a user has generated, and losses that another trainer has written."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from alto_policy.events import TaskArrived
from alto_runs.files.directory import read_run_log
from alto_runs.result import Result
from tests.cli.typed import mistake, typed

Capture = pytest.CaptureFixture[str]
Asked = list[str | Path]

MIX = """\
models:
  - backbone: Llama-3.2-1B
    num_gpus: 2
    search: { learning_rates: [1.0e-4, 1.0e-3], ranks: [16], batch_sizes: [1, 4] }
lengths: { 256: 1 }
tenants: { research: 2, interns: 1 }
data: { median: 300, spread: 0.1 }
epochs: 1
reports: 4
"""
ROWS = "job_id,submit_s,duration_s,num_gpus,tenant,model,batch_size,iterations\n"


def arrivals(path: Path) -> list[TaskArrived]:
    events = [entry.event for entry in read_run_log(path).entries]
    return [event for event in events if isinstance(event, TaskArrived)]


def mix(folder: Path, text: str = MIX) -> Path:
    path = folder / "mix.yaml"
    path.write_text(text)
    return path


def test_a_mix_becomes_a_trace_that_is_simulated(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "tasks.jsonl"
    asked: Asked = ["--tasks", "6", "--mix", mix(tmp_path), "--gap", "60", "--seed", "3"]
    answer = typed(capsys, "workload", *asked, "--out", out)
    found = arrivals(out)
    assert (answer.status, answer.err) == (0, "")
    assert answer.out == f"{out}: 6 tasks, 24 jobs, the last after {found[-1].t:,.0f} s\n"
    assert [each.t for each in found] == sorted(each.t for each in found)
    assert {each.task.backbone for each in found} == {"Llama-3.2-1B"}
    assert {(each.task.num_gpus, each.task.max_length) for each in found} == {(2, 256)}
    assert {each.task.tenant for each in found} == {"research", "interns"}
    run = tmp_path / "run"
    assert typed(capsys, "simulate", out, "--gpus", "4", "--out", run).status == 0
    assert len(Result(run).leaderboard) == 24
    again = tmp_path / "again.jsonl"
    typed(capsys, "workload", *asked, "--out", again)
    assert again.read_bytes() == out.read_bytes()


def test_the_gap_follows_from_the_load(tmp_path: Path, capsys: Capture) -> None:
    ends = []
    for load, gpus in ((0.5, 8), (1.0, 8), (1.0, 16)):
        out = tmp_path / f"{load}-{gpus}.jsonl"
        asked: Asked = [
            "--tasks",
            "5",
            "--mix",
            mix(tmp_path),
            "--load",
            str(load),
            "--gpus",
            str(gpus),
        ]
        assert typed(capsys, "workload", *asked, "--out", out).status == 0
        ends.append(arrivals(out)[-1].t)
    assert ends[0] == pytest.approx(2 * ends[1])
    assert ends[2] == pytest.approx(ends[1] / 2)


def test_the_load_of_a_cluster_of_several_kinds(tmp_path: Path, capsys: Capture) -> None:
    """One kind by two names is one kind; slower GPUs beside it let tasks come sooner."""

    def last(name: str, nodes: str) -> tuple[float, str]:
        file, out = tmp_path / f"{name}.yaml", tmp_path / f"{name}.jsonl"
        file.write_text(f"nodes: [{nodes}]")
        asked: Asked = ["--tasks", "5", "--mix", mix(tmp_path), "--load", "0.8", "--cluster", file]
        answer = typed(capsys, "workload", *asked, "--out", out)
        assert answer.status == 0
        return arrivals(out)[-1].t, answer.out

    one, told = last("one", "{ gpu: H100, gpus: 8 }")
    assert "estimated" not in told
    same, _ = last("same", "{ gpu: H100, gpus: 4 }, { gpu: NVIDIA H100 80GB HBM3, gpus: 4 }")
    assert same == pytest.approx(one)
    more, told = last("more", "{ gpu: H100, gpus: 8 }, { gpu: A100, gpus: 8 }")
    assert one / 2 < more < one / 1.2
    assert "estimated" in told


def test_no_kind_holds_a_task_of_the_mix(tmp_path: Path, capsys: Capture) -> None:
    file, large = tmp_path / "small.yaml", MIX.replace("Llama-3.2-1B", "Llama-3.1-70B")
    file.write_text("nodes: [{ gpu: L4, gpus: 1 }, { gpu: L40S, gpus: 1 }]")
    asked: Asked = ["--tasks", "5", "--mix", mix(tmp_path, large), "--load", "0.8"]
    line = mistake(capsys, "workload", *asked, "--cluster", file, "--out", tmp_path / "tasks.jsonl")
    assert line == f"{file}: no kind of its GPUs holds a task of the mix"


def test_the_rhythm_of_a_trace(tmp_path: Path, capsys: Capture) -> None:
    rows = tmp_path / "trace.csv"
    rows.write_text(ROWS + "".join(f"j{i},{10**i},9,1,,,,\n" for i in range(4)))
    out = tmp_path / "tasks.jsonl"
    asked: Asked = ["--tasks", "4", "--mix", mix(tmp_path), "--gap", "30", "--arrivals", rows]
    assert typed(capsys, "workload", *asked, "--out", out).status == 0
    times = [each.t for each in arrivals(out)]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert sum(gaps) == pytest.approx(90)
    assert sorted(gap / min(gaps) for gap in gaps) == pytest.approx([1, 10, 100])


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["--gap", "-1"], "alto workload: argument --gap: value '-1': expected a number, at least"),
        (["--load", "nan"], "alto workload: argument --load: value 'nan': expected a number above"),
        (["--load", "0.5"], "--gpus: missing, expected the number of GPUs of the --load"),
        ([], "alto workload: one of the arguments --gap --load is required; "),
        (["--gap", "1", "--gpus", "2"], "--gpus, --cluster, --profile and --gpu go with"),
        (["--gap", "1", "--cluster", "x"], "--gpus, --cluster, --profile and --gpu go with"),
        (["--load", "1", "--gpus", "2", "--cluster", "x"], "--gpus and --gpu go without --clus"),
        (["--load", "1", "--gpu", "A100", "--cluster", "x"], "--gpus and --gpu go without --cl"),
        (
            ["--gap", "1", "--arrivals", "posson"],
            "--arrivals: value 'posson': expected poisson, bursty or the path of a workload whose ",
        ),
    ],
)
def test_what_cannot_be_generated(
    given: list[str], line: str, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "tasks.jsonl"
    told = mistake(capsys, "workload", "--tasks", "4", *given, "--out", out)
    assert told.startswith(line)
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("modles: []", "modles: value []: unknown key, did you mean 'models'?"),
        ("data: { median: 0 }", "data.median: value 0: median must be at least 1"),
        ("lengths: 3", "lengths: value 3: expected values with their weights, such as { 512: 1 }"),
        ("lengths: { 9: 0 }", "lengths: value {9: 0}: lengths must have weights above 0"),
        ("epochs: 2.5", "epochs: value 2.5: expected a whole number"),
        (
            "models: [{ backbone: x }]",
            "models[0]: value {'backbone': 'x'}: needs the field 'num_gpus'",
        ),
        (
            MIX.replace("ranks: [16]", "ranks: [0]"),
            "models[0].search: value {'learning_rates': [0.0001, 0.001], 'ranks': [0], 'batch_...: "
            "rank must be from 1 to 256",
        ),
        (
            MIX.replace("[1, 4]", "[4, 4]"),
            "models[0].search.batch_sizes: value [4, 4]: batch_sizes must be one value or more, "
            "none twice",
        ),
    ],
)
def test_mistakes_in_a_mix(text: str, line: str, tmp_path: Path, capsys: Capture) -> None:
    out, path = tmp_path / "tasks.jsonl", mix(tmp_path, text)
    told = mistake(capsys, "workload", "--tasks", "4", "--gap", "1", "--mix", path, "--out", out)
    assert told == f"{path}: {line}"
    assert not out.exists()


def test_a_model_of_unknown_shape_has_no_load(tmp_path: Path, capsys: Capture) -> None:
    path, out = mix(tmp_path, MIX.replace("Llama-3.2-1B", "mine")), tmp_path / "tasks.jsonl"
    asked: Asked = ["--tasks", "4", "--mix", path, "--load", "0.5", "--gpus", "2"]
    told = mistake(capsys, "workload", *asked, "--out", out)
    assert told.startswith("model: value 'mine': its shape is not known, expected ")
    assert typed(capsys, "workload", *asked[:4], "--gap", "9", "--out", out).status == 0


def test_nothing_is_overwritten(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "tasks.jsonl"
    out.write_text("mine")
    told = mistake(capsys, "workload", "--tasks", "4", "--gap", "1", "--out", out)
    assert told == f"--out: {out} is there already, expected a new file"
    assert out.read_text() == "mine"


def state(path: Path, *evaluations: tuple[int, float]) -> None:
    """As Hugging Face's Trainer writes it: a training loss before each evaluation."""
    history = [
        entry
        for step, loss in evaluations
        for entry in ({"loss": loss + 1, "step": step}, {"eval_loss": loss, "step": step})
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"global_step": evaluations[-1][0], "log_history": history}))


@pytest.fixture
def tasks(tmp_path: Path, capsys: Capture) -> Path:
    """A trace of one task of two jobs."""
    path, text = tmp_path / "tasks.jsonl", MIX.replace("[1, 4]", "[4]")
    asked: Asked = ["--tasks", "1", "--gap", "0", "--mix", mix(tmp_path, text)]
    assert typed(capsys, "workload", *asked, "--out", path).status == 0
    return path


def test_losses_of_another_trainer(
    tasks: Path, tmp_path: Path, capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    losses, run = tmp_path / "losses", tmp_path / "run"
    jobs = arrivals(tasks)[0].task.jobs
    for number, job in enumerate(jobs):
        steps = [job.steps * part // 4 for part in range(1, 5)]
        folder = losses / job.id / ("checkpoint-900" if number else "")
        state(folder / "trainer_state.json", *((step, 2.0 + number) for step in steps))
    state(losses / jobs[1].id / "checkpoint-80" / "trainer_state.json", (1, 9.0))
    asked: Asked = ["simulate", tasks, "--gpus", "2", "--policy", "fifo", "--losses", losses]
    assert typed(capsys, *asked, "--out", run).status == 0
    assert caplog.messages == [
        f"{losses}: 4 of 8 reports are at steps without an evaluation, and take the one before"
    ]
    found = {standing.job: standing.best_val_loss for standing in Result(run).leaderboard}
    assert found == {jobs[0].id: 2.0, jobs[1].id: 3.0}
    told = mistake(capsys, *asked, "--seeds", "2", "--out", tmp_path / "runs")
    assert told == "--seeds: nothing is drawn in this workload, every seed gives the same"


def test_losses_that_are_not_there(tasks: Path, tmp_path: Path, capsys: Capture) -> None:
    losses, run = tmp_path / "losses", tmp_path / "run"
    asked: Asked = ["simulate", tasks, "--losses", losses, "--out", run]
    told = mistake(capsys, *asked)
    assert (
        told == f"{losses}: no such folder, expected one with a folder for each job, or a .csv file"
    )
    losses.mkdir()
    told = mistake(capsys, *asked)
    assert told == (
        f"{losses}/task-0-000/trainer_state.json: no such file, expected the curve of job "
        "'task-0-000'"
    )
    rows = tmp_path / "trace.csv"
    rows.write_text(ROWS + "a,0,9,1,,,,\n")
    told = mistake(capsys, "simulate", rows, "--losses", losses, "--out", run)
    assert told == (
        f"--losses: {rows} has losses of its own, or none; expected a study or generated tasks"
    )
    assert not run.exists()
