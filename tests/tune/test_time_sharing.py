"""Two tasks with backbones of their own take turns on one device, and do not feel it."""

from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from alto_exec import tune
from alto_exec.events import outbox
from alto_policy.decisions import Pause, StartExecutor
from alto_policy.policies.fifo import FifoSettings
from alto_policy.policies.las import LasSettings
from alto_policy.types import TaskId
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from alto_runs.study import Study, load_study
from tests.exec.tiny_models import save_tiny
from tests.tune.same import assert_same_outcome
from tests.tune.small_study import write_study

SILENT = Console(quiet=True)
STUDY = """\
name: two
model: {model}
data: {{train: train.jsonl, validation: validation.jsonl, max_length: 96}}
search: {{learning_rate: [3.0e-3, 1.0e-2], rank: [2, 4]}}
budget: {{samples: 32}}
reports: 8
executor: {{device: cpu, threads: 1, max_jobs: 3}}
tasks: {{one: {{}}, other: {{model: other}}}}
"""


def two_backbones(folder: Path) -> Study:
    save_tiny(folder / "other", seed=1)
    return load_study(write_study(folder, STUDY))


def starts(result: Result) -> Counter[TaskId]:
    decisions = (decision for entry in result.log.entries for decision in entry.decisions)
    return Counter(one.task for one in decisions if isinstance(one, StartExecutor))


class Clock:
    """Of runs that take the same time however fast the machine is: a look at it is a moment."""

    now = 0.0

    def monotonic(self) -> float:
        self.now += 0.01
        return self.now


def test_tasks_take_turns_and_train_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "time", Clock())
    study = two_backbones(tmp_path)
    alone = study.model_copy(update={"policy": FifoSettings()})
    expected = tune(alone, tmp_path / "alone", console=SILENT)
    seconds = expected.log.entries[-1].event.t / 5
    thresholds = tuple(seconds * number for number in range(1, 100))
    in_turns = LasSettings(thresholds=thresholds, round_seconds=seconds)
    shared = tune(
        study.model_copy(update={"policy": in_turns}), tmp_path / "shared", console=SILENT
    )
    assert starts(expected) == {"one": 1, "other": 1}
    assert min(starts(shared).values()) > 1
    pauses = [d for e in shared.log.entries for d in e.decisions if isinstance(d, Pause)]
    assert pauses
    assert_same_outcome(shared, expected)
    assert replay_run(shared.directory.path)[1] is None
