"""Runs side by side in the report, and runs for other programs."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from alto_policy.events import TaskArrived
from alto_policy.policies import Settings
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.fifo import FifoSettings
from alto_policy.types import Job, JobId, Task, TaskId
from alto_runs.errors import UserError
from alto_runs.export import TableFormat, tables, timeline, write_tables, write_timeline
from alto_runs.outcomes.lanes import assign_slots
from alto_runs.outcomes.schedule import measure_usage
from alto_runs.report.drawing import short
from alto_runs.report.gantt import draw_gantt, duration
from alto_runs.report.page import write_report
from alto_runs.report.side_by_side import draw_completion, draw_queueing, group_runs, regrets
from alto_runs.report.usage import draw_usage
from alto_runs.result import Result
from alto_sim.curves.losses import Losses
from alto_sim.simulate import simulate
from alto_sim.times.step_time import StepTime
from alto_sim.workloads.workload import Workload
from tests.runs.costs.profiles import ROOMY
from tests.sim.cases import NOW, gpus, job

ALTO = AltoSettings(warmup=0.1)


class Curves:
    """The later a job stands in its task, the better it ends; early on it is the other way."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def losses(self, job: Job, step: int) -> Losses:
        number = int(job.id.split("-")[1])
        share = step / job.steps
        loss = 3 + self._seed / 10 + number * (0.02 - 0.06 * share) - share
        return Losses(loss, loss)

    def report_step(self, job: Job, step: int) -> int:
        return job.next_report_step(step)


