"""On how many GPUs a task's jobs fit, counted before any weight is read."""

from pathlib import Path

import pytest
from transformers import AutoConfig

from alto_exec.host.machine import settle
from alto_exec.preparation import PreparedTask, prepare
from alto_exec.team import placing
from alto_exec.team.placing import widths_of
from alto_runs.study import ExecutorSpec, Study
from tests.tune.small_study import small_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Of a model that is more than its embeddings."""
    folder = tmp_path_factory.mktemp("widths")
    found = small_study(folder)
    config = AutoConfig.from_pretrained(folder / "model")
    config.update({"num_hidden_layers": 8, "hidden_size": 64, "intermediate_size": 512})
    config.save_pretrained(folder / "model")
    return found


def on(study: Study, **room: object) -> tuple[PreparedTask, ExecutorSpec]:
    given = ExecutorSpec.model_validate({**study.executor.model_dump(), "max_jobs": None, **room})
    spec = settle(given)
    (prepared,) = prepare(study.model_copy(update={"executor": spec}))
    return prepared.on(1), spec


def test_a_backbone_that_one_does_not_hold_is_held_by_more(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of memory that rises, one GPU after the other can be left out; until none holds a job, and
    once all hold the same ones, there is nothing to say."""
    monkeypatch.setattr(placing, "ranks_in_one_memory", lambda *_: 1)
    found = []
    for megabytes in (9.0, 10.2, 10.6, 12.0, 13.0):
        prepared, spec = on(study, gpus=1, max_gpus=4, memory_gb=megabytes / 1e3)
        found.append(widths_of(prepared, spec))
    assert found == [(), (4,), (3, 4), (2, 3, 4), ()]


def test_ranks_of_a_cpu_share_its_memory(study: Study) -> None:
    prepared, spec = on(study, gpus=1, max_gpus=4, memory_gb=0.05)
    assert widths_of(prepared, spec) == (1, 2)


def test_nobody_counts_where_there_is_no_choice(study: Study, tmp_path: Path) -> None:
    prepared, spec = on(study, gpus=1, memory_gb=1e-6)
    assert widths_of(prepared, spec) == ()
