"""The file of measured rows: what is written is read back, and every fault is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alto_runs.errors import UserError
from alto_runs.profile import (
    GemmRow,
    StepRow,
    Trained,
    dump_rows,
    read_profile,
    read_profiles,
)
from tests.runs.costs.profiles import LLAMA_8B, SHIPPED, step_row


def test_rows_survive_the_file(tmp_path: Path) -> None:
    rows = read_profile(SHIPPED)
    copy = tmp_path / "copy.jsonl"
    copy.write_text(dump_rows(rows), encoding="utf-8")
    assert read_profile(copy) == rows
    assert read_profiles([copy, SHIPPED]) == rows + rows


def test_shipped_rows_are_the_recorded_ones() -> None:
    """Tokens a second, bytes and TFLOP/s as they stand in the published tables."""
    steps = [row for row in read_profile(SHIPPED) if isinstance(row, StepRow)]
    assert len(set(steps)) == len(steps)
    tables = [row for row in steps if row.machine.commit is None]  # published, not of this code
    found = {(row.model.name, row.kernels, row.batch_size): row for row in tables}
    assert len(found) == len(tables)
    largest, smallest = found["Llama-3.1-8B", "peft", 8], found["SmolLM2-135M", "peft", 64]
    assert largest.tokens / largest.seconds == pytest.approx(8238, rel=1e-4)
    assert smallest.tokens / smallest.seconds == pytest.approx(75_655, rel=1e-4)
    assert (largest.peak_bytes, smallest.peak_bytes) == (62_000_000_000, None)
    products = [row for row in read_profile(SHIPPED) if isinstance(row, GemmRow)]
    assert products[0].flops_per_second == pytest.approx(762e12, rel=1e-4)


def test_sizes_of_a_known_model() -> None:
    """8.03 billion weights; 2,621,440 of an adapter for a unit of rank (its published size)."""
    assert LLAMA_8B.parameters == pytest.approx(8.03e9, rel=1e-3)
    assert LLAMA_8B.adapter_parameters == 2_621_440


def changed(**values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda row: {**row, **values}


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        pytest.param(changed(kind="StepRows"), "expected a kind of StepRow", id="kind"),
        pytest.param(changed(seconds=-1.0), "seconds must be above 0, got -1.0", id="negative"),
        pytest.param(changed(seconds="nan"), "seconds must be above 0, got nan", id="not finite"),
        pytest.param(changed(jobs=1.5), "jobs: expected int, got 1.5", id="type"),
        pytest.param(changed(rank=0), "rank must be at least 1", id="lora without rank"),
        pytest.param(changed(trained="none"), "rank must be 0", id="rank of nothing"),
        pytest.param(changed(speed=1), "StepRow has no field 'speed'", id="unknown"),
        pytest.param(
            lambda row: {**row, "machine": {**row["machine"], "gpu": " "}},
            "machine: gpu must be the name of a GPU",
            id="inner",
        ),
        pytest.param(
            lambda row: {key: row[key] for key in row if key != "dtype"},
            "StepRow needs the field 'dtype'",
            id="missing",
        ),
    ],
)
def test_a_fault_is_told_with_file_line_and_field(
    tmp_path: Path, damage: Callable[[dict[str, Any]], dict[str, Any]], fault: str
) -> None:
    row = step_row(jobs=2, rank=8, seconds=0.5)
    assert row.trained is Trained.LORA
    good = dump_rows([row])
    path = tmp_path / "mine.jsonl"
    path.write_text(good + "\n" + json.dumps(damage(json.loads(good))) + "\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_profile(path)
    assert f"{path}: line 3: " in str(caught.value)
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        pytest.param(b"", "the profile is empty", id="empty"),
        pytest.param(b"{", "line 1: not JSON", id="torn"),
        pytest.param(b"\xff", "not a profile", id="binary"),
        pytest.param(b"[1]", "line 1: expected an object", id="list"),
        pytest.param(None, "cannot read this profile", id="absent"),
    ],
)
def test_what_is_no_profile(tmp_path: Path, content: bytes | None, fault: str) -> None:
    path = tmp_path / "mine.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=fault):
        read_profile(path)
