"""A cluster of several kinds of GPU, as its user describes it and reads of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from alto_policy.decisions import ExitReason, StartExecutor
from alto_policy.events import ExecutorUp, TaskArrived
from alto_policy.memory import MemoryModel
from alto_policy.runlog import dump_entry
from alto_policy.types import Task
from alto_runs.outcomes.history import Outcome
from alto_runs.profile import shipped_profile
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from tests.cli.typed import files_below, mistake, typed
from tests.runs.cases import entry, job, task

Capture = pytest.CaptureFixture[str]
Asked = list[str | Path]

MIXED = """\
nodes:
  - { count: 2, gpu: H100, gpus: 1 }
  - { gpu: A100-80GB, gpus: 2 }
  - { gpu: RTX-4090, gpus: 1 }
"""
TRACE = Path("traces/tiresias/60_job.csv.gz")


def cluster(folder: Path, text: str = MIXED) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(text)
    return path


def searches(folder: Path, *tasks: Task) -> Path:
    path = folder / "tasks.jsonl"
    lines = [dump_entry(entry(TaskArrived(0.0, each))) for each in tasks]
    path.write_text("\n".join([*lines, ""]))
    return path


def search(name: str, backbone: str = "Llama-3.1-8B", width: int = 1) -> Task:
    jobs = [replace(job(f"{name}{i}"), steps=60, reports=6) for i in range(4)]
    return replace(task(name, jobs), backbone=backbone, max_length=512, num_gpus=width)


def simulated(capsys: Capture, path: Path, out: Path, *options: str | Path) -> Result:
    assert typed(capsys, "simulate", path, *options, "--out", out).status == 0
    assert replay_run(out)[1] is None
    return Result(out)


def made_by(result: Result) -> dict[str, str]:
    assert result.log.header is not None
    return result.log.header.facts


def gangs(result: Result) -> dict[str, tuple[int, ...]]:
    decisions = [one for entry in result.log.entries for one in entry.decisions]
    return {one.task: one.gpus for one in decisions if isinstance(one, StartExecutor)}


def seconds(result: Result) -> dict[str, float]:
    return {name: each.gpu_seconds for name, each in result.metrics.tasks.items()}


def test_each_task_takes_the_time_of_its_kind(tmp_path: Path, capsys: Capture) -> None:
    """As long as alone on a cluster of that kind; a 32B backbone finds no room on 24 GB."""
    path = searches(tmp_path, *[search(name, "Qwen2.5-32B") for name in "abcde"])
    mixed = simulated(capsys, path, tmp_path / "mixed", "--cluster", cluster(tmp_path))
    assert mixed.log.header is not None
    kinds = ["H100", "H100", "A100-80GB", "A100-80GB", "RTX-4090"]
    assert [(gpu.kind, gpu.node) for gpu in mixed.log.header.gpus] == list(
        zip(kinds, ["node0", "node1", "node2", "node2", "node3"], strict=True)
    )
    assert gangs(mixed) == {"a": (0,), "b": (1,), "c": (2,), "d": (3,), "e": (0,)}
    for name, kind in (("a", "H100"), ("c", "A100")):
        options = ("--gpus", "5", "--gpu", kind)
        alone = simulated(capsys, path, tmp_path / kind, *options)
        assert seconds(mixed)[name] == seconds(alone)[name]
    assert seconds(mixed)["c"] > 1.2 * seconds(mixed)["a"]


def test_a_gang_that_must_be_of_several_kinds(tmp_path: Path, capsys: Capture) -> None:
    path = searches(tmp_path, search("wide", width=3), search("small", "Llama-3.2-1B", width=5))
    mixed = simulated(capsys, path, tmp_path / "mixed", "--cluster", cluster(tmp_path))
    assert gangs(mixed) == {"wide": (0, 1, 2), "small": (0, 1, 2, 3, 4)}
    ups: dict[str, MemoryModel] = {
        e.event.task: e.event.memory for e in mixed.log.entries if isinstance(e.event, ExecutorUp)
    }
    assert ups["small"].capacity == int(24e9 * 0.95)
    slow = simulated(capsys, path, tmp_path / "slow", "--gpus", "5", "--gpu", "A100")
    assert seconds(mixed)["wide"] == seconds(slow)["wide"]


def test_speeds_are_those_of_the_cluster(tmp_path: Path, capsys: Capture) -> None:
    """The run can be simulated again elsewhere; what is believed of another machine is told."""
    path = searches(tmp_path, search("a", "Qwen2.5-32B"))
    mixed = simulated(capsys, path, tmp_path / "mixed", "--cluster", cluster(tmp_path))
    (told,) = mixed.history.tasks
    assert told.kinds == ("H100", "A100-80GB")
    assert told.speeds[0] == 1.0
    assert 0.3 < told.speeds[1] < 0.6
    again = simulated(capsys, tmp_path / "mixed", tmp_path / "again", "--gpus", "2")
    assert (again.history.tasks[0].kinds, again.history.tasks[0].speeds) == (None, ())
    rows = [json.loads(line) for line in shipped_profile().read_text().splitlines()]
    rows = [row | {"gpu": "NVIDIA A100-SXM4-80GB"} if "gpu" in row else row for row in rows]
    (tmp_path / "believed.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "conditions.yaml").write_text("belief: { profile: believed.jsonl }\n")
    options: Asked = ["--cluster", cluster(tmp_path), "--conditions", tmp_path / "conditions.yaml"]
    assert typed(capsys, "simulate", path, *options, "--out", tmp_path / "believed").status == 0
    (believed,) = Result(tmp_path / "believed").history.tasks
    assert believed.speeds != told.speeds


def test_what_fits_nowhere_is_rejected_in_one_line(
    tmp_path: Path, capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"t{i}" for i in range(7)]
    path = searches(tmp_path, *[search(name, "Llama-3.1-70B") for name in names], search("ok"))
    asked: Asked = ["--cluster", cluster(tmp_path), "--policy", "fifo", "--out", tmp_path / "run"]
    answer = typed(capsys, "simulate", path, *asked)
    assert (answer.status, answer.err) == (0, "")
    assert caplog.messages == [
        "no kind of GPU holds a job of t0, t1, t2, t3, t4 and 2 more, or there are too few for its "
        "width: rejected"
    ]
    result = Result(tmp_path / "run")
    assert {job.outcome for job in result.history.of_task(result.history.tasks[-1])} == {
        Outcome.FINISHED
    }
    rejected = [job for each in result.history.tasks[:-1] for job in result.history.of_task(each)]
    assert {job.reason for job in rejected} == {ExitReason.TOO_LARGE}


def test_one_kind_is_as_it_is_without_a_file(tmp_path: Path, capsys: Capture) -> None:
    path = searches(tmp_path, *map(search, "ab"), search("wide", width=4))
    file = cluster(tmp_path, "nodes: [{ count: 2, gpu: A100, gpus: 3 }]")
    conditions = tmp_path / "conditions.yaml"
    conditions.write_text("gpus_per_node: 3\n")
    one = simulated(capsys, path, tmp_path / "one", "--cluster", file)
    options = ("--gpus", "6", "--gpu", "A100", "--conditions", conditions)
    other = simulated(capsys, path, tmp_path / "other", *options)
    assert one.log.entries == other.log.entries
    assert one.log.header is not None
    assert other.log.header is not None
    assert one.log.header.gpus == other.log.header.gpus
    assert made_by(one)["cluster"] == "2 x 3 A100"


@pytest.mark.parametrize(
    ("nodes", "basis"),
    [
        ("{ gpu: H100, gpus: 2 }", "modelled"),
        ("{ gpu: H100, gpus: 2 }, { gpu: A100, gpus: 2 }", "estimated"),
        ("{ gpu: H100, gpus: 2 }, { gpu: L4, gpus: 2 }", "modelled"),  # too small for any task
        ("{ gpu: A100, gpus: 2 }", "estimated"),
    ],
)
def test_the_weakest_basis_of_the_kinds_shows_wherever_times_do(
    nodes: str, basis: str, tmp_path: Path, capsys: Capture
) -> None:
    path = searches(tmp_path, search("a", "Qwen2.5-32B"))
    file = cluster(tmp_path, f"nodes: [{nodes}]")
    answer = typed(capsys, "simulate", path, "--cluster", file, "--out", tmp_path / "run")
    is_estimated = basis == "estimated"
    assert ("times are estimated" in answer.out) is is_estimated
    run = Result(tmp_path / "run")
    assert made_by(run)["step_times"] == basis
    assert json.loads(run.directory.metrics_path.read_text())["step_times"] == basis
    assert typed(capsys, "report", tmp_path / "run").status == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"step_times {basis}" in page
    assert ("times are estimated" in page) is is_estimated


@pytest.mark.parametrize("gpu", ["H100", "A100"])
def test_a_load_by_estimated_times_says_so(gpu: str, tmp_path: Path, capsys: Capture) -> None:
    mix = tmp_path / "mix.yaml"
    mix.write_text(
        "models:\n  - { backbone: Llama-3.1-8B, num_gpus: 1, search: { learning_rates: [1.0e-4], "
        "ranks: [16], batch_sizes: [1] } }\n"
    )
    asked: Asked = ["--load", "0.5", "--gpus", "4", "--gpu", gpu, "--mix", mix, "--tasks", "2"]
    answer = typed(capsys, "workload", *asked, "--out", tmp_path / "out.jsonl")
    assert answer.status == 0
    assert ("times are estimated" in answer.out) is (gpu == "A100")


def test_jobs_of_a_trace_have_a_speed_on_each_kind(tmp_path: Path, capsys: Capture) -> None:
    rows = tmp_path / "rows.csv"
    columns = "job_id,submit_s,duration_s,num_gpus,tenant,model,batch_size,iterations"
    rows.write_text("\n".join([columns, "a,0,100,2,,,,", "b,0,100,2,,,,", "c,0,100,3,,,,", ""]))
    nodes = "{ gpu: ours, gpus: 2, speed: 1 }, { gpu: theirs, gpus: 2, speed: 0.5 }"
    file = cluster(tmp_path, f"nodes: [{nodes}]")
    result = simulated(capsys, rows, tmp_path / "run", "--cluster", file)
    assert seconds(result) == {"a": 200.0, "b": 400.0, "c": 600.0}
    assert gangs(result) == {"a": (0, 1), "b": (2, 3), "c": (0, 1, 2)}
    assert made_by(result)["speeds"] == "ours 1, theirs 0.5"
    assert {(task.kinds, task.speeds) for task in result.history.tasks} == {
        (("ours", "theirs"), (1.0, 0.5))
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("nodes: []", "nodes: value []: expected at least one, such as { gpu: H100, gpus: 8 }"),
        ("node: []", "node: value []: unknown key, did you mean 'nodes'?"),
        ("nodes: [{ gpu: H100 }]", "nodes[0]: value {'gpu': 'H100'}: needs the field 'gpus'"),
        (
            "nodes: [{ gpu: H100, gpus: 8, kind: x }]",
            "nodes[0]: value {'gpu': 'H100', 'gpus': 8, 'kind': 'x'}: has no field 'kind'",
        ),
        (
            "nodes: [{ gpu: H100, gpus: 8 }, { gpu: H100, gpus: 0 }]",
            "nodes[1].gpus: value 0: gpus must be at least 1",
        ),
        ("nodes: [{ gpu: '', gpus: 8 }]", "nodes[0].gpu: value '': gpu must be the name of a kind"),
        (
            "nodes: [{ gpu: H100, gpus: 1.5 }]",
            "nodes[0].gpus: value 1.5: expected a whole number",
        ),
        (
            "nodes: [{ gpu: H100, gpus: 8, speed: .inf }]",
            "nodes[0].speed: value inf: speed must be above 0",
        ),
        ("nodes: &a [{ gpu: H100, gpus: 8 }]", "line 1: anchors (&) and aliases (*) are not"),
        ("nodes: !!python/name:os.system ''", "line 1: tags (!) are not allowed here"),
        (
            "nodes: [{ gpu: H100, gpus: 1000, count: 1001 }]",
            "nodes: value [{'gpu': 'H100', 'gpus': 1000, 'count': 1001}]: expected 1,000,000 GPUs",
        ),
        (
            "nodes: [{ gpu: H100, gpus: 8 }, { gpu: T5, gpus: 8 }]",
            "nodes[1].gpu: value 'T5': no data sheet of it, expected one of H100, ",
        ),
        (
            "nodes: [{ gpu: H100, gpus: 8, speed: 2 }]",
            "nodes[0].speed: expected none, searches have step times",
        ),
    ],
)
def test_a_mistake_is_one_line(text: str, line: str, tmp_path: Path, capsys: Capture) -> None:
    path, file = searches(tmp_path, search("a")), cluster(tmp_path, text)
    told = mistake(capsys, "simulate", path, "--cluster", file, "--out", tmp_path / "run")
    assert told.startswith(f"{file}: {line}")
    assert files_below(tmp_path / "run") == {}


@pytest.mark.parametrize(
    ("nodes", "what"),
    [
        (
            "{ gpu: a, gpus: 8, speed: 1 }, { gpu: b, gpus: 8 }",
            "nodes[1].speed: jobs of a trace lasted as long on one kind, expected how fast this",
        ),
        (
            "{ gpu: a, gpus: 8, speed: 1 }, { gpu: a, gpus: 4, speed: 2 }",
            "nodes[1].speed: expected 1.0, as before",
        ),
    ],
)
def test_speeds_that_are_not_known(nodes: str, what: str, tmp_path: Path, capsys: Capture) -> None:
    file = cluster(tmp_path, f"nodes: [{nodes}]")
    told = mistake(capsys, "simulate", TRACE, "--cluster", file, "--out", tmp_path / "run")
    assert told.startswith(f"{file}: {what}")


def test_a_cluster_is_said_once(tmp_path: Path, capsys: Capture) -> None:
    file, out = cluster(tmp_path), tmp_path / "run"
    for option in (("--gpus", "3"), ("--gpu", "A100")):
        told = mistake(capsys, "simulate", TRACE, "--cluster", file, *option, "--out", out)
        assert told == "--gpus and --gpu go without --cluster: its file says them"
    conditions = tmp_path / "conditions.yaml"
    conditions.write_text("gpus_per_node: 2")
    options: Asked = ["--cluster", file, "--conditions", conditions, "--out", out]
    told = mistake(capsys, "simulate", searches(tmp_path, search("a")), *options)
    assert told == f"{conditions}: gpus_per_node: expected none, the cluster's file says it"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        pytest.param("", {"wide": (0, 1), "a": (0,), "b": (1,)}, id="as planned"),
        pytest.param("reserve: true", {"wide": (0, 1), "a": (0,), "b": (1,)}, id="reserve"),
        pytest.param("exact: 1", {"wide": (0, 1), "a": (0,), "b": (1,)}, id="exact"),
        pytest.param("widths: [1]", {"wide": (0,), "a": (1,), "b": (0,)}, id="narrow"),
    ],
)
def test_a_placement_on_several_kinds(
    rule: str, expected: dict[str, tuple[int, ...]], tmp_path: Path, capsys: Capture
) -> None:
    tasks = [search("wide", width=2), search("a"), search("b")]
    conditions = tmp_path / "conditions.yaml"
    conditions.write_text(f"placement: {{ {rule} }}\n")
    asked: Asked = [searches(tmp_path, *tasks), "--cluster", cluster(tmp_path)]
    out = tmp_path / "run"
    assert typed(capsys, "simulate", *asked, "--conditions", conditions, "--out", out).status == 0
    assert gangs(Result(out)) == expected
