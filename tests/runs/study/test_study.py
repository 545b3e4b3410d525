"""What a study file says, what it leaves out, and how it is written down again."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alto_policy.policies import SETTINGS
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.asha import AshaSettings
from alto_policy.policies.fifo import FifoSettings
from alto_policy.types import Hyperparameters, Schedule
from alto_runs.errors import UserError
from alto_runs.study import (
    Budget,
    DataSpec,
    ExecutorSpec,
    Study,
    TaskSpec,
    as_study,
    expand,
    load_study,
    resolved_yaml,
)
from alto_runs.study_fields.document import dump_document
from tests.runs.faulty import WHOLE


def study_of(text: str, folder: Path) -> Study:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return load_study(path)


def only_task(text: str, folder: Path) -> TaskSpec:
    (task,) = study_of(text, folder).tasks.values()
    return task


def test_defaults_are_those_of_the_paper(tmp_path: Path) -> None:
    study = study_of(WHOLE, tmp_path)
    (task,) = study.tasks.values()
    assert list(study.tasks) == ["s"]
    assert (task.targets, task.budget, task.reports) == ("all-linear", Budget(epochs=3), 40)
    grid = task.configurations
    assert len(grid) == 60
    assert [job.learning_rate for job in grid[::12]] == [1e-5, 5e-5, 2e-4, 3e-4, 5e-4]
    assert [job.rank for job in grid[:12:4]] == [16, 32, 64]
    assert [job.batch_size for job in grid[:4]] == [1, 2, 4, 8]
    for job in grid:
        assert job.alpha == 2 * job.rank
        assert (job.dropout, job.rslora, job.accumulation, job.clip) == (0.0, False, 1, None)
        assert (job.schedule, job.rise, job.weight_decay) == (Schedule.CONSTANT, 0.0, 0.01)
    assert isinstance(study.policy, AltoSettings)
    assert (study.policy.warmup, study.policy.keep) == (0.05, 0.25)
    assert (study.executor, study.prompts) == (ExecutorSpec(), ())


def test_defaults_of_the_data(tmp_path: Path) -> None:
    data = only_task(WHOLE, tmp_path).data
    assert data == DataSpec(
        train=tmp_path / "t.jsonl",
        validation=None,
        validation_fraction=0.1,
        train_limit=None,
        validation_limit=256,
        max_length=1024,
        completion_only=True,
    )


def test_every_field_is_read(tmp_path: Path) -> None:
    text = """\
name: all-of-it
model: ./models/tiny.gguf
data:
  train: data/train.parquet
  validation: /elsewhere/validation.jsonl
  validation_fraction: 0.25
  train_limit: 100
  validation_limit: null
  max_length: 64
  completion_only: false
targets: [q_proj, v_proj]
jobs: [{rank: 4, learning_rate: 1e-3}, {alpha: 3, schedule: cosine, clip: 1}]
budget: {samples: 300}
reports: 7
executor: {device: cpu, dtype: float32, threads: 2, max_jobs: 3, memory_gb: 1.5}
policy: {name: asha, eta: 2}
prompts: [What is LoRA?]
"""
    study = study_of(text, tmp_path)
    (task,) = study.tasks.values()
    assert task.model == str(tmp_path / "models/tiny.gguf")
    assert task.data == DataSpec(
        train=tmp_path / "data/train.parquet",
        validation=Path("/elsewhere/validation.jsonl"),
        validation_fraction=0.25,
        train_limit=100,
        validation_limit=None,
        max_length=64,
        completion_only=False,
    )
    assert task.targets == ("q_proj", "v_proj")
    assert (task.budget, task.reports, task.search) == (Budget(samples=300), 7, None)
    first, second = task.configurations
    assert first == Hyperparameters(rank=4, alpha=8.0, learning_rate=1e-3)
    assert second == Hyperparameters(alpha=3.0, schedule=Schedule.COSINE, clip=1.0)
    assert study.executor == ExecutorSpec(
        device="cpu", dtype="float32", threads=2, max_jobs=3, memory_gb=1.5
    )
    assert study.policy == AshaSettings(eta=2.0)
    assert study.prompts == ("What is LoRA?",)


def test_the_last_axis_of_a_search_varies_fastest(tmp_path: Path) -> None:
    text = f"{WHOLE}search: {{rank: [4, 8], alpha: [null, 1.0], seed: 5}}"
    jobs = only_task(text, tmp_path).configurations
    assert [(job.rank, job.alpha, job.seed) for job in jobs] == [
        (4, 8.0, 5),
        (4, 1.0, 5),
        (8, 16.0, 5),
        (8, 1.0, 5),
    ]


def test_numbers_are_read_as_in_yaml_1_2(tmp_path: Path) -> None:
    text = f"{WHOLE}search: {{learning_rate: [1e-4, 2E-4, .5e-3, 1., 1e+1]}}"
    rates = [job.learning_rate for job in only_task(text, tmp_path).configurations]
    assert rates == [1e-4, 2e-4, 5e-4, 1.0, 10.0]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_policy_is_named_or_written_out(name: str, tmp_path: Path) -> None:
    settings = SETTINGS[name]()
    assert study_of(f"{WHOLE}policy: {name}", tmp_path).policy == settings
    assert study_of(f"{WHOLE}policy: {{name: {name}}}", tmp_path).policy == settings


def test_tasks_take_what_they_do_not_say_from_the_top(tmp_path: Path) -> None:
    text = """\
