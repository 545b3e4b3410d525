"""A study's data as the simulator sees it, beside what its tokenizer makes of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from alto_runs.study import DataSpec, load_study
from alto_sim.workloads.loading import load_workload
from alto_sim.workloads.text_lengths import DataSize, estimated_size

CLOSE = 0.1  # relative


def size_of(folder: Path, rows: list[dict[str, Any]], **chosen: Any) -> DataSize:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return estimated_size(DataSpec(train=path, **chosen))


@pytest.mark.parametrize(
    ("row", "tokens", "longest"),
    [
        ({"text": "a" * 90}, 20, 20),
        ({"text": "a" * 90_000}, 1024, 1024),
        ({"prompt": "a" * 80, "completion": "a" * 10}, 50, 50),
        ({"messages": [{"role": r, "content": "a" * 45} for r in ("user", "assistant")]}, 50, 50),
        ({"prompt": "a" * 45, "chosen": "a" * 45, "rejected": "a" * 90}, 50 + 60, 220),
    ],
    ids=["text", "cut off", "completion", "chat", "pair"],
)
def test_characters_are_counted(
    row: dict[str, Any], tokens: int, longest: int, tmp_path: Path
) -> None:
    found = size_of(tmp_path, [row] * 4, validation_fraction=0.25)
    assert (found.samples, found.longest) == (3, longest)
    assert (found.tokens.per_sample, found.tokens.validation) == (tokens, tokens)


def test_limits_take_records_evenly(tmp_path: Path) -> None:
    rows = [{"text": "a" * 9 * (1 + i)} for i in range(12)]
    found = size_of(tmp_path, rows, validation_fraction=0.5, train_limit=3, validation_limit=2)
    assert found.samples == 3
    assert found.tokens.per_sample == (14 + 18 + 22) / 3
    assert found.tokens.validation == 2 + 8
    assert found.longest == 22


@pytest.mark.smollm
@pytest.mark.parametrize("example", ["demo", "preferences"])
def test_a_real_tokenizer_counts_about_as_many(example: str) -> None:
    from alto_exec.preparation import prepare

    path = Path("examples") / example / "study.yaml"
    (real,) = prepare(load_study(path))
    (arrival,) = load_workload(path).workload.arrivals
    found, expected = arrival.task, real.task
    assert [job.steps for job in found.jobs] == [job.steps for job in expected.jobs]
    assert found.tokens is not None
    assert expected.tokens is not None
    assert found.tokens.per_sample == pytest.approx(expected.tokens.per_sample, rel=CLOSE)
    assert found.tokens.validation == pytest.approx(expected.tokens.validation, rel=CLOSE)
    assert found.max_length == pytest.approx(expected.max_length, rel=2 * CLOSE)