def workload(seed: int) -> Workload:
    tasks = [
        Task(
            id=TaskId(f"t{i}"),
            jobs=tuple(job(f"t{i}-{n}", 40, 20, batch_size=1 + n % 4) for n in range(8)),
            backbone="sim",
            max_length=1,
            num_gpus=1 + i % 2,
            tenant="ann" if i % 3 else "<b>",
        )
        for i in range(4)
    ]
    return Workload(
        arrivals=tuple(TaskArrived(20.0 * i, task) for i, task in enumerate(tasks)),
        curves=Curves(seed),
        step_time=StepTime(per_pass=1.0, per_token=0.25, per_evaluation=2.0),
        latencies=NOW,
        memory=ROOMY,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    paths = []
    settings: list[tuple[str, Settings]] = [("alto", ALTO), ("fifo", FifoSettings())]
    for name, chosen in settings:
        for seed in (0, 1):
            path = folder / f"{name}-{seed}"
            simulate(workload(seed), chosen, gpus(2), path, made_by=(("seed", str(seed)),))
            paths.append(path)
    return paths


def test_runs_of_one_policy_are_its_seeds(runs: list[Path]) -> None:
    groups = group_runs([(path.name, Result(path)) for path in runs])
    assert [(group.name, len(group.runs)) for group in groups] == [("alto", 2), ("fifo", 2)]
    assert len({group.color for group in groups}) == 2


def test_other_settings_are_another_group(runs: list[Path], tmp_path: Path) -> None:
    other = simulate(workload(0), AltoSettings(warmup=0.2), gpus(2), tmp_path / "other")
    groups = group_runs([("first", Result(runs[0])), ("second", other)])
    assert [group.name for group in groups] == ["alto: first", "alto: second"]


def test_other_conditions_are_another_group(tmp_path: Path) -> None:
    """Of one policy, tasks and GPUs: what a header tells beside seed and commit sets them apart."""
    runs = []
    for folder, faults in (("calm", ""), ("rough", "node_mtbf 86400")):
        for seed in ("0", "1"):
            path, told = (
                tmp_path / folder / f"seed-{seed}",
                (("seed", seed), ("commit", f"c{seed}")),
            )
            facts = (("faults", faults), *told) if faults else told
            result = simulate(workload(int(seed)), ALTO, gpus(2), path, made_by=facts)
            runs.append((f"{folder}/seed-{seed}", result))
    groups = group_runs(runs)
    assert [(group.name, len(group.runs)) for group in groups] == [
        ("alto: calm", 2),
        ("alto: rough", 2),
    ]


def test_other_tasks_are_no_seeds_of_these(runs: list[Path], tmp_path: Path) -> None:
    whole = workload(1)
    fewer = simulate(replace(whole, arrivals=whole.arrivals[:3]), ALTO, gpus(2), tmp_path / "fewer")
    groups = group_runs([("first", Result(runs[0])), ("second", fewer)])
    assert [group.name for group in groups] == ["alto: first", "alto: second"]


def test_regret_is_against_the_best_that_was_found_for_the_seed(runs: list[Path]) -> None:
    """FIFO trains every job to its end, and so finds the best: job 7, which starts as the worst."""
    found = regrets([Result(path) for path in runs])
    assert regrets([Result(path) for path in reversed(runs)]) == found[::-1]
    assert found[2:] == [0.0, 0.0]
    best, taken = 3 - 1 + 7 * -0.04, 3 - 1 + 1 * -0.04
    assert found[0] == pytest.approx(taken / best - 1, rel=0.01)
    assert found[1] == pytest.approx((taken + 0.1) / (best + 0.1) - 1, rel=0.01)


def test_a_page_of_several_runs(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alto_runs.report.page._MOST_TASKS", 3)
    monkeypatch.setattr("alto_runs.report.page._MOST_STAYS", 35)
    page = write_report(runs[:3], tmp_path).read_text(encoding="utf-8")
    for words in ("Policies side by side", "From arrival to end", "Waiting for GPUs"):
        assert page.count(f"<h3>{words}") == 1
    assert page.count("<h3>Use of the GPUs") == 3
    assert page.count(": leaderboard</h3>") == 3  # one of the four tasks of each run
    assert page.count("3 more tasks are in leaderboard.json") == 3
    assert page.count("<h3>Jobs on the GPUs") == 1  # of FIFO; a warm-up makes too many stays
    assert "<b>" not in page.replace("of &lt;b&gt;", "")
    assert "mathdefault" not in page
    assert "\N{PLUS-MINUS SIGN}" in page


def rigid(num_tenants: int) -> Workload:
    """One job of 50 s to 4,000 hours a tenant, those of the later tenants twice."""
    tasks, durations = [], {}
    for number in range(num_tenants):
        for copy in range(1 if number < 2 else 2):
            name, tenant = f"r{number}-{copy}", f"tenant{number}"
            tasks.append(
                Task(
                    id=TaskId(name),
                    jobs=(job(name, 1, 1),),
                    backbone="",
                    max_length=1,
                    num_gpus=1,
                    tenant=tenant,
                )
            )
            durations[JobId(name)] = 50.0 * (1 + 20_000 * number)
    arrivals = tuple(TaskArrived(0.0, each) for each in tasks)
    return Workload(
        arrivals=arrivals, curves=Curves(0), latencies=NOW, memory=ROOMY, durations=durations
    )


def texts(svg: str) -> list[str]:
    return re.findall(r">([^<>]+)</text>", svg)


def test_rigid_jobs_side_by_side(tmp_path: Path) -> None:
    """Nothing is saved or regretted; large numbers have no exponent, and small ticks their room."""
    settings: list[Settings] = [FifoSettings(), ALTO]
    paths = [tmp_path / f"{number}" for number in range(2)]
    for path, chosen in zip(paths, settings, strict=True):
        simulate(rigid(14), chosen, gpus(2), path)
    page = write_report(paths, tmp_path).read_text(encoding="utf-8")
    found = texts(page)
    assert not [text for text in found if re.search(r"\de[+-]?\d", text)]
    assert {"99 % done within", "mean waiting"} <= set(found)
    assert "regret" not in page.lower()
    assert "samples" not in page.lower()
    assert not re.search(r">[^<>]*\de\+", page)
    groups = group_runs([(path.name, Result(path)) for path in paths])
    ticks = [text for text in texts(draw_completion(groups)) if re.fullmatch(r"[\d.,]+", text)]
    assert {"0.1", "1", "10", "100", "1,000"} <= set(ticks)
    assert not {"0.2", "5", "50"} & set(ticks)


def test_waiting_is_told_of_those_with_the_most_tasks(tmp_path: Path) -> None:
    run = simulate(rigid(14), FifoSettings(), gpus(2), tmp_path / "run")
    drawn = draw_queueing(group_runs([("run", run)]))
    assert "12 of 14 tenants, those with the most tasks" in drawn
    assert [text for text in texts(drawn) if "tenant" in text and text.startswith("of")] == sorted(
        f"of tenant{number}" for number in range(2, 14)
    )


@pytest.mark.parametrize(
    ("value", "digits", "told"),
    [
        (3071.4, 3, "3,071"),
        (999.6, 3, "1,000"),
        (99.96, 3, "100"),
        (107.9, 2, "108"),
        (0.0797, 3, "0.0797"),
    ],
)
def test_a_number_is_short_and_has_no_exponent(value: float, digits: int, told: str) -> None:
    assert short(value, digits) == told


def test_gpus_tell_their_kinds_where_there_are_several(runs: list[Path]) -> None:
    history, pair = Result(runs[0]).history, gpus(2)
    mixed = (replace(pair[0], kind="H100"), replace(pair[1], kind="A100"))
    assert {"GPU 0, H100", "GPU 1, A100"} <= set(texts(draw_gantt(history, (), mixed)))
    assert {"GPU 0", "GPU 1"} <= set(texts(draw_gantt(history, (), pair)))


def test_winners_are_outlined_where_they_are_few(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    history = Result(runs[0]).history
    winners = [task.jobs[0].id for task in history.tasks]
    assert "best" in texts(draw_gantt(history, winners))
    monkeypatch.setattr("alto_runs.report.gantt._MOST_WINNERS", len(winners) - 1)
    assert "best" not in texts(draw_gantt(history, winners))


def test_names_of_gpus_do_not_lie_on_each_other(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alto_runs.report.gantt._LABEL", 99.0)
    found = texts(draw_gantt(Result(runs[0]).history, ()))
    assert [text for text in found if text.startswith("GPU")] == ["GPU 0"]


def test_a_page_of_one_run_with_several_tasks(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alto_runs.report.page._MOST_TASKS", 2)
    page = write_report(runs[:1], tmp_path).read_text(encoding="utf-8")
    assert "Policies side by side" not in page
    schedule = Result(runs[0]).metrics.schedule
    assert schedule.completion_p99 is not None
    assert f"99 % within {duration(schedule.completion_p99)}" in " ".join(page.split())
    found = [page.index(words) for words in ("Makespan", "From arrival to end", "Use of the GPUs")]
    assert found == sorted(found)
    assert page.count(": leaderboard</h3>") == 2
    assert page.count("2 more tasks are in leaderboard.json") == 1


def test_many_steps_are_averaged(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = measure_usage(Result(runs[0]).history)
    whole = draw_usage(usage, 2)
    monkeypatch.setattr("alto_runs.report.usage._MOST_STEPS", 5)
    assert len(draw_usage(usage, 2)) < len(whole)


def test_slots_hold_one_job_at_a_time(runs: list[Path]) -> None:
    for slots in assign_slots(Result(runs[0]).history).values():
        ends: dict[int, float] = {}
        for slot in slots:
            assert slot.stay.start >= ends.get(slot.lane, 0.0)
            ends[slot.lane] = slot.stay.end
        assert sorted(ends) == list(range(len(ends)))


READERS: dict[TableFormat, Callable[[Path], pd.DataFrame]] = {
    TableFormat.CSV: lambda path: pd.read_csv(path, keep_default_na=False),
    TableFormat.PARQUET: pd.read_parquet,
}


@pytest.mark.parametrize("form", TableFormat)
def test_tables_hold_the_run(form: TableFormat, runs: list[Path], tmp_path: Path) -> None:
    result = Result(runs[0])
    paths = write_tables(result, tmp_path / "tables", form)
    frames = {path.stem: READERS[form](path) for path in paths}
    assert sorted(frames) == ["decisions", "jobs", "reports", "tasks", "usage"]
    assert len(frames["jobs"]) == 32
    assert set(frames["jobs"]["status"]) == {"finished", "stopped"}
    assert frames["tasks"]["completion"].astype(float).mean() == pytest.approx(
        result.metrics.schedule.completion_mean
    )
    starts = frames["decisions"][frames["decisions"]["decision"] == "StartExecutor"]
    assert list(starts["gpus"]) == ["0", "1", "0 1", "0 1"]
    assert len(frames["reports"]) == result.metrics.overall.reports
    assert {name: len(frame) for name, frame in tables(result).items()} == {
        name: len(frame) for name, frame in frames.items()
    }


def test_a_timeline_for_perfetto(runs: list[Path], tmp_path: Path) -> None:
    result = Result(runs[0])
    events = json.loads(write_timeline(result, tmp_path / "t.json").read_text())["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "C", "i"}
    assert all(isinstance(event["ts"], int) and event["ts"] >= 0 for event in events)
    stays = [event for event in events if event["ph"] == "X" and event["tid"] > 0]
    threads: dict[tuple[int, int], int] = {}
    for event in sorted(stays, key=lambda event: event["ts"]):
        thread = (event["pid"], event["tid"])
        assert event["ts"] >= threads.get(thread, 0)
        threads[thread] = event["ts"] + event["dur"]
    residencies = [stay for each in result.history.jobs.values() for stay in each.residencies]
    seconds = sum(stay.end - stay.start for stay in residencies)
    assert sum(event["dur"] for event in stays) == pytest.approx(seconds * 1e6)
    stops = [event for event in events if event["ph"] == "i"]
    assert {event["args"]["reason"] for event in stops} == {"underperformed"}
    assert timeline(result) == timeline(result)


def test_a_place_that_cannot_be_written(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "file"))):
        write_timeline(Result(runs[0]), tmp_path / "file" / "t.json")
