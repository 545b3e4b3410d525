"""Every mistake in a study file is one line with file, field, value and what would be right."""

from pathlib import Path

import pytest

from alto_policy.policies import SETTINGS
from tests.runs.faulty import WHOLE, mistake

HYPERPARAMETERS = (
    "rank, alpha, rslora, dropout, learning_rate, schedule, rise, weight_decay, beta1, beta2, "
    "epsilon, clip, dpo_beta, batch_size, accumulation, seed"
)
A_NAME = "expected 80 letters, digits, '.', '_' and '-' at most, the first no '.' or '-'"
EXTREME = "9" * 90
A_GRID = "expected hyper-parameters with a value, a list of values or a range"
A_POLICY = "expected the name of a policy, or fields with the 'name' of one"
A_MODEL = "expected a folder, a .gguf file or a name of the hub"
TARGETS = "expected all-linear or a list of names such as q_proj"
EITHER = "expected either 'epochs' or 'samples', and only one"
POLICIES = ", ".join(SETTINGS)


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("modle: x", "modle: value 'x': unknown key, did you mean 'model'?"),
        ("1: 2", "key 1: expected text"),
        ("true: 2", "key 1: expected text"),
        (
            "targets: all",
            f"targets: value 'all': {TARGETS}",
        ),
        ("targets: []", f"targets: value []: {TARGETS}"),
        (
            "targets: [k, 3]",
            "targets[1]: value 3: expected the name of a linear layer such as q_proj",
        ),
        (
            "targets: ['']",
            "targets[0]: value '': expected the name of a linear layer such as q_proj",
        ),
        ("reports: 0", "reports: value 0: expected at least 1"),
        ("reports: 1.5", "reports: value 1.5: expected a whole number"),
        ("reports: 3.0", "reports: value 3.0: expected a whole number"),
        ("reports: true", "reports: value true: expected a whole number"),
        ("reports: '3'", "reports: value '3': expected a whole number"),
        ("reports: null", "reports: value null: expected a whole number"),
        ("reports: 1000000000001", "reports: value 1000000000001: expected at most 1000000000000"),
        ("budget: 3", "budget: value 3: expected a mapping, { field: value }"),
        ("budget: {}", f"budget: value {{}}: {EITHER}"),
        (
            "budget: {epochs: 1, samples: 2}",
            f"budget: value {{'epochs': 1, 'samples': 2}}: {EITHER}",
        ),
        ("budget: {epoch: 1}", "budget.epoch: value 1: unknown key, did you mean 'epochs'?"),
        ("budget: {1: 2}", "budget: key 1: expected text"),
        ("budget: {epochs: 0}", "budget.epochs: value 0: expected above 0"),
        ("budget: {epochs: '3'}", "budget.epochs: value '3': expected a number"),
        ("budget: {epochs: true}", "budget.epochs: value true: expected a number"),
        ("budget: {epochs: .inf}", "budget.epochs: value inf: expected a finite number"),
        ("budget: {epochs: .nan}", "budget.epochs: value nan: expected a finite number"),
        ("budget: {epochs: 1e300}", "budget.epochs: value 1e+300: expected at most 1000000"),
        ("budget: {samples: 0}", "budget.samples: value 0: expected at least 1"),
        ("budget: {samples: 1.5}", "budget.samples: value 1.5: expected a whole number"),
        ("executor: 2", "executor: value 2: expected a mapping, { field: value }"),
        ("executor: null", "executor: value null: expected a mapping, { field: value }"),
        ("executor: {thread: 2}", "executor.thread: value 2: unknown key, did you mean 'threads'?"),
        (
            "executor: {device: gpu}",
            "executor.device: value 'gpu': expected 'auto', 'cpu' or 'cuda'",
        ),
        (
            "executor: {dtype: float16}",
            "executor.dtype: value 'float16': expected 'auto', 'float32' or 'bfloat16'",
        ),
        ("executor: {threads: 0}", "executor.threads: value 0: expected at least 1"),
        ("executor: {threads: 100000}", "executor.threads: value 100000: expected at most 1024"),
        ("executor: {max_jobs: two}", "executor.max_jobs: value 'two': expected a whole number"),
        ("executor: {memory_gb: 0}", "executor.memory_gb: value 0: expected above 0"),
        ("prompts: hello", "prompts: value 'hello': expected a list"),
        ("prompts: [3]", "prompts[0]: value 3: expected text"),
        ("prompts: [a, '']", "prompts[1]: value '': expected text"),
    ],
)
def test_fields_of_the_study(field: str, line: str, tmp_path: Path) -> None:
    assert mistake(WHOLE + field, tmp_path) == line


