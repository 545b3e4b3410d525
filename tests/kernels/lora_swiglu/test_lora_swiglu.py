"""Gate and up with adapters and what they make together: values and every gradient in float64."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from alto_kernels.lora_linear import AdaptedGroup, Path, Plan
from alto_kernels.lora_linear import fused as linears
from alto_kernels.lora_linear.tables import TablesShape
from alto_kernels.lora_swiglu import lora_swiglu, lora_swiglu_ref
from tests.kernels.comparing import DEVICE, DTYPES, HALF, ON_GPU, assert_as_exact_as_torch
from tests.kernels.lora_linear.cases import NUMBER, Case, Tensors, draw, group_of

PATHS = [path for path in Path if not path.is_alone]


@pytest.fixture(autouse=True, params=[True, False], ids=["with-ds", "gradients-first"])
def hides_db(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both orders, whatever pays for these sizes."""
    monkeypatch.setattr(linears, "hides_both", lambda *_: request.param)


def ours(case: Case, t: Tensors, dtype: torch.dtype, path: Path, plan: Plan) -> list[Tensor]:
    """y, dx, and what is added to the gradients of A and B."""
    group = group_of(case, t, dtype)
    x = t.x.to(dtype).requires_grad_()
    y = lora_swiglu(x, group, plan, path)
    (dx,) = torch.autograd.grad(y, [x], t.dy[:, : y.shape[1]].to(dtype))
    middle = t.a.shape[1] * t.a.shape[2]
    da = group.grad_a_RMI.flatten(1).double() - t.grad[:, :middle]
    return [y.detach(), dx, da, group.grad_b_RO.double() - t.grad[:, middle:]]


def by_autograd(case: Case, t: Tensors, dtype: torch.dtype, plan: Plan) -> list[Tensor]:
    x, a, b = (v.to(dtype).requires_grad_() for v in (t.x, t.a, t.b))
    bias, nothing = None if t.bias is None else t.bias.to(dtype), torch.empty(0)
    group = AdaptedGroup(t.weight.to(dtype), bias, a, b, nothing, nothing, case.outputs, NUMBER)
    y = lora_swiglu_ref(x, group, plan)
    dy = t.dy[:, : y.shape[1]].to(dtype)
    dx, da, db = torch.autograd.grad(y, [x, a, b], dy, materialize_grads=True)
    return [y.detach(), dx, da.flatten(1), db]


def assert_exact(case: Case, dtype: torch.dtype, path: Path, plan: Plan) -> None:
    t = draw(case, dtype)
    exact = by_autograd(case, t, torch.float64, plan)
    torchs = by_autograd(case, t, dtype, plan)
    for results in zip(ours(case, t, dtype, path, plan), torchs, exact, strict=True):
        assert_as_exact_as_torch(*results)


CASES = [
    pytest.param(Case((128, 128), (16, 16), outputs=(256, 256)), id="aligned"),
    pytest.param(
        Case((1, 130, 0, 7), (8, 16, 4, 3), inputs=40, outputs=(320, 320), tail=41, bias=True),
        id="ragged-with-an-empty-segment-and-rows-without-adapter",
    ),
    pytest.param(Case((33,), (5,), outputs=(64, 64)), id="narrower-than-a-block"),
    pytest.param(Case((40, 30), (16, 24), outputs=(64, 64)), id="ranks-for-two-passes"),
    pytest.param(
        Case((50, 30), (16, 8), outputs=(128, 128), dropouts=(0.5, 0.0), tail=3), id="dropout"
    ),
    pytest.param(Case((0, 0), (8, 8), outputs=(64, 64), tail=33), id="no-segment-has-rows"),
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.value)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case: Case, dtype: torch.dtype, path: Path) -> None:
    assert_exact(case, dtype, path, case.plan())


def without(plan: Plan, *numbers: int) -> Plan:
    """Rows of these segments meet no adapter."""
    kept = (s for number, s in enumerate(plan.segments) if number not in numbers)
    return Plan(plan.num_rows, tuple(kept))


@pytest.mark.parametrize("gone", [(0,), (1, 2), (3,)], ids=["first", "between", "last"])
def test_rows_that_meet_no_adapter(gone: tuple[int, ...]) -> None:
    case = Case((37, 50, 4, 70), (16, 8, 4, 8), outputs=(320, 320))
    assert_exact(case, HALF, Path.FUSED, without(case.plan(), *gone))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's arithmetic
