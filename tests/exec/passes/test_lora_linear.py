"""The products of many adapters on one batch, against the definition and against float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alto_kernels.lora_linear import (
    AdaptedGroup,
    Plan,
    Segment,
    dropout_key,
    keep_mask,
    lora_linear_group,
    lora_linear_group_ref,
)
from tests.exec.comparing import assert_close, assert_identical, assert_no_worse_than

INPUTS, OUTPUTS, BANK_ROWS = 24, 40, 32


def segment(first: int, end: int, first_rank: int, rank: int, **others: float) -> Segment:
    given = {"scale": 1.5} | others
    return Segment(first, end, first_rank, first_rank + rank, **given)  # type: ignore[arg-type]  # whole numbers are numbers


def linear(bias: bool = True) -> AdaptedGroup:
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    # Bank columns are views into wider rows, as in the bank.
    a_RI, b_RO = draw(BANK_ROWS, INPUTS + OUTPUTS).split([INPUTS, OUTPUTS], dim=1)
    grad_a_RI, grad_b_RO = draw(BANK_ROWS, INPUTS + OUTPUTS).split([INPUTS, OUTPUTS], dim=1)
    bias_O = draw(OUTPUTS) if bias else None
    return AdaptedGroup(
        draw(OUTPUTS, INPUTS),
        bias_O,
        a_RI[:, None].requires_grad_(),
        b_RO,
        grad_a_RI[:, None],
        grad_b_RO,
        (OUTPUTS,),
        number=3,
    )


def doubled(one: AdaptedGroup) -> AdaptedGroup:
    bias_O = None if one.bias_O is None else one.bias_O.double()
    a_RMI, b_RO = one.a_RMI.detach().double(), one.b_RO.detach().double()
    zeros = torch.zeros_like(a_RMI), torch.zeros_like(b_RO)
    return AdaptedGroup(
        one.weight_OI.double(),
        bias_O,
        a_RMI.requires_grad_(),
        b_RO.requires_grad_(),
        *zeros,
        one.outputs,
        one.number,
    )


def by_definition(x_TI: Tensor, dy_TO: Tensor, one: AdaptedGroup, plan: Plan) -> list[Tensor]:
    """y, dx, dA and dB as PyTorch differentiates the reference."""
    leaves = [t.detach().clone().requires_grad_() for t in (x_TI, one.a_RMI, one.b_RO)]
    x, a, b = leaves
    linear_ = AdaptedGroup(one.weight_OI, one.bias_O, a, b, a, b, one.outputs, one.number)
    y = lora_linear_group_ref(x, linear_, plan)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy_TO, materialize_grads=True)]


def by_product(x_TI: Tensor, dy_TO: Tensor, one: AdaptedGroup, plan: Plan) -> list[Tensor]:
    """The same of `lora_linear_group`; what it added to the bank's gradients."""
    before = one.grad_a_RMI.clone(), one.grad_b_RO.clone()
    one.grad_a_RMI.zero_(), one.grad_b_RO.zero_()
    x = x_TI.detach().clone().requires_grad_()
    (y,) = lora_linear_group(x, one, plan)
    y.backward(dy_TO)
    assert x.grad is not None
    found = [y.detach(), x.grad, one.grad_a_RMI.clone(), one.grad_b_RO.clone()]
    one.grad_a_RMI.copy_(before[0]), one.grad_b_RO.copy_(before[1])
    return found


PLANS = {
    "one": Plan(12, (segment(0, 12, 0, 8),)),
    "two of other ranks and scales": Plan(
        20, (segment(0, 7, 8, 16, scale=0.25), segment(7, 20, 3, 1))
    ),
    "rows without an adapter": Plan(
        20, (segment(2, 5, 0, 4), segment(9, 16, 4, 4))
    ),
    "an empty segment": Plan(
        9, (segment(0, 4, 0, 4), segment(4, 4, 4, 8), segment(4, 9, 12, 2))
    ),
    "no segment": Plan(6, ()),
    "one row": Plan(1, (segment(0, 1, 31, 1),)),
    "dropout beside none": Plan(
        30,
        (
            segment(0, 11, 0, 4, dropout=0.4, dropout_key=7, first_token=5),
            segment(11, 18, 4, 4),
            segment(18, 30, 8, 9, dropout=0.9, dropout_key=8),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", PLANS)
def test_all_products_are_as_exact_as_pytorchs_own(name: str, bias: bool) -> None:
    """Errors against float64 at most twice those of the reference in fp32."""
    plan, one = PLANS[name], linear(bias)
    generator = torch.Generator().manual_seed(1)
    x_TI = torch.randn(plan.num_rows, INPUTS, generator=generator)
    dy_TO = torch.randn(plan.num_rows, OUTPUTS, generator=generator)
    truth = by_definition(x_TI.double(), dy_TO.double(), doubled(one), plan)
    own = by_definition(x_TI, dy_TO, one, plan)
    found = by_product(x_TI, dy_TO, one, plan)
    for what, *three in zip(("y", "dx", "dA", "dB"), found, own, truth, strict=True):
        assert_no_worse_than(three[0], three[1], three[2], what)


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 9), st.integers(0, 3), st.integers(1, 6), st.sampled_from([0, 0.5])
        ),
        max_size=5,
    )
)
def test_any_layout_of_segments_is_computed(
    parts: list[tuple[int, int, int, float]],
) -> None:
    """Each part: rows, rows without an adapter before them, rank, dropout.

    Of few numbers PyTorch's own error may be nothing by luck, so the fp32 tolerance holds here.
    """
    segments, row, rank = [], 0, 0
    for number, (rows, gap, width, dropout) in enumerate(parts):
        first = row + gap
        row = first + rows
        segments.append(segment(first, row, rank, width, dropout=dropout, dropout_key=number))
        rank += width
    plan, one = Plan(row + 1, tuple(segments)), linear()
    generator = torch.Generator().manual_seed(row)
    x_TI = torch.randn(row + 1, INPUTS, generator=generator)
    dy_TO = torch.randn(row + 1, OUTPUTS, generator=generator)
    truth = by_definition(x_TI.double(), dy_TO.double(), doubled(one), plan)
    found = by_product(x_TI, dy_TO, one, plan)
    for what, one_, true in zip(("y", "dx", "dA", "dB"), found, truth, strict=True):
        assert_close(one_, true, what)


