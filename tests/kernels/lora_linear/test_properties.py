"""What holds beside exactness: jobs apart from one another, the same again, no silent choice."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from alto_kernels.lora_linear import (
    Path,
    Plan,
    Segment,
    fused,
    lora_linear_group,
    path_alone_for,
    path_for,
)
from tests.kernels.comparing import DEVICE, DTYPES, ON_GPU, assert_as_exact_as_torch
from tests.kernels.lora_linear.cases import (
    NAMES,
    Case,
    Tensors,
    by_autograd,
    draw,
    group_of,
    ours,
    without_weight,
)

pytestmark = pytest.mark.usefixtures("one_pass")
KERNELS = [Path.ADDED, Path.FUSED, Path.KERNELS_ALONE]
DTYPE = DTYPES[0]
NEIGHBOURS = Case((30, 20), (16, 4))  # in one tile


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's arithmetic
@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.value)
def test_what_is_not_finite_in_one_job_stays_there(path: Path) -> None:
    t = draw(NEIGHBOURS, DTYPE)
    sound = ours(NEIGHBOURS, t, DTYPE, path)
    t.x[3], t.dy[7] = torch.nan, torch.inf
    broken = ours(NEIGHBOURS, t, DTYPE, path)
    rows, ranks = slice(30, 50), slice(16, 20)
    for name, part in zip(NAMES, (rows, rows, ranks, ranks), strict=True):
        assert torch.equal(broken[name][part], sound[name][part]), name
        assert not broken[name].isfinite().all(), name


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.value)
def test_the_same_again_is_the_same(path: Path) -> None:
    t = draw(NEIGHBOURS, DTYPE)
    first, second = (ours(NEIGHBOURS, t, DTYPE, path) for _ in range(2))
    for name in NAMES:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.value)
def test_a_job_alone_gets_what_it_gets_among_others(path: Path) -> None:
    """Within the error that is allowed anyway; its rows begin elsewhere in a tile."""
    case = Case((100, 70, 40), (16, 8, 16))
    given, t = without_weight(draw(case, DTYPE), path)
    together, plan = ours(case, given, DTYPE, path), case.plan()
    torchs, exact = by_autograd(case, t, DTYPE), by_autograd(case, t, torch.float64)
    for s in plan.segments:
        rows, ranks = slice(s.first_row, s.end_row), slice(s.first_rank, s.end_rank)
        alone_plan = replace(plan, num_rows=s.end_row - s.first_row, segments=(
            replace(s, first_row=0, end_row=s.end_row - s.first_row),
        ))  # fmt: skip
        alone = ours(case, replace(given, x=t.x[rows], dy=t.dy[rows]), DTYPE, path, alone_plan)
        for name, part in zip(NAMES, (rows, rows, ranks, ranks), strict=True):
            mine = alone[name] if name in ("y", "dx") else alone[name][part]
            assert_as_exact_as_torch(mine, torchs[name][part], exact[name][part])
            assert_as_exact_as_torch(together[name][part], torchs[name][part], exact[name][part])


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.value)
def test_a_weight_may_lie_in_memory_the_other_way(path: Path) -> None:
    """As those of GPT-2 do."""
    t = draw(NEIGHBOURS, DTYPE)
    turned = replace(t, weight=t.weight.T.contiguous().T)
    first, second = (ours(NEIGHBOURS, tensors, DTYPE, path) for tensors in (t, turned))
    for name in NAMES:
        assert torch.equal(first[name], second[name]), name


def test_rows_of_the_bank_that_are_not_in_the_batch_keep_their_gradients() -> None:
    t = draw(NEIGHBOURS, DTYPE)
    found = ours(NEIGHBOURS, t, DTYPE, Path.FUSED)
    assert not found["da"][20:].any()
    assert not found["db"][20:].any()


@pytest.mark.parametrize("path", list(Path), ids=lambda path: path.value)
def test_gradients_that_start_are_written_over_what_the_bank_held(path: Path) -> None:
    t, plan = draw(NEIGHBOURS, DTYPE), NEIGHBOURS.plan()
    starts, adds = plan.segments
    starting = replace(plan, segments=(replace(starts, starts_gradients=True), adds))
    zeros, rubbish = torch.zeros_like(t.grad), t.grad.clone()
    rubbish[: starts.end_rank] = torch.nan
    found = _bank_after(replace(t, grad=rubbish), path, starting)
    expected = _bank_after(replace(t, grad=zeros), path, plan)
    assert torch.equal(found[: starts.end_rank], expected[: starts.end_rank])
    added = _bank_after(t, path, plan)
    assert torch.equal(found[starts.end_rank :], added[starts.end_rank :])


def _bank_after(t: Tensors, path: Path, plan: Plan) -> Tensor:
    """The gradient bank after a backward pass."""
    group, x = group_of(NEIGHBOURS, t, DTYPE), t.x.to(DTYPE).requires_grad_()
    y = torch.cat(lora_linear_group(x, group, plan, path), dim=1)
    torch.autograd.grad(y, [x], t.dy.to(DTYPE))
    return torch.cat([group.grad_a_RMI.flatten(1), group.grad_b_RO], dim=1)


def test_one_gradient_may_not_be_written_over_twice() -> None:
    first = Segment(0, 4, 0, 8, 1.0, starts_gradients=True)
    with pytest.raises(ValueError, match="write over one gradient"):
        Plan(8, (first, Segment(4, 8, 4, 12, 1.0)))
    Plan(8, (first, Segment(4, 8, 8, 12, 1.0)))


def test_the_path_is_chosen_by_what_the_tensors_are() -> None:
    case = Case((4,), (8,), outputs=(64, 64))
    group = group_of(case, draw(case, torch.float32), torch.float32)
    x = torch.zeros(4, 64, device=DEVICE)
    assert path_for(x, group) is Path.COMPOSED
    half = group_of(case, draw(case, torch.float16), torch.float16)
    expected = Path.FUSED if ON_GPU else Path.COMPOSED
    assert path_for(x.half(), half) is expected
    assert path_for(x.half(), group) is Path.COMPOSED
    alone = Path.KERNELS_ALONE if ON_GPU else Path.COMPOSED_ALONE
    assert path_alone_for(x.half(), half) is alone
    assert path_alone_for(x, group) is Path.COMPOSED_ALONE


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="the interpreter runs the portable product in all tests")
def test_the_portable_product_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "is_hopper", lambda device: False)
    case = Case((300, 212), (16, 40), inputs=512, outputs=(512, 256), bias=True)
    t = draw(case, DTYPE)
    got, torchs = ours(case, t, DTYPE, Path.FUSED), by_autograd(case, t, DTYPE)
    exact = by_autograd(case, t, torch.float64)
    for name in NAMES:
        assert_as_exact_as_torch(got[name], torchs[name], exact[name])
