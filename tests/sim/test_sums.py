"""Runs are the same whatever `sum` makes of floats: Python 3.12 has another rounding than 3.11."""

import builtins
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from alto_policy.policies import Settings
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.sjf import SjfSettings
from alto_sim.recipe import Recipe
from alto_sim.seeds import Simulation

CONDITIONS = """\
belief: { error: 0.2 }
faults: { node_mtbf: 90000, node_repair: 900 }
placement: { objective: mean-completion, widths: [1, 2] }
"""
MIX = """\
models:
  - backbone: Qwen2.5-32B
    num_gpus: 2
    search: { learning_rates: [1.0e-4, 1.0e-3], ranks: [16, 24], batch_sizes: [1, 3] }
lengths: { 300: 1 }
"""


def one_by_one(values: Iterable[Any], start: Any = 0) -> Any:
    """As Python 3.11 does it."""
    for value in values:
        start = start + value
    return start


def compensated(values: Iterable[Any], start: Any = 0) -> Any:
    """As exact as Python 3.12's, or more."""
    given = [*values, start]
    if any(type(value) is float for value in given):
        return math.fsum(given)
    return one_by_one(given)


@pytest.mark.parametrize("settings", [AltoSettings(), SjfSettings()], ids=["alto", "sjf"])
def test_a_run_does_not_depend_on_how_floats_are_added(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("c.yaml", CONDITIONS), ("mix.yaml", MIX)):
        (tmp_path / name).write_text(text)

    def files(add: Callable[..., Any]) -> list[bytes]:
        out = tmp_path / add.__name__
        out.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(builtins, "sum", add)
            tasks = out / "tasks.jsonl"
            Recipe(num_tasks=6, gap=500.0, mix=tmp_path / "mix.yaml").write(tasks)
            Simulation(path=tasks, num_gpus=4, policy=settings, conditions=tmp_path / "c.yaml").run(
                out / "run"
            )
        return [path.read_bytes() for path in (tasks, *sorted((out / "run").iterdir()))]

    assert files(one_by_one) == files(compensated)
