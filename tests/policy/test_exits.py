import math
import random
from dataclasses import fields

import pytest

from alto_policy.decisions import ExitReason
from alto_policy.events import LossReported
from alto_policy.exits import (
    ExitRules,
    ExitWatch,
    exit_reason,
    is_diverging,
    is_overfitting,
    smooth,
)
from alto_policy.types import JobId

RULES = ExitRules(
    smoothing=1.0, window=2, slope=0.5, divergence_patience=2, gap=0.5, overfitting_patience=2
)
DIVERGED, OVERFITTED = ExitReason.DIVERGED, ExitReason.OVERFITTED


def history(train: list[float], val: list[float]) -> list[LossReported]:
    pairs = zip(train, val, strict=True)
    return [LossReported(float(i), JobId("a"), i, t, v) for i, (t, v) in enumerate(pairs, 1)]


@pytest.mark.parametrize(
    ("train", "val", "expected"),
    [
        pytest.param([3, 2, 1], [3, 2, 1], None, id="healthy"),
        pytest.param([3, math.nan], [3, 3], ExitReason.NON_FINITE, id="train loss is nan"),
        pytest.param([3, 3], [3, math.inf], ExitReason.NON_FINITE, id="validation loss is inf"),
        pytest.param([1, 2], [1, 2], None, id="both rose once"),
        pytest.param([1, 2, 3], [1, 2, 3], DIVERGED, id="both rose twice"),
        pytest.param([1, 1.5, 2], [1, 1.5, 2], DIVERGED, id="rose by exactly the slope"),
        pytest.param([1, 1.5, 1.9], [1, 1.5, 2], None, id="train rose by less than the slope"),
        pytest.param([1, 1.5, 2], [1, 1.5, 1.9], None, id="validation rose by less than the slope"),
        pytest.param([4, 5, 6], [5, 5, 5], None, id="only train rises"),
        pytest.param([5, 5, 5], [4, 5, 6], None, id="only validation rises"),
        pytest.param([1, 2, 3, 2, 3], [1, 2, 3, 2, 3], None, id="a fall resets the patience"),
        pytest.param([3, 2, 3, 4], [3, 2, 3, 4], DIVERGED, id="rose twice after a fall"),
        pytest.param([2, 2], [2, 4], None, id="wide gap once"),
        pytest.param([2, 2], [4, 4], OVERFITTED, id="wide gap twice"),
        pytest.param([2, 2], [3, 3], None, id="exactly the gap"),
        pytest.param([2, 2, 2], [4, 2, 4], None, id="a narrow gap resets the patience"),
        pytest.param([2, 2, 2, 2], [9, 2, 4, 4], OVERFITTED, id="wide gap twice at the end"),
        pytest.param([1, 2, 3], [2, 4, 6], DIVERGED, id="divergence is named before overfitting"),
        pytest.param([2], [9], None, id="one report settles nothing"),
    ],
)
def test_exit_reason(train: list[float], val: list[float], expected: ExitReason | None) -> None:
    assert exit_reason(history(train, val), RULES) == expected


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        pytest.param([1, 2.5, 2], DIVERGED, id="line through three points rises by the slope"),
        pytest.param([1, 2.5, 1.9], None, id="line through three points is flatter"),
        pytest.param([1, 2], None, id="fewer points than the window"),
    ],
)
def test_slope_is_that_of_a_line_through_the_window(
    losses: list[float], expected: ExitReason | None
) -> None:
    rules = ExitRules(smoothing=1.0, window=3, slope=0.5, divergence_patience=1, gap=9)
    assert exit_reason(history(losses, losses), rules) == expected


@pytest.mark.parametrize(
    ("patience", "expected"),
    [pytest.param(3, OVERFITTED, id="reached"), pytest.param(4, None, id="not reached")],
)
def test_overfitting_has_its_own_patience(patience: int, expected: ExitReason | None) -> None:
    rules = ExitRules(divergence_patience=1, overfitting_patience=patience)
    assert exit_reason(history([1, 1, 1], [2, 2, 2]), rules) == expected


