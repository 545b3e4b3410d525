"""What each policy decides on tasks small enough to work out by hand."""

import math
from collections.abc import Callable, Sequence

import pytest

from alto_policy.decisions import ExitReason, Launch, StartExecutor, Stop
from alto_policy.events import Departure, ExecutorDown
from alto_policy.exits import ExitRules
from alto_policy.policies import SETTINGS, Settings, build
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.asha import AshaSettings
from alto_policy.policies.fifo import FifoSettings
from alto_policy.policies.hyperband import HyperbandSettings
from alto_policy.policies.median import MedianSettings
from alto_policy.policies.sequential import SequentialSettings
from alto_policy.types import GpuId, Job, JobId, TaskId
from tests.policy.cases import UP, Ledger, ToyBackend, job, job_decisions, left, play, report, task

T = TaskId("t")
START = StartExecutor(T, (GpuId(0),))
UNDER, LOST = "underperformed", "non-finite loss"
NAN = math.nan


def level(losses: dict[str, float]) -> Callable[[Job, int], float]:
    return lambda job, step: losses[job.id]


def decided(
    settings: Settings,
    jobs: Sequence[Job],
    curve: Callable[[Job, int], float],
    capacity: int = 99,
) -> dict[str, list[tuple[int, str]]]:
    backend = ToyBackend([task("t", jobs)], curve, capacity)
    return job_decisions(play(build(settings), backend))


FOUR = [job(name) for name in "abcd"]
ALTO = AltoSettings(warmup=0.1, keep=0.25)


@pytest.mark.parametrize(
    ("settings", "losses", "survivors"),
    [
        pytest.param(ALTO, (4, 3, 2, 1), "d", id="the best quarter"),
        pytest.param(AltoSettings(warmup=0.1, keep=0.5), (1, 4, 2, 3), "ac", id="the best half"),
        pytest.param(AltoSettings(warmup=0.1, keep=0.3), (1, 2, 3, 4), "ab", id="rounded up"),
        pytest.param(ALTO, (1, 1, 1, 1), "a", id="of equals the first"),
        pytest.param(AltoSettings(warmup=0.1, min_kept=3), (4, 3, 2, 1), "bcd", id="at least"),
        pytest.param(AltoSettings(warmup=0.1, keep=1.0), (1, 2, 3, 4), "abcd", id="all"),
        pytest.param(ALTO, (NAN, 3, 2, 4), "c", id="the lost do not count"),
    ],
)
def test_alto_keeps_the_best_of_the_warm_up(
    settings: AltoSettings, losses: tuple[float, ...], survivors: str
) -> None:
    curve = level(dict(zip("abcd", losses, strict=True)))
    for name, decisions in decided(settings, FOUR, curve).items():
        if name in survivors:
            assert decisions == [(2, "pause")]
        elif math.isnan(curve(job(name), 1)):
            assert decisions == [(1, LOST)]
        else:
            assert decisions == [(2, "pause"), (2, UNDER)]


@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_alto_rotates_the_warm_up_through_too_few_places(capacity: int) -> None:
    curve = level({"a": 4, "b": 1, "c": 2, "d": 3})
    assert decided(ALTO, FOUR, curve, capacity) == decided(ALTO, FOUR, curve, 99)


@pytest.mark.parametrize(
    ("reports", "boundary"),
    [
        pytest.param(20, 2, id="a report at the boundary"),
        pytest.param(7, 3, id="first report after the boundary"),
        pytest.param(1, None, id="the only report is the end"),
    ],
)
def test_alto_ends_the_warm_up_at_a_report(reports: int, boundary: int | None) -> None:
    jobs = [job(name, reports=reports) for name in "ab"]
    expected: dict[str, list[tuple[int, str]]] = {}
    if boundary is not None:
        expected = {"a": [(boundary, "pause")], "b": [(boundary, "pause"), (boundary, UNDER)]}
    assert decided(ALTO, jobs, level({"a": 1, "b": 2})) == expected


def test_alto_stops_a_survivor_that_diverges() -> None:
    def curve(job: Job, step: int) -> float:
        return 1.0 if step <= 10 else float(step)

    rules = ExitRules(divergence_patience=2)
    settings = AltoSettings(warmup=0.1, keep=1.0, rules=rules)
    assert decided(settings, FOUR[:1], curve) == {"a": [(2, "pause"), (12, "diverged")]}