@pytest.mark.parametrize(
    ("search", "line"),
    [
        ("3", f"search: value 3: {A_GRID}"),
        ("[1]", f"search: value [1]: {A_GRID}"),
        ("{lr: 1}", f"search.lr: value 1: unknown key, expected one of {HYPERPARAMETERS}"),
        (
            "{learning_rat: [1]}",
            "search.learning_rat: value [1]: unknown key, did you mean 'learning_rate'?",
        ),
        ("{batch_size: [65537]}", "search.batch_size[0]: value 65537: expected 65,536 at most"),
        ("{rank: []}", "search.rank: value []: expected at least one value"),
        ("{rank: [8, 16, 8]}", "search.rank[2]: value 8: this value stands twice in the list"),
        (
            "{dropout: [0, 0.0]}",
            "search.dropout[1]: value 0.0: this value stands twice in the list",
        ),
        (
            "{rank: {min: 1}}",
            "search.rank.min: value 1: unknown key, expected one of low, high, log",
        ),
        ("{rank: {low: 1}}", "search.rank: value {'low': 1}: expected a number as `high`"),
        ("{rank: {low: a, high: 2}}", "search.rank.low: value 'a': expected a number"),
        ("{rank: {low: 1.5, high: 2}}", "search.rank.low: value 1.5: expected a whole number"),
        (
            "{rank: {low: 1, high: 300}}",
            "search.rank.high: value 300: rank must be from 1 to 256",
        ),
        (
            "{dropout: {low: 0.1, high: 0.1}}",
            "search.dropout.high: value 0.1: expected more than `low`, 0.1",
        ),
        (
            "{dropout: {low: 0, high: 0.1, log: true}}",
            "search.dropout.low: value 0: expected a number above 0, of which there is a logarithm",
        ),
        (
            "{dropout: {low: 0, high: 0.1, log: 1}}",
            "search.dropout.log: value 1: expected true or false",
        ),
        (
            "{rslora: {low: 0, high: 1}}",
            "search.rslora: value {'low': 0, 'high': 1}: expected a value or a list of values",
        ),
        (
            "{rank: {low: 1, high: 2}}",
            "search.rank: value {'low': 1, 'high': 2}: "
            "a range needs `draw: { jobs: N }`, how many are drawn of the search",
        ),
        (
            "{rank: {low: 1, high: 2}}\ndraw: {jobs: 3}",
            "draw.jobs: value 3: the search has no more than 2 jobs",
        ),
        ("{rank: [1, 2]}\ndraw: {jobs: 0}", "draw.jobs: value 0: expected at least 1"),
        ("{rank: [1, 2]}\ndraw: {seed: 0}", "draw.jobs: this field is missing"),
        ("{rank: [1, 2]}\ndraw: 2", "draw: value 2: expected a mapping, { field: value }"),
        ("{rank: [[1]]}", "search.rank[0]: value [1]: expected a whole number"),
        ("{rank: 4.5}", "search.rank: value 4.5: expected a whole number"),
        ("{rank: true}", "search.rank: value true: expected a whole number"),
        ("{rank: [4, 0]}", "search.rank[1]: value 0: rank must be from 1 to 256"),
        ("{rank: 257}", "search.rank: value 257: rank must be from 1 to 256"),
        ("{alpha: 0}", "search.alpha: value 0: alpha must be above 0"),
        ("{rslora: 1}", "search.rslora: value 1: expected true or false"),
        ("{dropout: 1}", "search.dropout: value 1: dropout must be in [0, 1)"),
        ("{learning_rate: 1e38}", "search.learning_rate: value 1e+38: expected 1e+15 at most"),
        ("{learning_rate: -1}", "search.learning_rate: value -1: learning_rate must be at least 0"),
        ("{learning_rate: '1e-4'}", "search.learning_rate: value '1e-4': expected a number"),
        ("{learning_rate: .inf}", "search.learning_rate: value inf: expected a finite number"),
        ("{learning_rate: nan}", "search.learning_rate: value 'nan': expected a finite number"),
        (
            f"{{learning_rate: {EXTREME}}}",
            f"search.learning_rate: value {EXTREME[:57]}...: expected 1e+15 at most",
        ),
        (
            "{schedule: cosin}",
            "search.schedule: value 'cosin': expected one of constant, linear, cosine",
        ),
        ("{rise: 1.0}", "search.rise: value 1.0: rise must be in [0, 1)"),
        (
            "{weight_decay: -0.1}",
            "search.weight_decay: value -0.1: weight_decay must be at least 0",
        ),
        ("{beta1: 1}", "search.beta1: value 1: beta1 must be in [0, 1)"),
        ("{beta2: -1}", "search.beta2: value -1: beta2 must be in [0, 1)"),
        ("{epsilon: 0}", "search.epsilon: value 0: epsilon must be in (0, 1)"),
        ("{clip: [null, 0]}", "search.clip[1]: value 0: clip must be above 0"),
        ("{clip: .inf}", "search.clip: value inf: expected a finite number"),
        ("{batch_size: 0}", "search.batch_size: value 0: batch_size must be at least 1"),
        ("{accumulation: 0}", "search.accumulation: value 0: accumulation must be at least 1"),
        ("{seed: 2147483648}", "search.seed: value 2147483648: seed must be from 0 to 2^31 - 1"),
        (
            f"{{rank: [1, 2], seed: {list(range(5001))}}}",
            "search: value {'rank': [1, 2], 'seed': [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1...: "
            "the grid has 10002 jobs, expected 10000 at most",
        ),
    ],
    ids=lambda text: text[:40],
)
def test_fields_of_the_search(search: str, line: str, tmp_path: Path) -> None:
    assert mistake(f"{WHOLE}search: {search}", tmp_path) == line


