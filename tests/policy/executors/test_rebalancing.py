import pytest

from alto_policy.decisions import Launch, Pause
from alto_policy.events import Departure
from alto_policy.executors.rebalancing import Going, lockstep_tokens, moves
from alto_policy.policies.alto import AltoSettings
from alto_policy.types import GpuId, Hyperparameters, Job, JobId, TaskId
from tests.policy.cases import UP, Ledger, job, left

LENGTH, TASK = 10, TaskId("t")


def going(name: str, batch_size: int, passes: int) -> Going:
    h = Hyperparameters(batch_size=batch_size)
    return Going(Job(id=JobId(name), hyperparameters=h, steps=1000, reports=1), passes)


def lanes(*jobs: tuple[Going, ...]) -> dict[GpuId, tuple[Going, ...]]:
    return {GpuId(number): each for number, each in enumerate(jobs)}


LONG, SHORT, WIDE = going("long", 1, 100), going("short", 1, 10), going("wide", 4, 20)


@pytest.mark.parametrize(
    ("held", "tokens"),
    [
        pytest.param(lanes((), ()), 0, id="none"),
        pytest.param(lanes((LONG,), ()), 1000, id="one"),
        pytest.param(lanes((LONG, SHORT), ()), 1100, id="together until the shorter ends"),
        pytest.param(lanes((LONG,), (SHORT,)), 1000, id="side by side"),
        pytest.param(lanes((LONG,), (WIDE,)), 20 * 40 + 80 * 10, id="the wider one holds up"),
    ],
)
def test_time_in_lock_step(held: dict[GpuId, tuple[Going, ...]], tokens: int) -> None:
    assert lockstep_tokens(held, LENGTH) == tokens


@pytest.mark.parametrize(
    ("held", "cost", "moved"),
    [
        pytest.param(lanes((LONG, SHORT), ()), 99, ["long"], id="of equals the first"),
        pytest.param(lanes((LONG, SHORT), ()), 100, [], id="no more than it costs"),
        pytest.param(lanes((LONG,), ()), 0, [], id="nothing to gain"),
        pytest.param(lanes((SHORT, WIDE, LONG), ()), 0, ["wide"], id="what shortens it most"),
        pytest.param(
            lanes((LONG, going("b", 1, 100), going("c", 1, 100)), (), ()),
            0,
            ["long", "b"],
            id="several, as long as each is worth it",
        ),
        pytest.param(lanes((LONG,), (WIDE,)), 0, [], id="a change of places"),
    ],
)
def test_moves(held: dict[GpuId, tuple[Going, ...]], cost: int, moved: list[str]) -> None:
    assert list(moves(held, LENGTH, cost)) == moved


def test_alto_moves_a_job_to_a_gpu_that_exits_left_empty() -> None:
    """Four jobs on two GPUs; both of the second one end, and one of the first follows them."""
    for move_tokens, moved in ((5, True), (1000, False), (None, False)):
        settings = AltoSettings(warmup=0.9, keep=1.0, move_tokens=move_tokens)
        ledger = Ledger(settings, [job(name) for name in "abcd"], num_gpus=2)
        launches = ledger.tell(UP)
        assert launches == (
            Launch(TASK, GpuId(0), (JobId("a"), JobId("c"))),
            Launch(TASK, GpuId(1), (JobId("b"), JobId("d"))),
        )
        assert ledger.tell(left("b", Departure.FAILED)) == ()
        assert ledger.tell(left("d", Departure.FAILED)) == ((Pause(JobId("a")),) if moved else ())
        if moved:
            relaunched = ledger.tell(left("a", Departure.PAUSED))
            assert relaunched == (Launch(TASK, GpuId(1), (JobId("a"),)),)
            assert ledger.tell(left("c", Departure.FAILED)) == ()
