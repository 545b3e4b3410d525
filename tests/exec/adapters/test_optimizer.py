"""One job's step of AdamW, and how its learning rate moves."""

import math

import pytest
import torch
from transformers import get_scheduler

from alto_exec.adapters.bank import AdapterBank, LinearShape, Slot
from alto_exec.adapters.optimizer import learning_rate_at, update_of
from alto_kernels.adamw import adamw
from alto_policy.types import Hyperparameters, Schedule
from tests.exec.comparing import assert_close, assert_identical

SHAPES = (LinearShape("one", 5, 7), LinearShape("two", 7, 3))


def bank_with(*ranks: int) -> tuple[AdapterBank, list[Slot]]:
    bank = AdapterBank(SHAPES, torch.device("cpu"))
    return bank, [bank.join(bank.fresh(rank, seed)) for seed, rank in enumerate(ranks)]


def adamw_step(
    bank: AdapterBank, slot: Slot, h: Hyperparameters, step: int, num_steps: int
) -> None:
    adamw(bank.rows(), [update_of(slot, h, step, num_steps)])


@pytest.mark.parametrize(
    "h",
    [
        Hyperparameters(learning_rate=0.1),
        Hyperparameters(learning_rate=0.1, weight_decay=0.5, beta1=0.5, beta2=0.7, epsilon=1e-3),
        Hyperparameters(learning_rate=0.1, beta1=0.0, beta2=0.0, weight_decay=0.0),
    ],
    ids=["defaults", "others", "zeros"],
)
def test_the_same_gradients_give_the_bits_of_torchs_adamw(h: Hyperparameters) -> None:
    bank, (_, slot) = bank_with(3, 4)
    plain = bank.value_RC.detach()[slot.rows].clone().requires_grad_()
    optimizer = torch.optim.AdamW(
        [plain],
        lr=h.learning_rate,
        betas=(h.beta1, h.beta2),
        eps=h.epsilon,
        weight_decay=h.weight_decay,
    )
    generator = torch.Generator().manual_seed(0)
    for step in range(20):
        gradient = torch.randn(plain.shape, generator=generator) * 10.0 ** -(step % 5)
        plain.grad = gradient.clone()
        bank.grad_RC[slot.rows] = gradient
        optimizer.step()
        adamw_step(bank, slot, h, step, num_steps=20)
        assert_identical(bank.value_RC.detach()[slot.rows], plain.detach(), f"step {step}")


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3], ids=["small", "middling", "large"])
def test_a_gradient_is_clipped_by_its_jobs_own_norm(size: float) -> None:
    """beta1 of zero keeps the clipped gradient in the mean."""
    h = Hyperparameters(clip=0.7, beta1=0.0)
    bank, (slot, other) = bank_with(3, 4)
    gradient = torch.randn(bank.grad_RC[slot.rows].shape) * size
    bank.grad_RC[slot.rows] = gradient
    bank.grad_RC[other.rows] = 1e6
    adamw_step(bank, slot, h, step=0, num_steps=1)
    plain = torch.nn.Parameter(gradient.clone())
    plain.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_([plain], 0.7)
    assert_close(bank.memory.moments.mean_RC[slot.rows], plain.grad)


def test_a_step_touches_the_rows_of_its_job_alone() -> None:
    bank, (before, slot, after) = bank_with(3, 4, 2)
    bank.grad_RC.normal_()
    tensors = {"value": bank.value_RC, **bank.memory.moments.tensors}
    gradients = bank.grad_RC.clone()
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    adamw_step(bank, slot, Hyperparameters(), step=0, num_steps=1)
    for name, tensor in tensors.items():
        for other in (before, after):
            assert_identical(tensor[other.rows], kept[name][other.rows], name)
        assert not torch.equal(tensor[slot.rows], kept[name][slot.rows])
    assert_identical(bank.grad_RC, gradients, "the next step writes over them")


@pytest.mark.parametrize(
    ("schedule", "rise", "rates"),
    [
        (Schedule.CONSTANT, 0.0, [1, 1, 1, 1, 1, 1, 1, 1]),
        (Schedule.CONSTANT, 0.5, [0, 1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1]),
        (Schedule.LINEAR, 0.0, [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        (Schedule.LINEAR, 0.25, [0, 1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        (
            Schedule.COSINE,
            0.5,
            [0, 1 / 4, 2 / 4, 3 / 4, 1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5],
        ),
    ],
)
def test_learning_rates_of_eight_steps(schedule: Schedule, rise: float, rates: list[float]) -> None:
    h = Hyperparameters(learning_rate=0.02, schedule=schedule, rise=rise)
    found = torch.tensor([learning_rate_at(h, step, 8) for step in range(8)])
    assert_close(found, 0.02 * torch.tensor(rates, dtype=torch.float32))


@pytest.mark.parametrize("schedule", Schedule)
@pytest.mark.parametrize("rise", [0.0, 0.03, 0.5, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_schedules_are_those_of_transformers(schedule: Schedule, rise: float, steps: int) -> None:
    h = Hyperparameters(learning_rate=0.02, schedule=schedule, rise=rise)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=h.learning_rate)
    name = "constant_with_warmup" if schedule is Schedule.CONSTANT else schedule.value
    other = get_scheduler(name, optimizer, math.ceil(rise * steps), steps)
    expected = []
    for _ in range(steps):
        expected += other.get_last_lr()
        optimizer.step()
        other.step()
    found = [learning_rate_at(h, step, steps) for step in range(steps)]
    assert_close(torch.tensor(found), torch.tensor(expected))