def test_alto_does_not_end_a_job_on_its_last_report() -> None:
    def curve(job: Job, step: int) -> float:
        return NAN if step == job.steps else 1.0

    assert decided(ALTO, FOUR[:1], curve) == {"a": [(2, "pause")]}


def test_alto_finishes_an_interrupted_warm_up_and_an_interrupted_end() -> None:
    ledger = Ledger(ALTO, [job("warm"), job("cold"), job("done", steps=2, reports=1)])
    ledger.tell(UP, report("warm", 2, 1.0), left("warm", Departure.PAUSED))
    ledger.tell(report("cold", 1, 2.0), report("done", 2, 3.0))  # and before it is gone:
    assert ledger.tell(ExecutorDown(2.0, T)) == (START,)
    assert ledger.tell(UP) == (Launch(T, GpuId(0), (JobId("cold"), JobId("done"))),)
    assert ledger.tell(report("cold", 2, 2.0), left("done", Departure.FINISHED)) == ()
    assert ledger.tell(left("cold", Departure.PAUSED)) == (
        Stop(JobId("cold"), ExitReason.UNDERPERFORMED),
        Launch(T, GpuId(0), (JobId("warm"),)),
    )


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        pytest.param((1, 2, 3, 0.5), {"b": [(5, UNDER)], "c": [(5, UNDER)]}, id="best half"),
        pytest.param((1, 1, 1, 1), {}, id="equals pass together"),
        pytest.param((4, 3, 2, 1), {}, id="each is the best so far"),
        pytest.param((NAN, 2, 3, 1), {"a": [(1, LOST)], "c": [(5, UNDER)]}, id="lost"),
    ],
)
def test_asha_compares_with_those_that_came_before(
    losses: tuple[float, ...], expected: dict[str, list[tuple[int, str]]]
) -> None:
    curve = level(dict(zip("abcd", losses, strict=True)))
    one_after_the_other = 1
    assert decided(AshaSettings(grace=0.25, eta=2), FOUR, curve, one_after_the_other) == expected


def test_asha_judges_at_each_rung_once() -> None:
    def curve(job: Job, step: int) -> float:
        return {"a": 2.0, "b": 1.0 if step < 10 else 3.0}[job.id]

    settings = AshaSettings(grace=0.25, eta=2)
    assert decided(settings, FOUR[:2], curve, capacity=1) == {"b": [(10, UNDER)]}


def test_hyperband_halves_each_bracket_at_its_rungs() -> None:
    jobs = [job(str(number)) for number in range(10)]
    curve = level({str(number): 10.0 - number for number in range(10)})
    assert decided(HyperbandSettings(grace=0.25, eta=2), jobs, curve) == {
        "0": [(5, "pause"), (5, UNDER)],  # bracket of 0, 3, 6, 9: rungs 0.25 and 0.5
        "3": [(5, "pause"), (5, UNDER)],
        "6": [(5, "pause"), (10, "pause"), (10, UNDER)],
        "9": [(5, "pause"), (10, "pause")],
        "1": [(10, "pause"), (10, UNDER)],  # bracket of 1, 4, 7: rung 0.5
        "4": [(10, "pause"), (10, UNDER)],
        "7": [(10, "pause")],
    }  # 2, 5 and 8 are in the bracket without a rung


def test_hyperband_passes_two_rungs_between_sparse_reports() -> None:
    jobs = [job(str(number), steps=20, reports=2) for number in range(10)]
    curve = level({str(number): 10.0 - number for number in range(10)})
    found = decided(HyperbandSettings(grace=0.25, eta=2), jobs, curve)
    assert [name for name in "0369" if found[name] == [(10, "pause")]] == ["9"]


def test_hyperband_does_not_wait_for_the_lost() -> None:
    curve = level(dict.fromkeys("0123456789", 1.0) | {"3": NAN})
    jobs = [job(str(number)) for number in range(10)]
    found = decided(HyperbandSettings(grace=0.25, eta=2), jobs, curve)
    assert found["3"] == [(1, LOST)]
    assert found["0"] == [(5, "pause"), (10, "pause")]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        pytest.param((1, 3, 2.5, 1), {"c": [(5, UNDER)]}, id="worse than the median"),
        pytest.param((1, 3, 2, 1), {}, id="equal to the median"),
        pytest.param((1, 9, 1, 1), {}, id="too few others"),
        pytest.param((1, 3, NAN, 2), {"c": [(1, LOST)]}, id="lost"),
        pytest.param((1, 3, NAN, 2.5), {"c": [(1, LOST)], "d": [(5, UNDER)]}, id="beside the lost"),
    ],
)
def test_median(losses: tuple[float, ...], expected: dict[str, list[tuple[int, str]]]) -> None:
    curve = level(dict(zip("abcd", losses, strict=True)))
    settings = MedianSettings(grace=0.25, min_others=2)
    assert decided(settings, FOUR, curve, capacity=1) == expected


