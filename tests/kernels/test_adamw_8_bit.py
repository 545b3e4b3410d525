"""Moments in 8 bits: what their codes stand for, and steps beside the fp32 optimizer's."""

import math

import pytest
import torch
from torch import Tensor

from alto_kernels.adamw import Bank, Moments, Update, adamw_ref, codes
from alto_kernels.adamw.kernel import adamw_step
from tests.kernels.comparing import DEVICE, HALF
from tests.kernels.test_adamw import COLUMNS, UPDATES, normals

ROWS = 12
STEPS = [pytest.param(adamw_ref, id="reference"), pytest.param(adamw_step, id="kernel")]


def empty() -> Moments:
    return Moments.zeros(ROWS, COLUMNS, DEVICE, in_8_bits=True)


def uneven() -> tuple[Tensor, Tensor]:
    """Moments over six powers of ten within a block, one block of zeros among them."""
    mean, square, power, other = normals(4)
    mean, square = mean * 10 ** (-3 * power.abs()), square.square() * 10 ** (-3 * other.abs())
    mean[1, 256:512], square[1, 256:512] = 0, 0
    return mean, square


def kept() -> Moments:
    moments = empty()
    mean, square = uneven()
    for row in range(ROWS):
        one = slice(row, row + 1)
        codes.store(moments, one, mean[one], square[one], torch.tensor([row]))
    return moments


def bank_with(moments: Moments) -> Bank:
    value, gradient = normals(2)
    copy = torch.zeros(ROWS, COLUMNS, dtype=HALF, device=DEVICE)
    return Bank(value, gradient.clone(), moments, copy)


def assert_within_a_code(found: Tensor, exact: Tensor, parts: int) -> None:
    """The distance of two codes in the decade of what is kept, by the largest of its block."""
    rest = -exact.shape[1] % 256
    blocks = torch.nn.functional.pad(exact.abs(), (0, rest)).unflatten(1, (-1, 256))
    largest = blocks.amax(2).repeat_interleave(256, 1)[:, : exact.shape[1]].clamp(min=1e-30)
    decade = (-(exact.abs() / largest).clamp(min=1e-30).log10()).floor()
    decade = decade.clamp(0, math.log2(parts))
    step = 0.9 / (parts * 0.5**decade) * 10.0**-decade
    floor = 10.0 ** -math.log2(parts)  # the smallest code that is not zero
    allowed = torch.maximum(step, torch.full_like(step, floor)) * largest * (1 + 1e-4)
    assert ((found - exact).abs() <= allowed).all()


def test_what_is_kept_is_within_a_code_of_what_was_given() -> None:
    mean, square = uneven()
    found_mean, found_square = codes.load(kept(), slice(0, ROWS))
    assert_within_a_code(found_mean, mean, codes.MEAN_PARTS)
    assert_within_a_code(found_square.sqrt(), square.sqrt(), codes.ROOT_PARTS)
    assert (found_square > 0).equal(square > 0), "a root of zero would be divided by"
    blocks = mean[:, :4096].abs().unflatten(1, (-1, 256)).amax(2)
    kept_blocks = found_mean[:, :4096].abs().unflatten(1, (-1, 256)).amax(2)
    torch.testing.assert_close(kept_blocks, blocks, rtol=1e-6, atol=0.0)


def test_every_code_is_kept_as_itself() -> None:
    """So a job that pauses and comes back, or only rests, does not drift."""
    moments, again = empty(), empty()
    every = torch.arange(256, dtype=torch.uint8, device=DEVICE)
    moments.mean_RC[:, :256] = every.where(every != 128, 127)  # there is no minus zero
    moments.square_RC[:, :256] = every
    assert moments.mean_scale_RB is not None
    assert moments.root_scale_RB is not None
    moments.mean_scale_RB[:], moments.root_scale_RB[:] = 3.0, 0.02
    mean, square = codes.load(moments, slice(0, ROWS))
    codes.store(again, slice(0, ROWS), mean, square, torch.arange(ROWS))
    differ = (again.mean_RC.int() - moments.mean_RC.int()).abs()
    assert differ.max() <= 1
    assert (differ > 0).float().mean() < 1e-3, "but for what the last bit of fp32 decides"
    assert (again.square_RC.int() - moments.square_RC.int()).abs().max() <= 1