def test_gradients_are_added_to_those_of_the_bank() -> None:
    one, plan = linear(), PLANS["one"]
    x_TI, dy_TO = torch.ones(12, INPUTS), torch.ones(12, OUTPUTS)
    before = one.grad_b_RO.clone()
    added = by_product(x_TI, dy_TO, one, plan)[3]
    lora_linear_group(x_TI, one, plan)[0].backward(dy_TO)
    assert_close(one.grad_b_RO, before + added)
    assert_identical(one.grad_b_RO[8:], before[8:], "rows of others")


def test_what_is_not_finite_in_one_segment_stays_there() -> None:
    one = linear()
    plan = PLANS["two of other ranks and scales"]
    x_TI, dy_TO = torch.randn(20, INPUTS), torch.randn(20, OUTPUTS)
    sound = by_product(x_TI, dy_TO, one, plan)
    x_TI[:7], dy_TO[:7] = torch.nan, torch.inf
    one.a_RMI.detach()[8:24] = torch.nan
    broken = by_product(x_TI, dy_TO, one, plan)
    for before, after, rows in zip(
        sound, broken, [slice(7, 20)] * 2 + [slice(3, 4)] * 2, strict=True
    ):
        assert_identical(after[rows], before[rows])
        assert not after.isfinite().all()


def mask(key: int = 1, number: int = 0, first_token: int = 0, rows: int = 64) -> Tensor:
    whole = Segment(0, rows, 0, 1, 1.0, 0.3, dropout_key(key), first_token)
    return keep_mask(whole, number, 256, torch.device("cpu"))


def test_dropout_drops_its_share_of_every_row_and_column() -> None:
    kept = mask(rows=1024).double()
    spread = (0.3 * 0.7) ** 0.5
    assert abs(float(kept.mean()) - 0.7) < 4 * spread / kept.numel() ** 0.5
    for dim in (0, 1):
        shares = kept.mean(dim)
        limit = 5 * spread / kept.shape[dim] ** 0.5
        assert float((shares - 0.7).abs().max()) < limit


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"key": 2}, id="another step or seed"),
        pytest.param({"number": 1}, id="another linear"),
        pytest.param({"first_token": 64}, id="later tokens"),
    ],
)
def test_masks_of_different_things_are_independent(other: dict[str, int]) -> None:
    """They agree where independent ones would: in 0.7^2 + 0.3^2 of the places."""
    agree = (mask() == mask(**other)).double()
    assert abs(float(agree.mean()) - 0.58) < 4 * (0.58 * 0.42 / agree.numel()) ** 0.5


def test_neighbouring_rows_and_columns_are_independent() -> None:
    kept = mask(rows=1024)
    for one, other in ((kept[1:], kept[:-1]), (kept[:, 1:], kept[:, :-1])):
        agree = (one == other).double()
        assert abs(float(agree.mean()) - 0.58) < 4 * (0.58 * 0.42 / agree.numel()) ** 0.5


@given(st.integers(0, 63), st.integers(1, 64))
def test_a_mask_is_a_matter_of_the_token_whatever_the_packing(first: int, rows: int) -> None:
    part = mask(first_token=first, rows=rows)
    assert torch.equal(part, mask(rows=128)[first : first + rows])


def test_a_key_is_a_matter_of_all_its_parts() -> None:
    keys = {dropout_key(seed, step) for seed in range(50) for step in range(50)}
    assert len(keys) == 2500
    assert dropout_key(1, 2) != dropout_key(2, 1)
    assert all(0 <= key < 2**32 for key in keys)


@pytest.mark.parametrize(
    ("segments", "says"),
    [
        pytest.param([(0, 5)], "leaves a batch of 4 rows", id="too long"),
        pytest.param([(2, 1)], "leaves a batch of 4 rows", id="backwards"),
        pytest.param([(0, 3), (2, 4)], "begins before the end", id="overlapping"),
        pytest.param([(2, 4), (0, 1)], "begins before the end", id="out of order"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(segments: list[tuple[int, int]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Plan(4, tuple(segment(first, end, 0, 2) for first, end in segments))


def test_a_batch_of_another_plan_is_refused() -> None:
    with pytest.raises(ValueError, match="a plan of 12 rows"):
        lora_linear_group(torch.zeros(11, INPUTS), linear(), PLANS["one"])