@pytest.mark.parametrize(
    ("jobs", "line"),
    [
        ("[]", "jobs: value []: expected a list of 1 to 10000 jobs"),
        ("{rank: 4}", "jobs: value {'rank': 4}: expected a list of 1 to 10000 jobs"),
        ("[{}, 3]", "jobs[1]: value 3: expected hyper-parameters with their values"),
        ("[{rank: 0}]", "jobs[0].rank: value 0: rank must be from 1 to 256"),
        ("[{rnk: 4}]", "jobs[0].rnk: value 4: unknown key, did you mean 'rank'?"),
        (
            "[{rank: 4}]\nsearch: {rank: 4}",
            "jobs: value [{'rank': 4}]: expected either 'search' or 'jobs', not both",
        ),
        (
            "[{rank: 4}]\ndraw: {jobs: 1}",
            "draw: value {'jobs': 1}: expected 'search', from which jobs are drawn, not 'jobs'",
        ),
    ],
)
def test_fields_of_jobs(jobs: str, line: str, tmp_path: Path) -> None:
    assert mistake(f"{WHOLE}jobs: {jobs}", tmp_path) == line


@pytest.mark.parametrize(
    ("policy", "line"),
    [
        ("altoo", f"policy: value 'altoo': expected one of {POLICIES}"),
        ("3", f"policy: value 3: {A_POLICY}"),
        ("{keep: 1}", f"policy: value {{'keep': 1}}: {A_POLICY}"),
        ("{name: [a]}", f"policy.name: value ['a']: expected one of {POLICIES}"),
        ("{name: fifo, keep: 1}", "policy.keep: value 1: unknown key, expected no keys"),
        ("{name: alto, kep: 1}", "policy.kep: value 1: unknown key, did you mean 'keep'?"),
        ("{name: alto, warmup: 0}", "policy.warmup: value 0: warmup must be in (0, 1)"),
        ("{name: alto, warmup: x}", "policy.warmup: value 'x': expected a number"),
        ("{name: alto, keep: 2}", "policy.keep: value 2: keep must be in (0, 1]"),
        ("{name: alto, min_kept: 0}", "policy.min_kept: value 0: min_kept must be at least 1"),
        ("{name: alto, rules: 3}", "policy.rules: value 3: expected a mapping, { field: value }"),
        (
            "{name: alto, rules: {windw: 2}}",
            "policy.rules.windw: value 2: unknown key, did you mean 'window'?",
        ),
        (
            "{name: alto, rules: {window: 1}}",
            "policy.rules.window: value 1: window must be at least 2",
        ),
        (
            "{name: alto, rules: {slope: .nan}}",
            "policy.rules.slope: value nan: expected a finite number",
        ),
    ],
)
def test_fields_of_the_policy(policy: str, line: str, tmp_path: Path) -> None:
    assert mistake(f"{WHOLE}policy: {policy}", tmp_path) == line


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("x.jsonl", "data: value 'x.jsonl': expected a mapping, { field: value }"),
        ("{}", "data.train: this field is missing"),
        ("{trian: t}", "data.trian: value 't': unknown key, did you mean 'train'?"),
        ("{train: ''}", "data.train: value '': expected the path of a file"),
        ("{train: [a]}", "data.train: value ['a']: expected the path of a file"),
        ("{train: t, validation: 3}", "data.validation: value 3: expected the path of a file"),
        ('{train: "a\\0b"}', r"data.train: value 'a\x00b': expected the path of a file"),
        (
            "{train: t, validation_fraction: 0}",
            "data.validation_fraction: value 0: expected above 0",
        ),
        (
            "{train: t, validation_fraction: 1}",
            "data.validation_fraction: value 1: expected below 1",
        ),
        ("{train: t, train_limit: 0}", "data.train_limit: value 0: expected at least 1"),
        ("{train: t, validation_limit: 0}", "data.validation_limit: value 0: expected at least 1"),
        ("{train: t, max_length: 0}", "data.max_length: value 0: expected at least 1"),
        ("{train: t, completion_only: 1}", "data.completion_only: value 1: expected true or false"),
    ],
)
def test_fields_of_the_data(data: str, line: str, tmp_path: Path) -> None:
    assert mistake(f"name: s\nmodel: m\ndata: {data}", tmp_path) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("model: m\ndata: {train: t}", "name: this field is missing"),
        ("name: s\ndata: {train: t}", "model: this field is missing"),
        ("name: s\nmodel: m", "data: this field is missing"),
        (
            "name: s\nmodle: m\ndata: {train: t}",
            "modle: value 'm': unknown key, did you mean 'model'?",
        ),
        ("name: null\nmodel: m\ndata: {train: t}", "name: value null: expected text"),
        ("name: [s]\nmodel: m\ndata: {train: t}", "name: value ['s']: expected text"),
        ("name: 1e5\nmodel: m\ndata: {train: t}", "name: value 100000.0: expected text"),
        ("name: 2024-01-01\nmodel: m\ndata: {train: t}", "name: value 2024-01-01: expected text"),
        ("name: ../s\nmodel: m\ndata: {train: t}", f"name: value '../s': {A_NAME}"),
        ("name: .s\nmodel: m\ndata: {train: t}", f"name: value '.s': {A_NAME}"),
        ("name: -s\nmodel: m\ndata: {train: t}", f"name: value '-s': {A_NAME}"),
        ("name: a/b\nmodel: m\ndata: {train: t}", f"name: value 'a/b': {A_NAME}"),
        ("name: 'a\n\n  b'\nmodel: m\ndata: {train: t}", rf"name: value 'a\nb': {A_NAME}"),
        (
            f"name: {'s' * 81}\nmodel: m\ndata: {{train: t}}",
            f"name: value '{'s' * 56}...: {A_NAME}",
        ),
        ("name: s\nmodel: ''\ndata: {train: t}", f"model: value '': {A_MODEL}"),
        ("name: s\nmodel: 3\ndata: {train: t}", "model: value 3: expected text"),
        ('name: s\nmodel: "a\\0b"\ndata: {train: t}', rf"model: value 'a\x00b': {A_MODEL}"),
    ],
)
def test_names_and_fields_that_are_needed(text: str, line: str, tmp_path: Path) -> None:
    assert mistake(text, tmp_path) == line