def test_median_sets_the_best_loss_against_running_means() -> None:
    def curve(job: Job, step: int) -> float:
        return {"a": 20.0 - step, "b": 20.0 - step, "c": 12.0}[job.id]

    # the means of a and b up to step s are 20 - (s + 1) / 2: below 12 from step 16 on
    settings = MedianSettings(grace=0.0, min_others=2)
    assert decided(settings, [job(name) for name in "abc"], curve, capacity=1) == {
        "c": [(16, UNDER)]
    }


def test_median_compares_at_equal_fractions() -> None:
    def curve(job: Job, step: int) -> float:
        return 10.0 - 8.0 * step / job.steps + (0.1 if job.id == "c" else 0.0)

    jobs = [job("a", steps=20), job("b", steps=20), job("c", steps=200, reports=10)]
    settings = MedianSettings(grace=0.0, min_others=2)
    assert decided(settings, jobs, curve, capacity=1) == {}


@pytest.mark.parametrize("settings", [FifoSettings(), SequentialSettings()])
def test_baselines_end_only_the_lost(settings: Settings) -> None:
    def curve(job: Job, step: int) -> float:
        return NAN if job.id == "b" and step == 7 else float(step)

    assert decided(settings, FOUR, curve) == {"b": [(7, LOST)]}


@pytest.mark.parametrize(
    ("settings", "launched"),
    [
        pytest.param(SequentialSettings(), [("small",), ("large",), ("third",)], id="sequential"),
        pytest.param(FifoSettings(), [("small", "third"), ("large",)], id="fifo"),
        pytest.param(ALTO, [("large",), ("small", "third")], id="alto"),
    ],
)
def test_order_of_launches(settings: Settings, launched: list[tuple[str, ...]]) -> None:
    jobs = [job("small", steps=1, reports=1), job("large", batch_size=4, steps=1, reports=1)]
    jobs.append(job("third", steps=1, reports=1))
    backend = ToyBackend([task("t", jobs)], level(dict.fromkeys(["small", "large", "third"], 1)), 4)
    entries = play(build(settings), backend)
    found = [d.jobs for entry in entries for d in entry.decisions if isinstance(d, Launch)]
    assert found == launched


def test_sequential_uses_every_gpu() -> None:
    ledger = Ledger(SequentialSettings(), FOUR, num_gpus=2)
    assert ledger.tell(UP) == (
        Launch(T, GpuId(0), (JobId("a"),)),
        Launch(T, GpuId(1), (JobId("b"),)),
    )
    assert ledger.tell(left("b", Departure.FINISHED)) == (Launch(T, GpuId(1), (JobId("c"),)),)


@pytest.mark.parametrize(
    ("kind", "field", "value", "message"),
    [
        (AltoSettings, "warmup", 0.0, r"warmup must be in \(0, 1\), got 0.0"),
        (AltoSettings, "warmup", 1.0, r"warmup must be in \(0, 1\), got 1.0"),
        (AltoSettings, "keep", 0.0, r"keep must be in \(0, 1\], got 0.0"),
        (AltoSettings, "keep", 1.1, r"keep must be in \(0, 1\], got 1.1"),
        (AltoSettings, "min_kept", 0, "min_kept must be at least 1, got 0"),
        (AshaSettings, "grace", 0.0, r"grace must be in \(0, 1\), got 0.0"),
        (AshaSettings, "eta", 1.0, "eta must be above 1, got 1.0"),
        (HyperbandSettings, "grace", 1.0, r"grace must be in \(0, 1\), got 1.0"),
        (HyperbandSettings, "eta", NAN, "eta must be above 1, got nan"),
        (MedianSettings, "grace", 1.0, r"grace must be in \[0, 1\), got 1.0"),
        (MedianSettings, "min_others", 0, "min_others must be at least 1, got 0"),
    ],
)
def test_settings_quote_the_field_and_value_at_fault(
    kind: type, field: str, value: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**{field: value})


@pytest.mark.parametrize("name", SETTINGS)
def test_every_policy_is_built_from_its_name(name: str) -> None:
    assert type(build(SETTINGS[name]())).__name__.lower() == name.replace("+", "plus")
