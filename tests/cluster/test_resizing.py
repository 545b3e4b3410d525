"""Tasks on Ray that take another number of GPUs while they train, as their policy asks for."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alto_exec import tune
from alto_policy.decisions import StartExecutor
from alto_policy.events import TaskResized
from alto_policy.policies import Settings
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.elastic import ElasticSettings
from alto_policy.policies.las import LasSettings
from alto_runs.errors import UserError
from alto_runs.own_policy import own_policy, source_of
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from alto_runs.study import ExecutorSpec, Study, parse_study
from alto_service.database import State
from tests.cluster.trouble import HASTY, begin, ended, free_gpus, undisturbed
from tests.forked import wait_for_stop
from tests.service.cases import (
    SETTINGS,
    STUDY,
    Workers,
    assert_same_board,
    client_of,
    front,
    submission,
    write_data,
)
from tests.tune.same import assert_same_outcome

SILENT = Console(quiet=True)

# To and fro between all widths, each time after so many reports, a few times.
SWINGING = """\
from alto_policy.decisions import Resize
from alto_policy.events import ExecutorDown, JobLeft, LossReported
from alto_policy.policies.alto import Alto, AltoSettings
from alto_policy.yielding import stop_if_empty, yield_gpus


class Swinging(Alto):
    same_node = True

    def __init__(self):
        super().__init__(AltoSettings(warmup=0.25))
        self.reports, self.times = 0, 0
        self.is_yielding = False

    def observe(self, event, cluster):
        if isinstance(event, JobLeft) and self.is_yielding:
            return tuple(stop_if_empty(cluster.task_of(event.job).id, cluster))
        if isinstance(event, ExecutorDown):
            self.is_yielding = False
        decisions = super().observe(event, cluster)
        if not isinstance(event, LossReported) or decisions or self.is_yielding:
            return decisions
        self.reports += 1
        task = cluster.task_of(event.job)
        others = [width for width in task.widths if width != task.num_gpus]
        if self.reports < 4 or self.times == 5 or not others:
            return ()
        self.reports, self.times = 0, self.times + 1
        self.is_yielding = True
        return (Resize(task.id, others[0]), *yield_gpus(task.id, cluster))
"""


def up_to(study: Study, max_gpus: int | None, policy: Settings | None = None) -> Study:
    room = {"gpus": 1 if max_gpus else None, "max_gpus": max_gpus}
    executor = study.executor.model_copy(update=room)
    changed = {"executor": executor, "policy": policy or study.policy}
    return study.model_copy(update=changed)


def widths(result: Result) -> list[int]:
    decisions = [decision for entry in result.log.entries for decision in entry.decisions]
    return [len(one.gpus) for one in decisions if isinstance(one, StartExecutor)]


@pytest.fixture(scope="module")
def swinging(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Under a policy that is that of `study`, but for its swinging."""
    path = tmp_path_factory.mktemp("swinging") / "swinging.py"
    path.write_text(SWINGING)
    return up_to(study, None, own_policy(path))


def test_ends_as_if_it_had_never_been_resized(
    nodes: Any, swinging: Study, expected: Result, tmp_path: Path
) -> None:
    result = tune(up_to(swinging, 2), tmp_path / "run", cluster=nodes.address, console=SILENT)
    assert_same_outcome(result, expected)
    assert widths(result)[:4] == [1, 2, 1, 2]
    assert replay_run(tmp_path / "run")[1] is None
    free, total = free_gpus(nodes)
    assert free == total


@pytest.mark.parametrize("max_gpus", [2, 1])
def test_goes_on_from_where_it_was_resized(
    max_gpus: int, nodes: Any, swinging: Study, expected: Result, tmp_path: Path
) -> None:
    """With one GPU there is nothing to choose any more."""
    out = tmp_path / "run"
    source = source_of(swinging.policy)
    assert source is not None
    head = begin(up_to(swinging, 2), out, nodes.address, TaskResized, policy=source[0])
    try:
        wait_for_stop(head)
    finally:
        head.kill()
        head.join()
    then = up_to(swinging, max_gpus)
    result = tune(then, out, resume=True, cluster=nodes.address, console=SILENT)
    assert_same_outcome(result, expected)
    assert replay_run(out)[1] is None
    free, total = free_gpus(nodes)
    assert free == total


