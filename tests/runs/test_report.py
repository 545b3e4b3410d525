"""The report is one file that needs nothing else, for runs in every state."""

import math
import re
import time
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from alto_policy.decisions import ExitReason, StartExecutor, Stop
from alto_policy.events import Departure, JobLeft, LossReported, TaskArrived, TimerFired
from alto_policy.policies.fifo import FifoSettings
from alto_policy.runlog import Header, RunLog
from alto_policy.types import GpuId, JobId, TaskId
from alto_runs.errors import UserError
from alto_runs.outcomes.comparison import Answer, Comparison, write_comparisons
from alto_runs.outcomes.history import follow
from alto_runs.report.curves import draw_curves
from alto_runs.report.page import write_report
from tests.runs.cases import T, entry, fates, gpus, job, launch, log_of, save, task, up

HOSTILE = "<script>alert(1)</script>\"'&$x_1$"
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Its text, its addresses, and whether its tags are closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open += [] if tag in VOID else [tag]
        addresses = ("src", "href", "xlink:href", "action", "data", "poster", "srcset")
        self.addresses += [value or "" for name, value in attrs if name in addresses]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._open = self._open[:-1] if tag not in VOID else self._open

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def report_of(folder: Path, *logs: RunLog) -> Page:
    runs = [save(log, folder / f"run-{number}").path for number, log in enumerate(logs)]
    return Page(write_report(runs, folder / "out"))


def losses(names: Sequence[str], *vals: float) -> RunLog:
    told = [
        entry(LossReported(2.0 + step, JobId(name), 2 + 2 * step, val, val))
        for step, val in enumerate(vals)
        for name in names
    ]
    return log_of(
        entry(
            TaskArrived(0.0, task("t", [job(name) for name in names])),
            StartExecutor(T, (GpuId(0),)),
        ),
        entry(up(1.0, capacity=9999), launch(*names)),
        *told,
    )


STATES = [
    pytest.param(log_of(), id="no task"),
    pytest.param(log_of(entry(TimerFired(5.0))), id="no task, and some time"),
    pytest.param(log_of(entry(TaskArrived(0.0, task("t", [job("a")])))), id="nothing started"),
    pytest.param(losses(["a"]), id="one job without a report"),
    pytest.param(losses(["a"], 2.0), id="one job with one report"),
    pytest.param(losses(["a", "b"], math.nan, math.inf), id="no finite loss"),
    pytest.param(losses(["a", "b"], 0.0, -1.0), id="losses that a logarithm does not take"),
    pytest.param(losses(["a", "b"], 1e300, 1e-300), id="losses of all sizes"),
    pytest.param(losses(["a", "b"], 2.0, 2.0), id="losses that do not move"),
]


@pytest.mark.parametrize("log", STATES)
def test_a_run_in_any_state_has_a_report(log: RunLog, tmp_path: Path) -> None:
    page = report_of(tmp_path, log)
    assert page.tags[:1] == ["html"]
    assert "run-0" in page.text
    assert "The runs side by side" not in page.text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def pair(folder: Path) -> Page:
    """Of two runs, one of them with a job of every fate."""
    return report_of(folder, fates(), losses(["a"], 2.0))


def test_the_page_needs_nothing_else(pair: Page) -> None:
    assert all(re.match(r"#|data:image/", address) for address in pair.addresses)
    assert not re.search(r"https?://|@import|url\(\s*['\"]?(?!#|data:)", pair.source)
    assert not {"script", "iframe", "link", "object", "embed", "base"} & set(pair.tags)


def test_what_it_says_of_every_fate(pair: Page) -> None:
    text = " ".join(pair.text.split())
    assert "12 jobs, 11 reports" in text
    assert "validation loss 1.0000" in text
    for name in ("diverged", "finished", "queued", "outranked"):
        assert name in text


def test_runs_side_by_side(pair: Page) -> None:
    assert "The runs side by side" in pair.text
    assert "run-0" in pair.text
    assert "run-1" in pair.text


def test_the_same_runs_give_the_same_page(pair: Page, folder: Path) -> None:
    again = write_report([folder / "run-0", folder / "run-1"], folder / "again")
    assert again.read_text(encoding="utf-8") == pair.source


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    """A trace may hold any name, and a header any fact."""
    name = TaskId(HOSTILE + "\u4e2d\u6587")
    log = RunLog(
        Header(policy=FifoSettings(), gpus=gpus(), made_by=((HOSTILE, HOSTILE),)),
        (
            entry(TaskArrived(0.0, task(name, [job("a")])), StartExecutor(name, (GpuId(0),))),
            entry(up(1.0, name), launch("a", of=name)),
            entry(
                LossReported(2.0, JobId("a"), 2, 1.0, 1.0),
                Stop(JobId("a"), ExitReason.OVERFITTED),
            ),
            entry(JobLeft(3.0, JobId("a"), Departure.STOPPED)),
        ),
    )
    runs = [save(log, tmp_path / f"<b>&{number}").path for number in range(2)]
    page = Page(write_report(runs, tmp_path / "out"))
    assert not {"script", "b"} & set(page.tags)
    assert HOSTILE in page.text
    assert "<b>&1" in page.text


