"""Runs are the same whatever `sum` makes of floats: Python 3.12 has another rounding than 3.11."""

import builtins
import math
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from alto_policy.kinds.max_min import Claim, Way, max_min
from alto_policy.policies import Settings
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.sjf import SjfSettings
from alto_sim.seeds import Simulation
from alto_sim.workloads.recipe import Recipe

RECORDED = Path("traces/recorded/ropes-alto")
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


def made(out: Path, add: Callable[..., Any], make: Callable[[Path], None]) -> list[bytes]:
    """The files that come of it where `sum` adds so."""
    out = out / add.__name__
    out.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "sum", add)
        make(out)
    return [path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()]


@pytest.mark.parametrize("settings", [AltoSettings(), SjfSettings()], ids=["alto", "sjf"])
def test_a_run_does_not_depend_on_how_floats_are_added(settings: Settings, tmp_path: Path) -> None:
    for name, text in (("c.yaml", CONDITIONS), ("mix.yaml", MIX)):
        (tmp_path / name).write_text(text)

    def make(out: Path) -> None:
        tasks, conditions = out / "tasks.jsonl", tmp_path / "c.yaml"
        Recipe(num_tasks=6, gap=500.0, mix=tmp_path / "mix.yaml").write(tasks)
        Simulation(path=tasks, num_gpus=4, policy=settings, conditions=conditions).run(out / "run")

    assert made(tmp_path, one_by_one, make) == made(tmp_path, compensated, make)


def test_nor_do_shares_of_several_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """By which `gavel` decides, and a load on several kinds is told."""
    dice = random.Random(0)
    claims = [
        Claim(
            tuple(
                Way(round(dice.uniform(0.2, 4), 3), takes)
                for takes in ((w, 0, 0), (0, w, 0), (0, 0, w))
            )
        )
        for w in (1, 1, 1, 2, 2, 4) * 2
    ]

    def shares(add: Callable[..., Any]) -> list[tuple[float, ...]]:
        with monkeypatch.context() as patch:
            patch.setattr(builtins, "sum", add)
            return max_min(claims, (5.0, 4.0, 4.0))

    assert shares(one_by_one) == shares(compensated)


def test_nor_does_a_recorded_run_once_more(tmp_path: Path) -> None:
    """Its times are fitted, and the mean length of its samples is no whole number."""

    def make(out: Path) -> None:
        Simulation(path=RECORDED).run(out / "run")

    assert made(tmp_path, one_by_one, make) == made(tmp_path, compensated, make)
