import math
from pathlib import Path

import numpy as np
import pytest

from alto_policy.events import Event, LossReported, TaskArrived
from alto_policy.policies import Settings
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.fifo import FifoSettings
from alto_policy.runlog import Entry, Header, dump_entry, dump_header
from alto_policy.types import Gpu, GpuId
from experiments import gallery
from experiments.exhibits.exhibit import Exhibit, Table, Verdict, markdown, verdict_over
from experiments.exhibits.fig07_early_rank import early_ranks
from experiments.exhibits.fig12_cluster import BARS, makespan_of, tasks_of
from experiments.exhibits.fig15_samples_saved import saved_by
from experiments.exhibits.fig16_warmup import foresight
from experiments.gallery import EXHIBITS, gallery_text, main
from experiments.grids.curve_sets import curve_set, generated_sets, recorded_sets
from tests.experiments.tables import grid

FOLDER = Path(__file__).parents[3] / "experiments"


def write_log(path: Path, policy: Settings) -> None:
    curves = grid([[2, 1], [4, 3]])
    header = Header(policy=policy, gpus=(Gpu(id=GpuId(0), kind="cpu"),))
    reports = [
        LossReported(
            float(10 * column + row), job.id, 10 * (column + 1), 0.5, curves.val[row, column]
        )
        for column in range(2)
        for row, job in enumerate(curves.task.jobs)
    ]
    events: list[Event] = [TaskArrived(0.0, curves.task), *reports]
    lines = [dump_header(header), *(dump_entry(Entry(event, ())) for event in events)]
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_recorded_grids_are_found_by_folder(tmp_path: Path) -> None:
    folder = tmp_path / "traces" / "recorded"
    write_log(folder / "full" / "run.jsonl", FifoSettings())
    write_log(folder / "exits" / "run.jsonl", AltoSettings())
    (found,) = recorded_sets(folder)
    assert found.origin == "traces/recorded/full/run.jsonl"
    assert found.val.tolist() == [[2, 1], [4, 3]]
    assert not found.is_generated


def test_reports_are_taken_at_equal_shares_and_end_where_a_job_broke_down() -> None:
    task = grid([[0] * 4] * 2).task
    job = task.jobs[0].id
    reports = {job: [LossReported(0.0, job, step, 0.1, float(step)) for step in (10, 25, 30)]}
    found = curve_set("t", "", task, reports, is_generated=False)
    assert found.val[0].tolist()[:3] == [10, 25, 30]
    assert math.isnan(found.val[0, 3])
    assert np.isnan(found.val[1]).all()
    assert found.final.tolist() == [math.inf, math.inf]


def test_foresight_of_curves_that_keep_their_order_and_of_those_that_turn_it() -> None:
    kept = grid([[row + 5 - column for column in range(4)] for row in range(8)])
    turned = grid([[row + 10.0] * 3 + [8.0 - row] for row in range(8)])
    same, other = foresight(kept, 0.25), foresight(turned, 0.25)
    assert (same.coverage, same.captured, same.shortfall) == (1.0, 1.0, 0.0)
    assert same.rho == pytest.approx(1.0)
    assert (other.coverage, other.captured) == (0.0, 0.0)
    assert other.rho == pytest.approx(-1.0)
    assert other.shortfall == pytest.approx(6.0)


def test_ranks_begin_at_one_and_put_lost_jobs_last() -> None:
    early, final = early_ranks(grid([[3, 1], [math.nan] * 2, [2, 2]]), 0.5)
    assert early == [2, 3, 1]
    assert final == [1, 3, 2]


def test_savings_and_the_budget_add_up_to_the_whole() -> None:
    (curves,) = generated_sets(1)
    saved = saved_by(curves, AltoSettings())
    assert saved.total + saved.judgement.budget == pytest.approx(1.0)


def test_a_cluster_needs_all_three_parts() -> None:
    tasks = tasks_of(0)[:3]
    bars = {bar.name: makespan_of(tasks, bar, 0).overall.makespan_seconds for bar in BARS}
    assert bars["none"] > bars["B"] > bars["B+EE"] >= bars["B+EE+S"]
    assert bars["none"] > bars["EE"] > bars["B+EE"]


def test_a_section_says_what_the_paper_shows_and_what_is_run_here() -> None:
    shown = Exhibit(
        verdict=Verdict.CANNOT,
        gist="In short.",
        found=("One thing.",),
        table=Table(("a", "b"), ((1.23456, None),)),
        logs=("a log",),
        seeds="None.",
    )
    section = markdown("fig00", "Title.\n\nThe paper: it shows\nthis.\n\nHere: that.\n", shown)
    assert section.startswith(
        "## Title\n\n**cannot be tested here** · `exhibits/fig00.py`\n\nIn short.\n\n*The paper.*"
    )
    assert "| 1.23 |  |" in section


def test_the_gallery_says_where_the_paper_contradicts_itself() -> None:
    shown = Exhibit(
        verdict=Verdict.CANNOT, gist="", found=(), table=Table((), ()), logs=(), seeds=""
    )
    texts = {
        "fig00": "Figure 0: one.\n\nThe paper: a.\n\nHere: b.\n\nThe paper against itself: c.\n",
        "fig99": "Figure 99: two.\n\nThe paper: a.\n\nHere: b.\n",
    }
    text = gallery_text([(name, docstring, shown) for name, docstring in texts.items()])
    assert "contradicts itself is told at [figure 0](#figure-0-one).\n" in text


@pytest.mark.parametrize(
    ("holds", "verdict"),
    [
        ((), Verdict.CANNOT),
        ((True,), Verdict.PARTLY),
        ((True, True, True), Verdict.REPRODUCED),
        ((True, True, False), Verdict.PARTLY),
        ((False, False, False), Verdict.NOT_REPRODUCED),
    ],
)
def test_a_claim_about_all_tasks_needs_three(holds: tuple[bool, ...], verdict: Verdict) -> None:
    assert verdict_over(holds) is verdict


def test_an_exhibit_that_there_is_not_is_told() -> None:
    with pytest.raises(SystemExit, match="fig99: no exhibit of that name, expected some of fig01"):
        main(["fig99"])


def test_an_exhibit_is_named_by_how_it_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gallery, "write", lambda name, _: Path(name))
    main(["fig04", "table2_kernels.py"])
    told = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == ["fig04_utilization", "table2_kernels"]


def test_the_gallery_shows_every_exhibit_and_its_picture() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for make in EXHIBITS:
        name = make.__module__.rsplit(".", 1)[-1]
        assert f"`exhibits/{name}.py`" in text
        assert (FOLDER / "figures" / f"{name}.csv").is_file()
        assert f"figures/{name}.png" not in text or (FOLDER / "figures" / f"{name}.png").is_file()
