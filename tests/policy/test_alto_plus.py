import math
from collections.abc import Callable, Sequence

import pytest

from alto_policy.events import Departure, LossReported
from alto_policy.policies import Settings, build
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.alto_plus import AltoPlusSettings, foreseen_loss
from alto_policy.types import Job, JobId
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
ROUNDS = AltoPlusSettings(rounds=(0.1, 0.5), keep=0.5, lookahead=0.0)
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


def test_one_round_without_lookahead_is_alto() -> None:
    plus = AltoPlusSettings(rounds=(0.1,), keep=0.25, lookahead=0.0)
    curve = level({"a": 4, "b": 1, "c": 1, "d": NAN})
    assert decided(plus, FOUR, curve) == decided(AltoSettings(warmup=0.1), FOUR, curve)


def test_one_report_past_two_rounds_decides_both() -> None:
    jobs = [job(name, reports=1 if name == "a" else 2) for name in "abcd"]
    settings = AltoPlusSettings(rounds=(0.1, 0.4), keep=0.5, lookahead=0.0)
    found = decided(settings, jobs[1:], level({"b": 1, "c": 2, "d": 3}))
    assert found == {
        "b": [(10, "pause")],
        "c": [(10, "pause"), (10, UNDER)],
        "d": [(10, "pause"), (10, UNDER)],
    }


def test_who_is_close_to_the_last_one_kept_stays() -> None:
    jobs = [job(name) for name in "abcdef"]
    losses = {"a": 1, "b": 1.5, "c": 1.6, "d": 1.65, "e": 1.66, "f": 2}
    settings = AltoPlusSettings(rounds=(0.1,), keep=0.3, lookahead=0.0, margin=0.1)
    found = decided(settings, jobs, level(losses))
    assert sorted(name for name, what in found.items() if (2, UNDER) in what) == ["e", "f"]


def test_at_least_so_many_are_kept() -> None:
    settings = AltoPlusSettings(rounds=(0.1,), keep=0.25, min_kept=3, lookahead=0.0)
    found = decided(settings, FOUR, level({"a": 4, "b": 1, "c": 2, "d": 3}))
    assert [name for name, what in found.items() if (2, UNDER) in what] == ["a"]


def test_a_job_that_falls_faster_is_kept_before_one_that_is_lower() -> None:
    def curve(job: Job, step: int) -> float:
        return 2.0 if job.id == "low" else 4.0 - math.log2(step)

    jobs = [job("low"), job("falling")]

    def stopped(lookahead: float) -> list[str]:
        settings = AltoPlusSettings(rounds=(0.1,), keep=0.5, lookahead=lookahead)
        found = decided(settings, jobs, curve)
        return [name for name, what in found.items() if (2, UNDER) in what]

    assert stopped(0.0) == ["falling"]  # 3 against 2 after 2 of 20 steps
    assert stopped(1.0) == ["low"]


def test_the_loss_that_is_foreseen_lies_on_a_line_over_the_logarithm_of_the_steps() -> None:
    spec = job("a", steps=64, reports=64)
    history = [
        LossReported(0.0, JobId("a"), step, 0.0, 8.0 - math.log2(step)) for step in range(1, 17)
    ]
    assert foreseen_loss(history, spec, 0.25, 0.0) == pytest.approx(4.0)
    assert foreseen_loss(history, spec, 0.25, 1.0) == pytest.approx(2.0)
    assert foreseen_loss(history, spec, 0.25, 0.5) == pytest.approx(3.0)
    assert foreseen_loss(history[15:], spec, 0.25, 1.0) == pytest.approx(4.0)  # nothing before


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
        ("lookahead", -0.1, "lookahead must be at least 0, got -0.1"),
        ("margin", NAN, "margin must be at least 0, got nan"),
    ],
)
def test_settings_of_the_rounds_quote_the_field_and_value_at_fault(
    field: str, value: object, message: str
) -> None:
    kind: Callable[..., AltoPlusSettings] = AltoPlusSettings
    with pytest.raises(ValueError, match=message):
        kind(**{field: value})
