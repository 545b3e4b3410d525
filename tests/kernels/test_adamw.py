"""One launch for all jobs against torch.optim.AdamW, job by job."""

import math

import pytest
import torch
from torch import Tensor

from alto_kernels.adamw import Bank, Moments, Update, adamw_ref, kernel
from alto_kernels.adamw.kernel import adamw_step
from tests.kernels.comparing import DEVICE, HALF

COLUMNS = 4100  # more than one block
UPDATES = (
    Update(0, 3, step=0, rate=1e-2, weight_decay=0.1, clip=1.0),
    Update(5, 6, step=7, rate=3e-3, beta1=0.8, beta2=0.99, epsilon=1e-6, clip=1e6),
    Update(6, 10, step=2, rate=0.0, weight_decay=0.5),
)
STEPS = [pytest.param(adamw_ref, id="reference"), pytest.param(adamw_step, id="kernel")]


def normals(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(12, COLUMNS, generator=generator).to(DEVICE) for _ in range(count)]


def random_bank() -> Bank:
    value, gradient, mean, square = normals(4)
    copy = torch.zeros(12, COLUMNS, dtype=HALF, device=DEVICE)
    return Bank(value, gradient, Moments(mean, square.square()), copy)


@pytest.mark.parametrize("updates", [UPDATES, UPDATES[2:]], ids=["some-clip", "none-clips"])
@pytest.mark.parametrize("step", STEPS)
def test_each_job_steps_as_in_torch(
    step: type, updates: tuple[Update, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_SUM_BLOCK", 4)  # less than a job's parts of its norm
    bank, before = random_bank(), random_bank()
    step(bank, updates)
    for u in updates:
        rows = slice(u.first_rank, u.end_rank)
        parameter = before.value_RC[rows].double().requires_grad_()
        parameter.grad = before.grad_RC[rows].double()
        if u.clip is not None:
            torch.nn.utils.clip_grad_norm_([parameter], u.clip)
        optimizer = torch.optim.AdamW(
            [parameter], u.rate, (u.beta1, u.beta2), u.epsilon, u.weight_decay, foreach=False
        )
        optimizer.state[parameter] = {
            "step": torch.tensor(float(u.step)),
            "exp_avg": before.moments.mean_RC[rows].double(),
            "exp_avg_sq": before.moments.square_RC[rows].double(),
        }
        optimizer.step()
        state = optimizer.state[parameter]
        assert_close(bank.value_RC[rows], parameter.detach())
        assert_close(bank.moments.mean_RC[rows], state["exp_avg"])
        assert_close(bank.moments.square_RC[rows], state["exp_avg_sq"])
        assert bank.copy_RC is not None
        assert torch.equal(bank.copy_RC[rows], bank.value_RC[rows].to(HALF))


@pytest.mark.parametrize("step", STEPS)
def test_rows_of_others_and_gradients_stay_as_they_are(step: type) -> None:
    bank, before = random_bank(), random_bank()
    step(bank, UPDATES)
    assert torch.equal(bank.grad_RC, before.grad_RC), "the next step writes over them"
    for rows in (slice(3, 5), slice(10, 12)):
        assert torch.equal(bank.value_RC[rows], before.value_RC[rows])


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's arithmetic
@pytest.mark.parametrize("lost", [math.nan, math.inf])
@pytest.mark.parametrize("step", STEPS)
def test_the_copy_of_a_lost_job_is_finite(step: type, lost: float) -> None:
    bank = random_bank()
    bank.grad_RC[1, 5] = lost
    bank.value_RC[7, 9] = lost
    step(bank, UPDATES)
    assert bank.copy_RC is not None
    assert not bank.value_RC.isfinite().all()
    assert bank.copy_RC.isfinite().all()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's arithmetic
@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", STEPS)
def test_a_job_whose_loss_is_not_finite_takes_no_step(step: type, lost: float) -> None:
    """The others step as without it."""
    bank, before, without = random_bank(), random_bank(), random_bank()
    losses = torch.tensor([1.5, lost, 0.0], device=DEVICE)
    step(bank, UPDATES, losses)
    step(without, (UPDATES[0], UPDATES[2]))
    for tensor, untouched, expected in (
        (bank.value_RC, before.value_RC, without.value_RC),
        (bank.moments.mean_RC, before.moments.mean_RC, without.moments.mean_RC),
        (bank.moments.square_RC, before.moments.square_RC, without.moments.square_RC),
    ):
        assert torch.equal(tensor, expected)
        assert torch.equal(tensor[5:6], untouched[5:6])


def assert_close(ours: Tensor, exact: Tensor) -> None:
    """fp32 rounds each of a handful of operations."""
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-6)
