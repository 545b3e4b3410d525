"""Runs of a GPU, kept as they were recorded: today's policies decide them as they were decided."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from alto_policy.decisions import ExitReason, Stop
from alto_policy.policies.alto import AltoSettings
from alto_policy.runlog import Entry, Header, RunLog
from alto_policy.types import JobId
from alto_runs.files.directory import RunDirectory, read_run_log, runs_below
from alto_runs.outcomes.history import follow
from alto_runs.outcomes.leaderboard import leaderboard_json, rank_jobs
from alto_runs.replaying import replay_run
from alto_runs.study import load_study
from alto_sim.simulate import play
from alto_sim.workloads.from_logs import recorded

ROOT = Path(__file__).parents[2] / "traces"
RUNS = [str(folder.relative_to(ROOT)) for folder in runs_below(ROOT)]
FULL_GRID, WITH_EXITS = "recorded/qasc-combined-fact-fifo", "recorded/qasc-combined-fact-alto"


def log_of(name: str) -> tuple[RunLog, Header]:
    log = read_run_log(RunDirectory.open(ROOT / name).log_path)
    assert log.header is not None
    assert log.torn is None
    return log, log.header


def stops(entries: Iterable[Entry]) -> dict[JobId, ExitReason]:
    return {
        decision.job: decision.reason
        for entry in entries
        for decision in entry.decisions
        if isinstance(decision, Stop)
    }


@pytest.mark.parametrize("name", RUNS)
def test_replays_byte_for_byte(name: str) -> None:
    num_entries, difference = replay_run(ROOT / name)
    assert difference is None
    assert num_entries == len(log_of(name)[0].entries) > 100


@pytest.mark.parametrize("name", RUNS)
def test_the_simulator_stops_the_same_jobs_for_the_same_reasons(name: str) -> None:
    log, header = log_of(name)
    simulated: list[Entry] = []
    play(recorded(log), header.policy, header.gpus, simulated.append)
    assert stops(simulated) == stops(log.entries)


@pytest.mark.parametrize("name", RUNS)
def test_the_files_beside_the_log_are_of_the_same_run(name: str) -> None:
    log, header = log_of(name)
    study = load_study(ROOT / name / "study.yaml")
    assert study.policy == header.policy
    told = json.loads((ROOT / name / "leaderboard.json").read_text())
    found = json.loads("".join(leaderboard_json(rank_jobs(follow(log)))))
    for ours, theirs in zip(found, told, strict=True):
        assert ours | {"adapter": None} == theirs | {"adapter": None}


def test_exits_cost_the_best_adapter_next_to_nothing() -> None:
    """In the run with exits, and in the simulator on the losses of the full grid."""
    full, header = log_of(FULL_GRID)
    losses = [one.best_val_loss for one in rank_jobs(follow(full)) if one.best_val_loss is not None]
    with_exits = follow(log_of(WITH_EXITS)[0])
    simulated: list[Entry] = []
    play(recorded(full), AltoSettings(), header.gpus, simulated.append)
    histories = (with_exits, follow(RunLog(header, tuple(simulated))))
    for history in histories:
        best = rank_jobs(history)[0].best_val_loss
        assert best is not None
        assert best <= 1.005 * min(losses)
        trained = sum(job.samples for job in history.jobs.values())
        total = sum(job.spec.samples(job.spec.steps) for job in history.jobs.values())
        assert trained <= 0.25 * total
