from dataclasses import fields

import pytest
import torch

from alto_kernels.adamw import Bank, JobStep, adamw_ref
from alto_kernels.adamw.kernel import adamw_step
from tests.kernels.comparing import DEVICE, HALF, assert_as_exact_as_torch

ROWS, COLUMNS = 9, 2100  # more than one block


def bank(dtype: torch.dtype, device: torch.device) -> Bank:
    dice = torch.Generator().manual_seed(0)
    value, grad, mean = (torch.randn(ROWS, COLUMNS, generator=dice) for _ in range(3))
    square = torch.rand(ROWS, COLUMNS, generator=dice)
    wide = [t.to(device, dtype) for t in (value, grad, mean, square)]
    return Bank(*wide, shadow_RC=wide[0].to(HALF))


def steps(clip: float | None) -> list[JobStep]:
    common = {"weight_decay": 0.1, "beta1": 0.9, "epsilon": 1e-8}
    return [
        JobStep(first_row=6, end_row=9, step=3, rate=1e-2, beta2=0.999, clip=clip, **common),
        JobStep(first_row=0, end_row=1, step=1, rate=5e-2, beta2=0.95, clip=None, **common),
        JobStep(first_row=2, end_row=4, step=900, rate=0.0, beta2=0.999, clip=1e9, **common),
    ]


@pytest.mark.parametrize("clip", [None, 0.5])
def test_every_tensor_of_every_job(clip: float | None) -> None:
    ours, torchs = bank(torch.float32, DEVICE), bank(torch.float32, DEVICE)
    exact = bank(torch.float64, DEVICE)
    for _ in range(2):
        adamw_step(ours, steps(clip))
        adamw_ref(torchs, steps(clip))
        adamw_ref(exact, steps(clip))
    for field in fields(Bank):
        tensors = (getattr(b, field.name) for b in (ours, torchs, exact))
        got, torchs_own, truth = tensors
        assert_as_exact_as_torch(got, torchs_own, truth.double())


def test_rows_of_others_stay_as_they_are() -> None:
    before, after = bank(torch.float32, DEVICE), bank(torch.float32, DEVICE)
    adamw_step(after, steps(0.5))
    others = [1, 4, 5]
    for field in fields(Bank):
        assert torch.equal(getattr(after, field.name)[others], getattr(before, field.name)[others])