name: s
model: m
data: {train: t.jsonl, max_length: 64}
search: {rank: [4, 8]}
reports: 9
policy: fifo
tasks:
  plain:
  own: {model: n, reports: 3, data: {train: u.jsonl}, search: {seed: [1, 2, 3]}}
  listed: {jobs: [{rank: 2}]}
"""
    study = study_of(text, tmp_path)
    plain, own, listed = study.tasks.values()
    assert list(study.tasks) == ["plain", "own", "listed"]
    assert study.policy == FifoSettings()
    assert (plain.model, plain.reports, len(plain.configurations)) == ("m", 9, 2)
    assert (own.model, own.reports) == ("n", 3)
    assert (own.data.train, own.data.max_length) == (tmp_path / "u.jsonl", 64)
    assert [(job.rank, job.seed) for job in own.configurations] == [(16, 1), (16, 2), (16, 3)]
    assert [job.rank for job in listed.configurations] == [2]
    assert listed.search is None


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        pytest.param("org/name", "org/name", id="a name of the hub"),
        pytest.param("local", "{folder}/local", id="a folder that is there"),
        pytest.param("./gone", "{folder}/gone", id="a folder that may come"),
        pytest.param("../up", "{parent}/up", id="a folder above"),
        pytest.param("local/../../gone", "{parent}/gone", id="above by a folder that is there"),
        pytest.param("/models/m", "/models/m", id="an absolute path"),
        pytest.param("tiny.gguf", "{folder}/tiny.gguf", id="a file"),
        pytest.param("~nobody-here/m", "{folder}/~nobody-here/m", id="a user that there is not"),
        pytest.param("~root/m", "{folder}/~root/m", id="and one that there is"),
        pytest.param("m" * 5000, "m" * 5000, id="too long for a path"),
    ],
)
def test_paths_are_seen_from_the_folder_of_the_study(
    model: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "local").mkdir()
    found = only_task(f"name: s\nmodel: {model}\ndata: {{train: t}}", tmp_path).model
    assert found == expected.replace("{folder}", str(tmp_path)).replace(
        "{parent}", str(tmp_path.parent)
    )


def test_a_file_may_be_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert only_task("name: s\nmodel: m\ndata: {train: ~/t}", tmp_path).data.train == Path(
        "/home/me/t"
    )


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        pytest.param("{epochs: 3}", 300, id="epochs"),
        pytest.param("{epochs: 0.014}", 2, id="part of an epoch is rounded up"),
        pytest.param("{epochs: 0.07}", 7, id="0.07 * 100 is 7 and a rounding error"),
        pytest.param("{samples: 64}", 64, id="samples"),
    ],
)
def test_budget(budget: str, expected: int, tmp_path: Path) -> None:
    task = only_task(f"{WHOLE}budget: {budget}", tmp_path)
    assert task.budget.num_samples(100) == expected


def test_jobs_train_on_equally_many_samples(tmp_path: Path) -> None:
    text = f"{WHOLE}search: {{batch_size: [1, 8], accumulation: [1, 3]}}\nbudget: {{samples: 50}}"
    task = expand("t", only_task(text, tmp_path), num_samples=9, max_length=12)
    assert (task.id, task.backbone, task.max_length) == ("t", "m", 12)
    assert [(job.id, job.steps, job.reports) for job in task.jobs] == [
        ("t-00", 50, 40),
        ("t-01", 17, 17),
        ("t-02", 7, 7),
        ("t-03", 3, 3),
    ]
    assert all(50 <= job.samples(job.steps) < 50 + 24 for job in task.jobs)


def test_ids_of_jobs_sort_like_their_numbers(tmp_path: Path) -> None:
    text = f"{WHOLE}search: {{seed: {list(range(101))}}}\nbudget: {{samples: 1}}"
    task = expand("t", only_task(text, tmp_path), num_samples=1, max_length=1)
    ids = [job.id for job in task.jobs]
    assert (ids[0], ids[-1]) == ("t-000", "t-100")
    assert ids == sorted(ids)


NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}", fullmatch=True)
LINES = st.text(min_size=1, max_size=9)
COUNTS = st.integers(1, 10**12)
FRACTIONS = st.floats(0, 1, exclude_min=True, exclude_max=True)
NUMBERS = st.floats(0, 10**6, exclude_min=True) | st.integers(1, 10**6)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "rank": st.integers(1, 256),
    "alpha": st.none() | NUMBERS,
    "rslora": st.booleans(),
    "dropout": st.floats(0, 1, exclude_max=True),
    "learning_rate": NUMBERS,
    "schedule": st.sampled_from([schedule.value for schedule in Schedule]),
    "clip": st.none() | NUMBERS,
    "dpo_beta": NUMBERS,
    "batch_size": st.integers(1, 65_536),
    "seed": st.integers(0, 2**31 - 1),
}
JOBS = st.lists(st.fixed_dictionaries({}, optional=VALUES), min_size=1, max_size=3)
SEARCHES = st.fixed_dictionaries(
    {},
    optional={
        name: values | st.lists(values, min_size=1, max_size=2, unique=True)
        for name, values in VALUES.items()
    },
)
PATHS = LINES.filter(lambda text: "\0" not in text and text.strip() != "")
TASKS = st.fixed_dictionaries(
    {"model": PATHS},
    optional={
        "data": st.fixed_dictionaries(
            {"train": PATHS},
            optional={
                "validation": PATHS | st.none(),
                "validation_fraction": FRACTIONS,
                "train_limit": COUNTS | st.none(),
                "max_length": COUNTS,
                "completion_only": st.booleans(),
            },
        ),
        "targets": st.just("all-linear") | st.lists(PATHS, min_size=1, max_size=2),
        "budget": st.fixed_dictionaries({"epochs": NUMBERS})
        | st.fixed_dictionaries({"samples": COUNTS}),
        "reports": COUNTS,
    },
)
CHOICES: st.SearchStrategy[dict[str, Any]] = (
    st.just({})
    | st.builds(lambda s: {"search": s}, SEARCHES)
    | st.builds(lambda jobs: {"jobs": jobs}, JOBS)
)
STUDIES = st.fixed_dictionaries(
    {
        "name": NAMES,
        "data": st.just({"train": "t.jsonl"}),
        "tasks": st.dictionaries(
            NAMES,
            st.builds(lambda task, among: task | among, TASKS, CHOICES),
            min_size=1,
            max_size=2,
        ),
    },
    optional={
        "executor": st.fixed_dictionaries(
            {},
            optional={
                "threads": st.integers(1, 1024) | st.none(),
                "memory_gb": NUMBERS | st.none(),
            },
        ),
        "policy": st.sampled_from([*SETTINGS])
        | st.builds(lambda warmup: {"name": "alto", "warmup": warmup}, FRACTIONS),
        "prompts": st.lists(LINES, max_size=2),
    },
)


@settings(max_examples=40)
@given(document=STUDIES)
def test_a_resolved_study_loads_back_as_an_equal_one(
    document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    study = study_of(dump_document(document), folder)
    resolved = resolved_yaml(study)
    again = study_of(resolved, folder)
    assert again == study
    assert resolved_yaml(again) == resolved


def test_a_resolved_study_has_every_default(tmp_path: Path) -> None:
    text = resolved_yaml(study_of(WHOLE, tmp_path))
    for part in (Study, TaskSpec, DataSpec, ExecutorSpec):
        for name in part.model_fields:
            assert f"{name}:" in text or name in ("jobs", "draw")
    for hyperparameter in Hyperparameters.__dataclass_fields__:
        assert f"      {hyperparameter}: " in text


def test_the_most_jobs_that_may_be_written_out_are_not_too_many_to_load(tmp_path: Path) -> None:
    rate = 1.234567890123e-05
    jobs = [{"seed": 2**31 - 1, "learning_rate": rate, "alpha": rate, "clip": rate}] * 100
    task = {"model": "m", "data": {"train": "t"}, "jobs": jobs}
    study = Study.model_validate({"name": "s", "tasks": {"a": task}}, context=tmp_path)
    assert 100 * len(resolved_yaml(study)) < 4_000_000


def test_fields_from_python_are_those_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths are seen from where one is, and may be Path objects; tuples are lists."""
    monkeypatch.chdir(tmp_path)
    fields = {
        "name": "s",
        "model": Path("m.gguf"),
        "data": {"train": Path("t.jsonl")},
        "search": {"rank": (4, 8), "dropout": {"low": 0, "high": 0.1}},
        "draw": {"jobs": 3},
    }
    text = "search: {rank: [4, 8], dropout: {low: 0, high: 0.1}}\ndraw: {jobs: 3}\n"
    study = study_of(f"name: s\nmodel: m.gguf\ndata: {{train: t.jsonl}}\n{text}", tmp_path)
    assert as_study(fields) == study == as_study(study)
    path = tmp_path / "study.yaml"
    path.write_text(resolved_yaml(study))
    assert as_study(path) == as_study(str(path)) == study
    with pytest.raises(UserError, match=r"the study: search.rank\[1\]: value 0: rank must be"):
        as_study(fields | {"search": {"rank": (4, 0)}})