def test_what_is_not_finite_in_one_job_stays_there() -> None:
    case = Case((30, 20), (16, 4), outputs=(320, 320))  # in one tile
    t = draw(case, HALF)
    sound = ours(case, t, HALF, Path.FUSED, case.plan())
    t.x[3], t.dy[7] = torch.nan, torch.inf
    broken = ours(case, t, HALF, Path.FUSED, case.plan())
    rows, ranks = slice(30, 50), slice(16, 20)
    for got, expected, part in zip(broken, sound, (rows, rows, ranks, ranks), strict=True):
        assert torch.equal(got[part], expected[part])
        assert not got.isfinite().all()


def test_a_job_alone_gets_what_it_gets_among_others() -> None:
    """Within the error that is allowed anyway; its rows begin elsewhere in a tile."""
    case = Case((100, 70, 40), (16, 8, 16), outputs=(320, 320))
    t, plan = draw(case, HALF), case.plan()
    torchs, exact = (by_autograd(case, t, dtype, plan) for dtype in (HALF, torch.float64))
    s = plan.segments[1]
    rows, ranks = slice(s.first_row, s.end_row), slice(s.first_rank, s.end_rank)
    alone = Plan(70, (replace(s, first_row=0, end_row=70),))
    found = ours(case, replace(t, x=t.x[rows], dy=t.dy[rows]), HALF, Path.FUSED, alone)
    for number, part in enumerate((rows, rows, ranks, ranks)):
        mine = found[number] if part is rows else found[number][ranks]
        assert_as_exact_as_torch(mine, torchs[number][part], exact[number][part])


def test_a_plan_with_room_is_computed_the_same() -> None:
    case = Case((37, 45), (16, 8), outputs=(320, 320), tail=46)
    t = draw(case, HALF)
    tables = case.plan().tables(DEVICE)
    roomy = case.plan().with_room(TablesShape.around(tables, case.num_rows), DEVICE)
    assert roomy.tables(DEVICE).num_segments > 2
    results = (ours(case, t, HALF, Path.FUSED, plan) for plan in (case.plan(), roomy))
    for whole, own in zip(*results, strict=True):
        assert torch.equal(whole, own)


def test_gradients_that_start_are_written_over_what_the_bank_held() -> None:
    case = Case((37, 45), (16, 8), outputs=(320, 320))
    t = draw(case, HALF)
    plan = case.plan()
    starting = Plan(82, (plan.segments[0], replace(plan.segments[1], starts_gradients=True)))
    added, started = (ours(case, t, HALF, Path.FUSED, p) for p in (plan, starting))
    middle = t.a.shape[1] * t.a.shape[2]
    for result, held in ((2, t.grad[:, :middle]), (3, t.grad[:, middle:])):
        assert torch.equal(started[result][:16], added[result][:16])
        expected = added[result][16:24] - held[16:24]
        torch.testing.assert_close(started[result][16:24], expected, rtol=0, atol=1e-4)


def test_no_rows() -> None:
    case = Case((0,), (8,), outputs=(64, 64))
    assert [tuple(r.shape) for r in ours(case, draw(case, HALF), HALF, Path.FUSED, case.plan())][
        :2
    ] == [(0, 64), (0, 64)]


@pytest.mark.parametrize("outputs", [(64,), (64, 32), (64, 64, 64)], ids=str)
def test_a_group_without_a_gate_is_refused(outputs: tuple[int, ...]) -> None:
    case = Case((9,), (8,), outputs=outputs)
    with pytest.raises(ValueError, match="equal outputs"):
        lora_swiglu(draw(case, HALF).x, group_of(case, draw(case, HALF), HALF), case.plan())


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="too large for the interpreter")
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.value)
@pytest.mark.parametrize("rank", [16, 64], ids=str)
def test_real_sizes(rank: int, path: Path) -> None:
    sizes = (500, 12, 0, 512, 300, 1, 512, 211)
    case = Case(sizes, (rank,) * 8, inputs=2048, outputs=(8192, 8192), tail=200)
    assert_exact(case, HALF, path, case.plan())
