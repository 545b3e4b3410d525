"""Conditions of a simulated cluster from a file: what goes wrong, and what the policy believes."""

from dataclasses import replace
from pathlib import Path

import pytest

from alto_policy.decisions import StartExecutor
from alto_policy.events import ExecutorUp, NodeDown, NodeUp, TaskArrived
from alto_policy.policies.sjf import SjfSettings
from alto_policy.runlog import Entry, dump_entry
from alto_runs.errors import UserError
from alto_runs.outcomes.history import Outcome
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from alto_sim.conditions.belief import BelievedCosts
from alto_sim.conditions.file import read_conditions
from alto_sim.seeds import Simulation
from alto_sim.workloads.loading import load_workload
from tests.sim.cases import job, task

ROWS = [(f"j{i}", 0, 100 + 10 * i, 2) for i in range(8)]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Eight jobs of two GPUs and 100 to 170 seconds, all of them there at once."""
    columns = "job_id,submit_s,duration_s,num_gpus,tenant,model,batch_size,iterations"
    lines = [f"{name},{at},{seconds},{width},,,," for name, at, seconds, width in ROWS]
    path = tmp_path / "trace.csv"
    path.write_text("\n".join([columns, *lines, ""]))
    return path


def simulated(trace: Path, conditions: str, name: str = "run") -> Result:
    path = trace.with_name(f"{name}.yaml")
    path.write_text(conditions)
    simulation = Simulation(path=trace, num_gpus=4, policy=SjfSettings(), conditions=path)
    return simulation.run(trace.with_name(name))


def started(result: Result) -> list[str]:
    return [
        decision.task
        for entry in result.log.entries
        for decision in entry.decisions
        if isinstance(decision, StartExecutor)
    ]


def test_nodes_fail_and_are_repaired(trace: Path) -> None:
    result = simulated(
        trace, "gpus_per_node: 2\nfaults: { node_mtbf: 150, node_repair: 30, seed: 1 }\n"
    )
    assert result.log.header is not None
    assert [gpu.node for gpu in result.log.header.gpus] == ["node0"] * 2 + ["node1"] * 2
    events = [entry.event for entry in result.log.entries]
    assert any(isinstance(event, NodeDown) for event in events)
    assert any(isinstance(event, NodeUp) for event in events)
    assert replay_run(result.directory.path)[1] is None


def test_latencies_take_the_place_of_the_workloads_own(trace: Path) -> None:
    result = simulated(trace, "latencies: { load: 7.5, start: 1 }\n")
    ups = [e.event.t for e in result.log.entries if isinstance(e.event, ExecutorUp)]
    assert ups[:2] == [8.5, 8.5]


def test_a_wrong_belief_changes_the_order_and_not_the_durations(trace: Path) -> None:
    right = simulated(trace, "belief: { error: 0.0 }\n", "right")
    wrong = simulated(trace, "belief: { error: 0.5, seed: 3 }\n", "wrong")
    assert started(right) == [name for name, *_ in ROWS]
    assert sorted(started(wrong)) == started(right) != started(wrong)
    served = [sum(s.end - s.start for s in j.residencies) for j in wrong.history.jobs.values()]
    assert served == pytest.approx([seconds for _, _, seconds, _ in ROWS])


def test_a_run_that_is_decided_by_a_belief_is_not_replayed_without_it(trace: Path) -> None:
    result = simulated(trace, "placement: { objective: mean-completion }\n")
    with pytest.raises(UserError, match=r"decided by the conditions of .*run.yaml, which the log"):
        replay_run(result.directory.path)


def test_placement_orders_by_its_objective(trace: Path) -> None:
    longest = simulated(trace, "placement: { objective: makespan }\n", "makespan")
    shortest = simulated(trace, "placement: { objective: mean-completion }\n", "mean")
    assert started(longest)[:2] == ["j7", "j6"]  # all of them have arrived
    assert started(shortest)[:2] == ["j0", "j1"]


def test_rows_of_a_trace_as_tuning_tasks(trace: Path) -> None:
    lines = trace.read_text().splitlines()
    trace.write_text("\n".join([*lines[:3], ""]))
    rigid, tuning = simulated(trace, "rows: rigid\n", "rigid"), simulated(trace, "rows: tuning\n")
    assert [len(task.jobs) for task in rigid.history.tasks] == [1, 1]
    assert all(len(task.jobs) > 50 for task in tuning.history.tasks)
    assert [task.num_gpus for task in tuning.history.tasks] == [2, 2]
    assert any(job.reports for job in tuning.history.jobs.values())


def test_many_searches_are_warned_of(
    trace: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each job of a trace becomes sixty: Philly's would fill 20 GB."""
    simulated(trace, "rows: tuning\n", "few")
    assert caplog.messages == []
    monkeypatch.setattr("alto_sim.workloads.loading._MANY_SEARCHES", 7)
    monkeypatch.setattr("alto_sim.workloads.loading._SEARCH_GB", 0.5)
    simulated(trace, "rows: rigid\n", "rigid")
    assert caplog.messages == []
    simulated(trace, "rows: tuning\n", "many")
    assert caplog.messages[0].startswith(f"{trace}: 8 searches take about 4.0 GB of memory; ")