def test_a_job_whose_name_is_no_file_name_is_refused(tmp_path: Path) -> None:
    run = save(losses([HOSTILE], 2.0), tmp_path / "run").path
    with pytest.raises(UserError, match=r"^name '<script>.*: expected letters, digits"):
        write_report([run], tmp_path / "out")


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """The second of them was killed in the middle of a line."""
    runs = [save(losses(["a"], 2.0), tmp_path / side / "run") for side in ("left", "right")]
    with runs[1].log_path.open("a") as file:
        file.write('{"event"')
    text = Page(write_report([run.path for run in runs], tmp_path / "out")).text
    assert "left/run" in text
    assert "right/run" in text
    assert str(tmp_path) not in text
    assert text.count("cut short") == 1


def test_two_thousand_jobs(tmp_path: Path) -> None:
    names = [f"t-{number:04}" for number in range(2000)]
    log = losses(names, 3.0, 2.0)
    began = time.process_time()
    page = report_of(tmp_path, log)
    assert time.process_time() - began < 30
    began = time.process_time()
    draw_curves(tuple(follow(log).jobs.values()), JobId(names[7]))
    assert time.process_time() - began < 3
    assert len(page.source) < 6_000_000
    assert all(name in page.text for name in (names[0], names[-1]))


def test_the_winner_stands_beside_the_untuned_model(tmp_path: Path) -> None:
    run = save(losses(["a"], 2.0), tmp_path / "run")
    answer = Answer(prompt="say\n<b>", untuned="no", tuned="yes")
    write_comparisons(
        run.comparison_path,
        [
            Comparison(
                task=T,
                job=JobId("a"),
                untuned_val_loss=4.5,
                val_loss=2.0,
                preferred=0.75,
                answers=(answer,),
            )
        ],
    )
    page = Page(write_report([run.path], tmp_path / "out"))
    text = " ".join(page.text.split())
    assert "validation loss 2.0000, untuned 4.5000" in text
    assert "Validation loss 2.0000, untuned 4.5000; prefers the better answer in 75.0 % of" in text
    assert "prompt say <b> untuned no tuned yes" in text
    assert "b" not in page.tags


def test_rigid_jobs_have_no_samples_to_save_and_no_losses(tmp_path: Path) -> None:
    log = log_of(
        entry(TaskArrived(0.0, task("t", [job("a")])), StartExecutor(T, (GpuId(0),))),
        entry(up(1.0), launch("a")),
        entry(JobLeft(9.0, JobId("a"), Departure.FINISHED)),
    )
    text = report_of(tmp_path, log).text
    assert "Samples" not in text
    assert "Best adapter" not in text
    assert "1 trained to the end, 0 stopped, 0 failed" in " ".join(text.split())


@pytest.mark.parametrize(
    ("vals", "labels"),
    [((90.0, 20.0), ("20", "30", "50")), ((5e4, 2.0), ("10", "100", "1,000"))],
)
def test_a_logarithmic_axis_tells_its_values(
    vals: tuple[float, ...], labels: tuple[str, ...]
) -> None:
    drawn = draw_curves(tuple(follow(losses(["a"], *vals)).jobs.values()), None)
    assert "log scale" in drawn
    assert set(labels) <= set(re.findall(r">([^<>]*)</text>", drawn))


def test_a_job_that_breaks_down_leaves_the_picture_to_the_others() -> None:
    vals = {"a": (2.0, 1.5), "b": (2.1, 1.9), "c": (90.0, 40.0)}
    each = [follow(losses([name], *own)).jobs[JobId(name)] for name, own in vals.items()]
    drawn = draw_curves(each, JobId("a"))
    assert "log scale" not in drawn
    assert "higher up: 1 job, to a loss of 90" in drawn
    assert "2.4" in re.findall(r">([^<>]*)</text>", drawn)
    assert "higher up" not in draw_curves(each[:2], JobId("a"))


def test_what_is_no_run_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    run = save(fates(), tmp_path / "run").path
    with pytest.raises(UserError, match="no run here"):
        write_report([run, tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()