@pytest.mark.parametrize(
    ("tasks", "line"),
    [
        ("tasks: {}", "tasks: value {}: expected at least one"),
        ("tasks: [a]", "tasks: value ['a']: expected names with their fields"),
        ("tasks: {a: 3}", "tasks.a: value 3: expected a mapping, { field: value }"),
        ("tasks: {3: {}}", "tasks: key 3: expected text"),
        ("tasks: {../a: {}}", f"tasks: key '../a': {A_NAME}"),
        ("tasks: {<script>: {}}", f"tasks: key '<script>': {A_NAME}"),
        ("tasks: {a: {reports: 0}}", "tasks.a.reports: value 0: expected at least 1"),
        ("reports: 0\ntasks: {a: {}}", "reports: value 0: expected at least 1"),
        ("reports: 0\ntasks: {a: {reports: 3}, b: {}}", "reports: value 0: expected at least 1"),
        ("tasks: {a: {data: 3}}", "tasks.a.data: value 3: expected a mapping, { field: value }"),
        (
            "tasks: {a: {data: {max_length: 0}}}",
            "tasks.a.data.max_length: value 0: expected at least 1",
        ),
        ("tasks: {a: {modl: x}}", "tasks.a.modl: value 'x': unknown key, did you mean 'model'?"),
        ("tasks: {a: {1: 2}}", "tasks.a: key 1: expected text"),
        (
            "tasks: {a: {policy: fifo}}",
            "tasks.a.policy: value 'fifo': unknown key, "
            "expected one of model, data, objective, targets, search, draw, jobs, budget, reports",
        ),
        (
            "tasks: {a: {search: {rank: 4}, jobs: [{}]}}",
            "tasks.a.jobs: value [{}]: expected either 'search' or 'jobs', not both",
        ),
    ],
)
def test_fields_of_tasks(tasks: str, line: str, tmp_path: Path) -> None:
    assert mistake(WHOLE + tasks, tmp_path) == line


