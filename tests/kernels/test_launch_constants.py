"""The search for constants, with times that are given."""

from collections.abc import Callable, Mapping
from types import ModuleType

import pytest
import torch

from bench import launch_constants
from bench.launch_constants import TRIALS, Trial, improve
from bench.lora_cases import Batch, Operands, Shape, operands

MILLISECONDS = {2: 1.30, 3: 1.20, 4: 1.19, 5: 1.1999}


@pytest.fixture
def case() -> Operands:
    shape = Shape("tiny", "o", 64, (64,))
    return operands(shape, Batch("two jobs", (8, 24), (4, 8)), torch.device("cpu"))


@pytest.mark.parametrize(
    ("now", "values", "kept"), [(3, (2, 4), 4), (3, (2, 5), 3), (4, (3,), 4), (2, (2, 3, 4), 4)]
)
def test_a_value_is_kept_that_gains_more_than_noise(
    now: int, values: tuple[int, ...], kept: int, case: Operands, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("kernel.narrow")
    trial = Trial(module, "_STAGES", values)
    trial.set(now)

    def times(runs: Mapping[str, Callable[[], object]], _: int) -> dict[str, float]:
        seen.clear()
        found = {}
        for name, run in runs.items():
            run()
            found[name] = 1.0 if name == "frozen" else MILLISECONDS[seen.pop()]
        assert not seen
        return found

    seen: list[int] = []
    peers = {"frozen": lambda _: int, "ours": lambda _: lambda: seen.append(trial.now)}
    monkeypatch.setattr(launch_constants, "PEERS", peers)
    monkeypatch.setattr(launch_constants, "medians", times)
    assert improve(trial, [case]) == (kept != now)
    assert trial.now == kept


def test_every_constant_is_there() -> None:
    assert len({trial.name for trial in TRIALS if trial.now >= 0}) == len(TRIALS)