def test_the_expected_value_is_what_was_given() -> None:
    """With the nearest code nothing would come of changes that are smaller than a code."""
    mean = torch.full((ROWS, 4096), 0.3333, device=DEVICE)
    mean[:, ::256] = 1.0
    moments = Moments.zeros(ROWS, 4096, DEVICE, in_8_bits=True)
    codes.store(moments, slice(0, ROWS), mean, mean, codes.row_keys(3, ROWS))
    found, _ = codes.load(moments, slice(0, ROWS))
    others = torch.arange(4096, device=DEVICE) % 256 > 0
    assert found[:, others].unique().numel() == 2
    # 48,960 throws between two codes 0.014 apart: a standard error of 3e-5.
    assert abs(float(found[:, others].double().mean()) - 0.3333) < 1.5e-4


@pytest.mark.parametrize("step", STEPS)
def test_a_step_is_that_of_fp32_from_the_same_moments(step: type) -> None:
    """Values to the rounding of fp32; what is kept of the moments within a code."""
    moments = kept()
    mean, square = codes.load(moments, slice(0, ROWS))
    bank, plain = bank_with(moments), bank_with(Moments(mean, square))
    step(bank, UPDATES)
    adamw_ref(plain, UPDATES)
    torch.testing.assert_close(bank.value_RC, plain.value_RC, rtol=1e-5, atol=1e-6)
    found_mean, found_square = codes.load(bank.moments, slice(0, ROWS))
    assert_within_a_code(found_mean, mean, codes.MEAN_PARTS)
    assert_within_a_code(found_square.sqrt(), square.sqrt(), codes.ROOT_PARTS)
    assert bank.copy_RC is not None
    assert bank.copy_RC.any()


def test_the_kernel_throws_the_dice_of_the_reference() -> None:
    """Whose last bits may differ on a GPU, and with them a code in a thousand."""
    ours, theirs = bank_with(kept()), bank_with(kept())
    adamw_step(ours, UPDATES)
    adamw_ref(theirs, UPDATES)
    for name, found in ours.moments.tensors.items():
        expected = theirs.moments.tensors[name]
        if found.dtype == torch.uint8:
            differ = (found.int() - expected.int()).abs()
            assert (differ > 0).float().mean() < 2e-3, name
        else:
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("step", STEPS)
def test_a_job_in_other_rows_keeps_the_same_codes(step: type) -> None:
    here, there = bank_with(kept()), bank_with(kept())
    for tensor in (there.value_RC, there.grad_RC, *there.moments.tensors.values()):
        tensor[5:8] = tensor[0:3].clone()
    step(here, [Update(0, 3, step=4, rate=1e-3)])
    step(there, [Update(8, 9, step=1, rate=1e-2), Update(5, 8, step=4, rate=1e-3)])
    for found, expected in (
        (there.value_RC, here.value_RC),
        *zip(there.moments.tensors.values(), here.moments.tensors.values(), strict=True),
    ):
        assert torch.equal(found[5:8], expected[0:3])


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's arithmetic
@pytest.mark.parametrize("step", STEPS)
def test_a_job_without_a_finite_loss_keeps_its_moments(step: type) -> None:
    bank, before = bank_with(kept()), kept()
    step(bank, UPDATES, torch.tensor([1.5, math.nan, 0.0], device=DEVICE))
    for name, tensor in bank.moments.tensors.items():
        assert torch.equal(tensor[5:6], before.tensors[name][5:6]), name
        assert not torch.equal(tensor[0:3], before.tensors[name][0:3]), name