def test_generated_losses_have_the_shape_that_is_asked_for(trace: Path, tmp_path: Path) -> None:
    """Where they are generated, and nobody else's are given."""
    text = "rows: tuning\nlosses: { noise: 0.2 }\n"
    calm, noisy = (simulated(trace, each, f"run-{i}") for i, each in enumerate((text[:13], text)))
    assert noisy.log.header is not None
    assert "noise 0.2" in noisy.log.header.facts["courses"]
    ends = [[each.best_val_loss for each in run.leaderboard] for run in (calm, noisy)]
    assert ends[0] != ends[1]
    with pytest.raises(UserError, match=r"losses: .*trace.csv has losses of its own, or none"):
        simulated(trace, "losses: { noise: 0.2 }\n", "rigid")
    path = tmp_path / "run-1.yaml"
    with pytest.raises(UserError, match=r"run-1.yaml: losses: expected none beside --losses"):
        Simulation(path=trace, conditions=path, curves=tmp_path).run(tmp_path / "both")


@pytest.mark.parametrize("seed", [0, 1])
def test_seeds_move_every_cause(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("faults: { node_mtbf: 9, seed: 4 }\nbelief: { error: 0.1, seed: 5 }\n")
    found = read_conditions(path)
    assert found.is_drawn
    seeded = found.seeded(seed)
    assert seeded.belief is not None
    assert (seeded.faults.seed, seeded.belief.seed) == (4 + seed, 5 + seed)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("fautls: {}", "fautls: value {}: unknown key, did you mean 'faults'?"),
        ("faults: 3", "faults: value 3: expected a mapping, { field: value }"),
        (
            "faults: { node_mtbf: -3 }",
            "faults.node_mtbf: value -3: node_mtbf must be above 0 seconds",
        ),
        ("latencies: { strat: 1 }", "latencies.strat: value 1: unknown key, did you mean 'start'?"),
        ("latencies: { start: -1 }", "latencies.start: value -1: expected seconds, at least 0"),
        ("gpus_per_node: 0", "gpus_per_node: value 0: expected a whole number, at least 1"),
        ("rows: wide", "rows: value 'wide': expected one of rigid, tuning"),
        ("belief: { error: -1 }", "belief.error: value -1: error must be at least 0"),
        ("losses: { overfit: 2 }", "losses.overfit: value 2: overfit must be in (0, 0.6]"),
        (
            "belief: { exits: { warmup: 0.1, keep: 2 } }",
            "belief.exits.keep: value 2: keep must be in (0, 1]",
        ),
        (
            "belief: { exits: { kept: 1 } }",
            "belief.exits.kept: value 1: unknown key, did you mean 'keep'?",
        ),
        (
            "placement: { objective: speed }",
            "placement.objective: value 'speed': expected one of makespan, mean-completion",
        ),
        (
            "placement: { widths: [2, 2] }",
            "placement.widths: value [2, 2]: widths must be at least 1, none twice",
        ),
        (
            "placement: { exact: 1, objective: mean-completion }",
            "placement.exact: value 1: exact must be left out for mean-completion",
        ),
    ],
)
def test_a_mistake_is_one_line(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_conditions(path)
    assert str(caught.value) == f"{path}: {what}"


def test_jobs_of_a_trace_have_no_profile(trace: Path) -> None:
    with pytest.raises(UserError, match="profile: jobs of this trace have durations of their own"):
        simulated(trace, "belief: { profile: some.jsonl }\n")
    with pytest.raises(UserError, match="exits: jobs of this trace are trained to their ends"):
        simulated(trace, "belief: { exits: { keep: 0.5 } }\n")


def tuning_tasks(folder: Path, arrivals: tuple[float, ...], backbone: str) -> Path:
    """A trace of searches of eight jobs, each of which asks for one GPU."""
    path = folder / "tasks.jsonl"
    lines = []
    for number, t in enumerate(arrivals):
        jobs = [job(f"t{number}-{i}", 400, 4) for i in range(8)]
        made = replace(task(f"t{number}", jobs), backbone=backbone, max_length=512)
        lines.append(dump_entry(Entry(TaskArrived(t, made), ())))
    path.write_text("\n".join([*lines, ""]))
    return path


def test_a_belief_may_reckon_with_exits(tmp_path: Path) -> None:
    workload = load_workload(tuning_tasks(tmp_path, (0.0,), "Llama-3.1-8B")).workload
    path = tmp_path / "c.yaml"

    def seconds(conditions: str) -> float:
        path.write_text(conditions)
        belief = read_conditions(path).belief
        assert belief is not None
        durations = BelievedCosts(belief, workload, tmp_path).durations()
        return durations.seconds(workload.arrivals[0].task)

    assert seconds("belief: { exits: { keep: 0.25 } }\n") < 0.6 * seconds("belief: { error: 0 }\n")
    everything = seconds("belief: { exits: { warmup: 0, keep: 1 } }\n")
    assert everything == seconds("belief: { error: 0 }\n")


@pytest.mark.parametrize(
    ("arrivals", "backbone", "widths", "chosen"),
    [
        pytest.param((0.0,), "Llama-3.1-8B", "1, 2, 4", [4], id="alone: as wide as it gains"),
        pytest.param((0.0,) * 4, "Llama-3.1-8B", "1, 2, 4", [1] * 4, id="together: side by side"),
        pytest.param((0.0, 9.0), "Llama-3.1-8B", "1, 2, 4", [4, 4], id="unaware of one another"),
        pytest.param((0.0,) * 4, "Llama-3.1-70B", "1, 2, 4", [4] * 4, id="as wide as it must be"),
        pytest.param((0.0,), "Llama-3.1-8B", "2, 8", [2], id="no wider than the cluster"),
    ],
)
def test_widths_are_chosen(
    arrivals: tuple[float, ...], backbone: str, widths: str, chosen: list[int], tmp_path: Path
) -> None:
    path = tuning_tasks(tmp_path, arrivals, backbone)
    result = simulated(path, f"placement: {{ widths: [{widths}] }}\n")
    assert [each.num_gpus for each in result.history.tasks] == chosen
    assert all(job.outcome is Outcome.FINISHED for job in result.history.jobs.values())


def test_widths_that_cannot_be_chosen(trace: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"placement\.widths: the jobs of this workload keep their"):
        simulated(trace, "placement: { widths: [1, 2] }\n")
    path = tuning_tasks(tmp_path, (0.0,), "Llama-3.1-8B")
    with pytest.raises(UserError, match=r"widths: value \[8\]: expected one up to"):
        simulated(path, "placement: { widths: [8] }\n")


def test_a_header_tells_what_was_simulated(trace: Path) -> None:
    """But for the dice: seeds of the same conditions stand beside each other."""
    rough = "faults: { node_mtbf: 900, seed: 4 }\nbelief: { error: 0.5, seed: 2 }\n"
    header = simulated(trace, f"{rough}placement: {{ nodes: 50 }}\n").log.header
    assert header is not None
    assert header.facts["faults"].startswith("node_mtbf 900, node_repair 3600, job_mtbf inf, ")
    assert header.facts["believed"] == "profile none, error 0.5, exits none"
    assert header.facts["placement"] == (
        "objective makespan, nodes 50, reserve False, exact none, widths as asked for"
    )
    plain = simulated(trace, "faults: { seed: 4 }\n", "plain").log.header
    assert plain is not None
    assert not {"faults", "believed", "placement"} & plain.facts.keys()