@pytest.mark.parametrize(
    ("text", "field", "told"),
    [
        (f"tasks: {{{', '.join(f't{n}: 3' for n in range(1001))}}}", "tasks", "it has 1001, "),
        (
            f"search: {{seed: {list(range(100))}, batch_size: {list(range(1, 101))}}}\n"
            f"tasks: {{{', '.join(f't{n}: {{}}' for n in range(10))}, last: {{jobs: [{{}}]}}}}",
            "tasks",
            "they have 100001 jobs in all, ",
        ),
        (f"prompts: [{'a, ' * 101}]", "prompts", "expected 100 prompts of 20000 characters in all"),
        (f"prompts: [{'a' * 10_001}, {'b' * 10_000}]", "prompts", "expected 100 prompts of 20000 "),
    ],
    ids=["tasks", "jobs", "prompts", "characters"],
)
def test_there_are_not_too_many(text: str, field: str, told: str, tmp_path: Path) -> None:
    line = mistake(WHOLE + text, tmp_path)
    assert line.startswith(f"{field}: value ")
    assert f"...: {told}" in line
    assert line.endswith(" at most")


def test_a_field_that_a_task_lacks(tmp_path: Path) -> None:
    text = "name: s\ntasks: {a: {model: m, data: {train: t}}, b: {model: m}}"
    assert mistake(text, tmp_path) == "tasks.b.data: this field is missing"
