import errno
from collections.abc import Iterable
from pathlib import Path

import pytest

from alto_policy.controller import Controller, replay
from alto_policy.decisions import Decision
from alto_policy.events import Event, TaskArrived
from alto_policy.ledger.cluster import Cluster
from alto_policy.policies import SETTINGS, build
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.fifo import FifoSettings
from alto_policy.runlog import Entry
from alto_policy.view import ClusterView, Policy
from alto_runs.errors import UserError
from alto_runs.files.directory import LogWriter, read_run_log
from alto_runs.summary import print_summary, stdout_console
from alto_sim.curves.generated import GeneratedCurves
from alto_sim.importers import Trace, TraceJob
from alto_sim.simulate import simulate
from alto_sim.times.step_time import StepTime
from alto_sim.workloads.from_logs import recorded
from alto_sim.workloads.rigid import AT_ONCE, rigid
from alto_sim.workloads.workload import Workload
from tests.sim.cases import MEMORY, NOW, gpus, job, task

TASK = task("t", [job(f"t{i}", 40, 20, batch_size=1 + i % 4) for i in range(16)])
WORKLOAD = Workload(
    arrivals=(TaskArrived(0.0, TASK),),
    curves=GeneratedCurves([TASK]),
    step_time=StepTime(per_pass=1.0, per_token=0.25, per_evaluation=2.0),
    latencies=NOW,
    memory=MEMORY,
)
ALTO = AltoSettings(warmup=0.1)


def test_a_simulated_run_is_a_run_directory(tmp_path: Path) -> None:
    result = simulate(WORKLOAD, ALTO, gpus(), tmp_path / "run", made_by=(("commit", "abc"),))
    assert result.log.header is not None
    assert result.log.header.made_by == (("clock", "simulated"), ("commit", "abc"))
    found = replay(result.log.entries, Controller(build(ALTO), Cluster(gpus())))
    assert found is None
    assert result.metrics.overall.samples_saved > 0
    best = result.best("t")
    assert best is not None
    assert best.adapter is None
    assert (tmp_path / "run" / "leaderboard.json").exists()


def test_the_summary_of_a_run_that_was_just_simulated_reads_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = simulate(WORKLOAD, ALTO, gpus(), tmp_path / "run")
    monkeypatch.delattr("alto_runs.result.read_run_log")
    print_summary(result, stdout_console())
    assert "run directory" in capsys.readouterr().out


def test_a_finished_run_is_a_workload(tmp_path: Path) -> None:
    first = simulate(WORKLOAD, FifoSettings(), gpus(), tmp_path / "fifo")
    again = simulate(recorded(first.log), FifoSettings(), gpus(), tmp_path / "again")
    assert [each.job for each in again.leaderboard] == [each.job for each in first.leaderboard]
    makespans = [result.metrics.overall.makespan_seconds for result in (first, again)]
    assert makespans[1] == pytest.approx(makespans[0], rel=0.03)
    saved = simulate(recorded(first.log), ALTO, gpus(), tmp_path / "alto")
    assert saved.metrics.overall.makespan_seconds < makespans[0]


@pytest.mark.parametrize("policy", ["sjf", "srtf"])
def test_a_finished_run_of_rigid_jobs_is_a_workload(tmp_path: Path, policy: str) -> None:
    """Preempted ones too: what counts is the time on a GPU."""
    jobs = [
        TraceJob(id=f"j{i}", submitted=7.0 * i, duration=90.0 - 20 * i, num_gpus=1 + i % 2)
        for i in range(4)
    ]
    workload = rigid(Trace("toy", tuple(jobs), {}), AT_ONCE)
    first = simulate(workload, SETTINGS[policy](), gpus(2), tmp_path / "first")
    again = simulate(recorded(first.log), SETTINGS[policy](), gpus(2), tmp_path / "again")
    assert any(len(job.residencies) > 1 for job in first.history.jobs.values()) == (
        policy == "srtf"
    )
    assert again.log.entries == first.log.entries


class _Broken(Policy):
    """Another policy, until the event with this number."""

    def __init__(self, policy: Policy, number: int) -> None:
        self._policy, self._left = policy, number

    def observe(self, event: Event, cluster: ClusterView) -> tuple[Decision, ...]:
        self._left -= 1
        if not self._left:
            raise RuntimeError("broken")
        return self._policy.observe(event, cluster)


@pytest.mark.parametrize("number", [1, 2, 100, 101, 102])
def test_a_policy_that_breaks_leaves_all_that_happened_before(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = simulate(WORKLOAD, FifoSettings(), gpus(), tmp_path / "whole").log
    broken = _Broken(build(FifoSettings()), number)
    monkeypatch.setattr("alto_sim.simulate._BATCH", 100)
    monkeypatch.setattr("alto_sim.simulate.build", lambda *_: broken)
    with pytest.raises(RuntimeError, match="broken"):
        simulate(WORKLOAD, FifoSettings(), gpus(), tmp_path / "broken")
    log = read_run_log(tmp_path / "broken" / "run.jsonl")
    assert len(whole.entries) > 102
    assert log.entries == whole.entries[: number - 1]


def test_what_a_full_disk_refuses_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Entry] = []

    def refuse(_: LogWriter, entries: Iterable[Entry]) -> None:
        told.extend(entries)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("alto_sim.simulate._BATCH", 100)
    monkeypatch.setattr(LogWriter, "write_entries", refuse)
    with pytest.raises(OSError, match="No space left"):
        simulate(WORKLOAD, FifoSettings(), gpus(), tmp_path / "run")
    assert len(told) == 100


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    simulate(WORKLOAD, ALTO, gpus(), tmp_path / "run")
    before = (tmp_path / "run" / "run.jsonl").read_bytes()
    with pytest.raises(UserError, match="not empty"):
        simulate(WORKLOAD, FifoSettings(), gpus(), tmp_path / "run")
    assert (tmp_path / "run" / "run.jsonl").read_bytes() == before