def test_gap_is_taken_over_the_smoothed_train_loss() -> None:
    rules = ExitRules(smoothing=0.5, gap=0.5, overfitting_patience=1)
    assert exit_reason(history([4, 2], [4, 4.5]), rules) is None  # 4.5 is not above 1.5 * 3
    assert exit_reason(history([4, 2], [4, 4.6]), rules) is OVERFITTED


def test_without_a_gap_nobody_overfits_and_other_rules_hold() -> None:
    rules = ExitRules(gap=None, overfitting_patience=1)
    assert exit_reason(history([1, 1, 1, 1], [2, 2, 2, 2]), rules) is None
    assert exit_reason(history([1, 2, 3, 4], [2, 3, 4, 5]), rules) is ExitReason.DIVERGED
    assert exit_reason(history([1, math.nan], [2, 2]), rules) is ExitReason.NON_FINITE


def test_moving_average_begins_at_the_first_loss() -> None:
    assert smooth([4, 0, 8], 0.25) == [4, 3, 4.25]


def test_defaults_are_those_of_the_paper() -> None:
    rules = ExitRules()
    assert [getattr(rules, field.name) for field in fields(rules)] == [0.5, 2, 0.001, 2, 0.1, 2]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("smoothing", 0.0, r"smoothing must be in \(0, 1\], got 0.0"),
        ("smoothing", 1.1, r"smoothing must be in \(0, 1\], got 1.1"),
        ("window", 1, "window must be at least 2, got 1"),
        ("slope", math.nan, "slope must be finite, got nan"),
        ("divergence_patience", 0, "divergence_patience must be at least 1, got 0"),
        ("gap", -0.1, "gap must be at least 0, got -0.1"),
        ("overfitting_patience", 0, "overfitting_patience must be at least 1, got 0"),
    ],
)
def test_rules_quote_the_field_and_value_at_fault(field: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExitRules(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("field", "value"), [("gap", 0.0), ("smoothing", 1.0), ("window", 2)])
def test_rules_may_be_as_strict_as_they_can(field: str, value: float) -> None:
    assert getattr(ExitRules(**{field: value}), field) == value  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(40))
def test_a_long_history_is_judged_by_all_that_its_rules_reach(seed: int) -> None:
    dice = random.Random(seed)
    rules = ExitRules(smoothing=0.5, window=3, slope=0.0, divergence_patience=3, gap=0.3)
    train, val = [3.0], [3.0]
    for _ in range(dice.randrange(3, 15)):
        train.append(train[-1] + dice.uniform(-0.3, 0.6))
        val.append(val[-1] + dice.uniform(-0.3, 0.8))
    smoothed = smooth(train, rules.smoothing)
    ends = range(len(val), 0, -1)
    diverging = [is_diverging(smoothed[:end], val[:end], rules) for end in ends]
    overfitting = [is_overfitting(smoothed[:end], val[:end], rules) for end in ends]
    expected = OVERFITTED if all(overfitting[:2]) else None
    expected = DIVERGED if all(diverging[:3]) else expected
    assert exit_reason(history(train, val), rules) is expected


@pytest.mark.parametrize("seed", range(20))
def test_a_watch_finds_what_the_whole_history_tells(seed: int) -> None:
    """Of two jobs in turn, and though some reports come while nobody asks."""
    dice = random.Random(seed)
    rules = ExitRules(smoothing=0.3, window=3, slope=0.0, divergence_patience=2, gap=0.25)
    watch = ExitWatch(rules)
    reports: dict[str, list[LossReported]] = {"a": [], "b": []}
    reasons = set()
    for step in range(1, 40):
        for name, told in reports.items():
            train, val = dice.uniform(1, 1.5), dice.uniform(1, 2)
            told.append(LossReported(float(step), JobId(name), step, train, val))
            if dice.random() < 0.7:
                reason = exit_reason(told, rules)
                assert watch.reason(JobId(name), told) is reason
                reasons.add(reason)
    assert len(reasons) > 1
