import math
from collections.abc import Callable, Sequence

import pytest

from alto_policy.decisions import ExitReason
from alto_policy.events import Departure
from alto_policy.exits import ExitRules, exit_reason
from alto_policy.policies import Settings, build
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.alto_plus import AltoPlusSettings
from alto_policy.types import Job
from tests.policy.cases import (
    UP,
    Ledger,
    ToyBackend,
    job,
    job_decisions,
    left,
    play,
    report,
    task,
)

UNDER, NAN = "underperformed", math.nan
ROUNDS = AltoPlusSettings(rounds=(0.1, 0.5), keep=0.5)
FOUR = [job(name) for name in "abcd"]


def decided(
    settings: Settings, jobs: Sequence[Job], curve: Callable[[Job, int], float], capacity: int = 99
) -> dict[str, list[tuple[int, str]]]:
    return job_decisions(play(build(settings), ToyBackend([task("t", jobs)], curve, capacity)))


def level(losses: dict[str, float]) -> Callable[[Job, int], float]:
    return lambda job, step: losses[job.id]


@pytest.mark.parametrize("capacity", [1, 2, 3, 99])
def test_each_round_keeps_its_share(capacity: int) -> None:
    curve = level({"a": 4, "b": 1, "c": 2, "d": 3})
    assert decided(ROUNDS, FOUR, curve, capacity) == {
        "a": [(2, "pause"), (2, UNDER)],
        "b": [(2, "pause"), (10, "pause")],
        "c": [(2, "pause"), (10, "pause"), (10, UNDER)],
        "d": [(2, "pause"), (2, UNDER)],
    }


def test_one_round_of_equal_batches_is_alto() -> None:
    plus = AltoPlusSettings(rounds=(0.1,), keep=0.25)
    curve = level({"a": 4, "b": 1, "c": 1, "d": NAN})
    assert decided(plus, FOUR, curve) == decided(AltoSettings(warmup=0.1), FOUR, curve)


def test_a_leader_goes_on_however_far_its_training_loss_is_below() -> None:
    """By the paper's gap the best job of all is stopped as overfitted."""
    history = [report("a", 2, train=0.5, val=1.0), report("a", 4, train=0.4, val=0.9)]
    assert exit_reason(history, ExitRules()) is ExitReason.OVERFITTED
    assert exit_reason(history, AltoPlusSettings().rules) is None


def test_one_report_past_two_rounds_decides_both() -> None:
    jobs = [job(name, reports=1 if name == "a" else 2) for name in "abcd"]
    settings = AltoPlusSettings(rounds=(0.1, 0.4), keep=0.5)
    found = decided(settings, jobs[1:], level({"b": 1, "c": 2, "d": 3}))
    assert found == {
        "b": [(10, "pause")],
        "c": [(10, "pause"), (10, UNDER)],
        "d": [(10, "pause"), (10, UNDER)],
    }


def test_at_least_so_many_are_kept() -> None:
    settings = AltoPlusSettings(rounds=(0.1,), keep=0.25, min_kept=3)
    found = decided(settings, FOUR, level({"a": 4, "b": 1, "c": 2, "d": 3}))
    assert [name for name, what in found.items() if (2, UNDER) in what] == ["a"]


@pytest.mark.parametrize(
    ("handicap", "kept"), [(0.0, ["small", "small"]), (0.02, ["large", "small"])]
)
def test_large_batches_have_a_handicap_that_wanes(handicap: float, kept: list[str]) -> None:
    """What 64 samples a step lack by it: 0.22 of the logarithm of a loss at 7 %, 0.06 at half."""
    lack = {"small": 1.0, "large": 1.15}
    for share, winner in zip((0.07, 0.5), kept, strict=True):
        settings = AltoPlusSettings(rounds=(share,), keep=0.5, handicap=handicap)
        jobs = [job("small", steps=100, reports=100)]
        jobs.append(job("large", batch_size=64, steps=100, reports=100))
        found = decided(settings, jobs, level(lack))
        assert [name for name in lack if found[name][-1][1] != UNDER] == [winner]


def test_what_was_interrupted_at_a_round_waits_for_the_others() -> None:
    ledger = Ledger(ROUNDS, [job("a"), job("b")])
    ledger.tell(UP, report("a", 2, 1.0), left("a", Departure.PAUSED))
    assert ledger.tell(report("b", 1, 2.0)) == ()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rounds", (), r"rounds must be in \(0, 1\), at least one, and rise, got \(\)"),
        ("rounds", (0.2, 0.1), "rise"),
        ("rounds", (0.5, 1.0), "rise"),
        ("keep", 0.0, r"keep must be in \(0, 1\], got 0.0"),
        ("min_kept", 0, "min_kept must be at least 1, got 0"),
        ("handicap", -0.1, "handicap must be at least 0, got -0.1"),
    ],
)
def test_settings_of_the_rounds_quote_the_field_and_value_at_fault(
    field: str, value: object, message: str
) -> None:
    kind: Callable[..., AltoPlusSettings] = AltoPlusSettings
    with pytest.raises(ValueError, match=message):
        kind(**{field: value})