def elastic_six(six: tuple[Study, Result]) -> Study:
    """Their policy within an elastic one."""
    given, _ = six
    assert isinstance(given.policy, AltoSettings)
    return up_to(given, 2, ElasticSettings(within=given.policy, payback=0.0, round_seconds=0.0))


def test_an_elastic_policy_uses_what_idles(
    nodes: Any, six: tuple[Study, Result], tmp_path: Path
) -> None:
    """Six tasks on two nodes of two GPUs: those that are left at the end have a node each."""
    result = tune(elastic_six(six), tmp_path / "run", cluster=nodes.address, console=SILENT)
    assert_same_outcome(result, six[1])
    assert 2 in widths(result)
    assert replay_run(tmp_path / "run")[1] is None


def test_nobody_is_resized_to_what_does_not_hold_its_jobs(
    nodes: Any, swinging: Study, expected: Result, tmp_path: Path
) -> None:
    """Ranks of a CPU share its memory: two of them hold none of these jobs, though their policy
    would have two."""
    tight = swinging.executor.model_copy(update={"memory_gb": 0.0014})
    tight_study = swinging.model_copy(update={"executor": tight})
    result = tune(up_to(tight_study, 2), tmp_path / "run", cluster=nodes.address, console=SILENT)
    assert_same_outcome(result, expected)
    assert widths(result) == [1]
    assert replay_run(tmp_path / "run")[1] is None


def test_a_policy_that_never_resizes_is_told_so(swinging: Study, tmp_path: Path) -> None:
    taking_turns = up_to(swinging, 2, LasSettings())
    with pytest.raises(UserError, match=r"^executor.max_gpus: value 2: this policy leaves each"):
        tune(taking_turns, tmp_path / "run", console=SILENT)
    assert not (tmp_path / "run").exists()


def test_one_device_has_no_choice(swinging: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^executor.max_gpus: value 2: a task has one GPU here"):
        tune(up_to(swinging, 2), tmp_path / "run", console=SILENT)


def test_studies_of_the_service_share_what_there_is(nodes: Any, tmp_path: Path) -> None:
    """Four GPUs: the first two have all of them when the others come."""
    root = write_data(tmp_path / "root")
    small = parse_study(STUDY.format(name="small"), "study", root)
    alone = undisturbed(up_to(small, None, SETTINGS.policy), tmp_path / "alone")
    alto = SETTINGS.policy
    assert isinstance(alto, AltoSettings)
    settings = SETTINGS.model_copy(
        update={
            "policy": ElasticSettings(within=alto, payback=0.0, round_seconds=0.0),
            "executor": ExecutorSpec(gpus=1, max_gpus=2),
        }
    )
    workers = Workers(front(tmp_path / "service", root), settings, nodes.address)
    client = client_of(workers.front)

    def submit() -> None:
        for name in ("small", "other"):
            assert client.post("/studies", json=submission(name)).status_code == 201

    submit()
    workers.start()
    try:
        for number in (1, 2):
            workers.wait(lambda row: row.state is State.RUNNING or row.state.is_final, number)
        submit()
        for number in (1, 2, 3, 4):
            row = workers.wait(lambda row: row.state.is_final, number)
            assert (row.state, row.error) == (State.DONE, None)
            assert_same_board(workers.front.directory.study(number), alone.leaderboard)
    finally:
        workers.kill()
    assert widths(Result(workers.front.directory.path))[:2] == [2, 2]
    assert replay_run(workers.front.directory.path)[1] is None


def test_whatever_dies_elastic_tasks_end_as_if_nothing_had(
    cluster_seed: int, nodes: Any, six: tuple[Study, Result], tmp_path: Path
) -> None:
    ended(elastic_six(six), tmp_path / "run", nodes, cluster_seed, 250, HASTY)
    assert_same_outcome(Result(tmp_path / "run"), six[1])
    assert replay_run(tmp_path / "run")[1] is None
    free, total = free_gpus(nodes)
    assert free == total
