"""A study on several ranks ends as on one device, also when a rank is killed on the way."""

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from alto_exec import tune
from alto_exec.host.machine import settle
from alto_exec.parallel.ranks import LOST_RANK_STATUS, Ranks
from alto_exec.preparation import prepare
from alto_exec.team.launched import LeadingRank, follow
from alto_exec.team.placing import spread_of
from alto_exec.tuning import Options, tune_at
from alto_policy.executors.layout import Layout, Spread
from alto_policy.policies.fifo import FifoSettings
from alto_runs.files.directory import RunDirectory
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from alto_runs.study import Study
from tests.forked import forked, go_on, wait_for_stop
from tests.parallel.ranks_of_processes import begin, outcomes, said
from tests.parallel.test_lost_rank import SECONDS
from tests.ports import free_port
from tests.tune.cut import at_moments
from tests.tune.same import assert_same_outcome
from tests.tune.small_study import small_study

QUIET = Console(quiet=True)


def train_in_shards(study: Study, ranks: Ranks, folder: Path, *stops: int) -> None:
    at_moments(stops, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    if not ranks.is_leader:
        follow(ranks)
        return
    site = LeadingRank(ranks, Spread(layout=Layout.SHARDS, whole_layers=1))
    tune_at(site, study, folder / "run", Options(resume=True, console=QUIET))
    site.dismiss()


def train_and_stop(study: Study, ranks: Ranks, folder: Path) -> None:
    """The leader, where some jobs have paused after their warm-up."""
    train_in_shards(study, ranks, folder, 20)


def train_as_launched(study: Study, port: int, rank: int, size: int, folder: Path) -> None:
    """With the variables that torchrun sets."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["LOCAL_WORLD_SIZE"] = str(size)
    tune(study, folder / "run", resume=True, console=QUIET)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return small_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def expected(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """On one device, undisturbed."""
    return tune(study, tmp_path_factory.mktemp("one") / "run", console=QUIET)


def test_a_killed_rank_costs_nothing(study: Study, expected: Result, tmp_path: Path) -> None:
    folder = tmp_path / "ranks"
    ranks = begin(partial(train_and_stop, study), 2, folder)
    try:
        wait_for_stop(ranks[0])
        assert (folder / "run" / "checkpoints").is_dir()
        ranks[1].kill()
        go_on(ranks[0])
        ranks[0].join(SECONDS)
        assert ranks[0].exitcode == LOST_RANK_STATUS
        *warnings, line = said(folder, 0)
        assert not any("Traceback" in each for each in warnings)
        assert line.startswith("alto: rank 0 of 2 stops, since another is gone; --resume goes on")
        # Whoever was stopped in the middle of a file leaves that as well.
        writers = RunDirectory(folder / "run").writers.names()
        assert len({name.rpartition("/")[0] for name in writers}) == 1, "of both of them"
    finally:
        for process in ranks:
            process.kill()
    (folder / "meeting").unlink()
    outcomes(partial(train_in_shards, study), 2, folder)
    found = Result(folder / "run")
    assert_same_outcome(found, expected)
    assert replay_run(folder / "run")[1] is None
    (task,) = found.history.tasks
    assert task.num_gpus == 2


def launch(study: Study, folder: Path, seconds: float = 240) -> Result:
    """On two processes."""
    port = free_port()
    ranks = [forked(train_as_launched, study, port, rank, 2, folder) for rank in range(2)]
    for process in ranks:
        process.start()
    try:
        for process in ranks:
            process.join(seconds)
            assert process.exitcode == 0
    finally:
        for process in ranks:
            process.kill()
    return Result(folder / "run")


def test_processes_that_torchrun_launches(study: Study, expected: Result, tmp_path: Path) -> None:
    """With copies of the backbone, since it is small."""
    assert_same_outcome(launch(study, tmp_path), expected)


def on_gpus(study: Study) -> Study:
    """Every job to its end, since bfloat16 need not decide as fp32 does."""
    executor = study.executor.model_copy(update={"device": "cuda"})
    return study.model_copy(update={"executor": executor, "policy": FifoSettings()})


def assert_most_have_trained(run: Path) -> None:
    """Some have a learning rate by which they break down."""
    ended = [job.status.value for job in Result(run).leaderboard]
    assert ended.count("finished") >= len(ended) * 3 // 4
    assert replay_run(run)[1] is None


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two GPUs")
def test_processes_that_torchrun_launches_on_gpus(study: Study, tmp_path: Path) -> None:
    launch(on_gpus(study), tmp_path)
    assert_most_have_trained(tmp_path / "run")


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two GPUs")
def test_a_study_in_shards_on_gpus(study: Study, tmp_path: Path) -> None:
    outcomes(partial(train_in_shards, on_gpus(study)), 2, tmp_path, "cuda")
    assert_most_have_trained(tmp_path / "run")


def test_what_a_leader_asks_alone_is_said_to_nobody(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How a backbone lies on GPUs: the others wait for a command meanwhile."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1 << 30, 1 << 30))
    nobody: Any = None
    ranks = Ranks(0, 2, torch.device("cuda:0"), group=nobody, watch=nobody)
    on_two = settle(study.executor.model_copy(update={"gpus": 2}))
    (prepared,) = prepare(study.model_copy(update={"executor": on_two}))
    assert spread_of(prepared, on_two, ranks).layout is Layout.COPIES
