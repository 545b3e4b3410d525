"""The gated block with adapters: values and every gradient against float64."""

import pytest
import torch

from alto_kernels.lora_linear import Path, fused
from alto_kernels.lora_linear.tables import TablesShape
from alto_kernels.lora_mlp import lora_mlp
from tests.kernels.comparing import DEVICE, HALF, ON_GPU, in_each_dtype
from tests.kernels.lora_linear.cases import Case, group_of
from tests.kernels.lora_mlp.block import Block

PATHS = [None, *(path for path in Path if not path.is_alone)]
WIDE = 512 if ON_GPU else 256  # more than a tile of the product

CASES = [
    pytest.param(Case((128, 128), (16, 16), outputs=(256, 256)), id="aligned"),
    pytest.param(
        Case((1, 130, 0, 7), (8, 16, 4, 3), inputs=40, outputs=(WIDE, WIDE), tail=41, bias=True),
        id="ragged-with-an-empty-segment-and-rows-without-adapter",
    ),
    pytest.param(Case((33,), (5,), outputs=(192, 192)), id="no-whole-tiles"),
    pytest.param(Case((40, 30), (16, 24), outputs=(256, 256)), id="ranks-for-two-passes"),
    pytest.param(
        Case((50, 30), (16, 8), outputs=(256, 256), dropouts=(0.5, 0.0), tail=3), id="dropout"
    ),
    pytest.param(Case((0, 0), (8, 8), outputs=(64, 64), tail=33), id="no-segment-has-rows"),
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.value if path else "chosen")
@pytest.mark.parametrize(("case", "dtype"), in_each_dtype(CASES))
def test_values_and_gradients(case: Case, dtype: torch.dtype, path: Path | None) -> None:
    Block(case, dtype).assert_exact(path)


def test_gradients_of_pytorchs_products_are_not_rounded_to_bfloat16() -> None:
    case = Case((40, 30), (16, 24), outputs=(256, 256))
    Block(case, torch.bfloat16).assert_exact(Path.COMPOSED)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's arithmetic
def test_what_is_not_finite_in_one_job_stays_there() -> None:
    block = Block(Case((30, 20), (16, 4), outputs=(256, 256)), HALF)  # in one tile
    sound = block.ours(Path.FUSED)
    block.given[0].x[3], block.given[1].dy[7] = torch.nan, torch.inf
    rows, ranks = slice(30, 50), slice(16, 20)
    parts = (rows, rows, ranks, ranks, ranks, ranks)
    for got, expected, part in zip(block.ours(Path.FUSED), sound, parts, strict=True):
        assert torch.equal(got[part], expected[part])
        assert not got.isfinite().all()


def test_a_plan_with_room_is_computed_the_same() -> None:
    case = Case((37, 45), (16, 8), outputs=(256, 256), tail=46)
    block = Block(case, HALF)
    shape = TablesShape.around(block.plan.tables(DEVICE), case.num_rows)
    roomy = block.plan.with_room(shape, DEVICE)
    for whole, own in zip(block.ours(Path.FUSED, roomy), block.ours(Path.FUSED), strict=True):
        assert torch.equal(whole, own)


def test_no_rows() -> None:
    y, dx, *_ = Block(Case((0,), (8,), outputs=(64, 64)), HALF).ours(Path.FUSED)
    assert (y.shape, dx.shape) == ((0, 88), (0, 64))


@pytest.mark.parametrize("outputs", [(64,), (64, 32), (64, 32, 32)], ids=str)
def test_groups_that_do_not_follow_one_another_are_refused(outputs: tuple[int, ...]) -> None:
    block = Block(Case((9,), (8,), outputs=outputs), HALF)
    groups = [group_of(c, t, HALF) for c, t in zip(block.cases, block.given, strict=True)]
    with pytest.raises(ValueError, match="down 64 inputs"):
        lora_mlp(block.given[0].x.to(HALF), groups[0], groups[1], block.plan)


@pytest.mark.skipif(not ON_GPU, reason="the products that store more are a Hopper card's")
def test_the_portable_product_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "is_hopper", lambda _: False)
    Block(Case((128, 60), (16, 16), outputs=(256, 256)), HALF).assert_exact(Path.FUSED)


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="too large for the interpreter")
@pytest.mark.parametrize("rank", [16, 64], ids=str)
def test_real_sizes(rank: int) -> None:
    sizes = (500, 12, 0, 512, 300, 1, 512, 211)
    case = Case(sizes, (rank,) * 8, inputs=2048, outputs=(8192, 8192), tail=200)
    Block(case, HALF).assert_exact(Path.FUSED)
