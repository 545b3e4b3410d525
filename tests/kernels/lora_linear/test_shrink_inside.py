"""The product on Hopper cards that makes s itself, when it does, and what runs beside it."""

from dataclasses import replace

import pytest
import torch

from alto_kernels.lora_linear import Path, Plan, Segment, fused
from alto_kernels.lora_linear.fused import _is_one_pass, hides_both
from alto_kernels.lora_linear.kernel.device import num_programs
from alto_kernels.lora_linear.kernel.hopper_shrink import along_pays, fits_along, producers_of
from tests.kernels.comparing import DEVICE, DTYPES, ON_GPU, assert_as_exact_as_torch
from tests.kernels.lora_linear.cases import NAMES, Case, by_autograd, draw, group_of, ours

CASES = [
    pytest.param(Case((128, 128), (16, 16), inputs=256, outputs=(256,)), id="aligned"),
    pytest.param(
        Case((1, 130, 0, 7), (8, 16, 4, 8), inputs=256, outputs=(256,)),
        id="ragged-with-an-empty-segment",
    ),
    pytest.param(
        Case((40, 100, 61), (1, 72, 16), inputs=264, outputs=(256, 512, 24), tail=9),
        id="mixed-ranks-three-members-and-rows-without-adapter",
    ),
    pytest.param(Case((150,), (3,), inputs=40, outputs=(256,), bias=True), id="odd-sizes-and-bias"),
    pytest.param(
        Case((300, 212, 700), (64, 40, 128), inputs=512, outputs=(512, 256), tail=100),
        id="several-items-of-a-pair",
    ),
    pytest.param(
        Case((4000, 190, 0, 3000, 1002), (16,) * 5, inputs=4096, outputs=(4096,)), id="many-tiles"
    ),
]
ALONG = [
    pytest.param(
        Case((1, 130, 0, 7, 300), (8, 16, 4, 8, 16), inputs=264, outputs=(256,), bias=True),
        id="ragged-with-an-empty-segment-and-bias",
    ),
    pytest.param(
        Case((4000, 190, 0, 3000, 1002), (16,) * 5, inputs=2048, outputs=(2048,)), id="many-tiles"
    ),
    pytest.param(
        Case((256,) * 60 + (31,) * 20, (16,) * 80, inputs=512, outputs=(1024, 256, 256), tail=7),
        id="three-members-and-as-many-rows-of-tiles-as-there-are-programs",
    ),
    pytest.param(
        Case((3000, 2000, 60), (64, 40, 33), inputs=2048, outputs=(512,), tail=1), id="ranks-to-64"
    ),
]
needs_hopper = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not ON_GPU or torch.cuda.get_device_capability()[0] != 9, reason="needs a Hopper card"
    ),
]


class TestOnHopper:
    pytestmark = needs_hopper

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("case", CASES)
    def test_values_and_gradients(self, case: Case, dtype: torch.dtype) -> None:
        t = draw(case, dtype)
        group, plan = group_of(case, t, dtype), case.plan()
        assert fused._makes_s_inside(t.x.to(dtype), group, plan.tables(DEVICE))
        got, torchs = ours(case, t, dtype, Path.FUSED), by_autograd(case, t, dtype)
        exact = by_autograd(case, t, torch.float64)
        again = ours(case, t, dtype, Path.FUSED)
        for name in NAMES:
            assert_as_exact_as_torch(got[name], torchs[name], exact[name])
            assert torch.equal(got[name], again[name]), name

    def test_what_is_not_finite_in_one_job_stays_there(self) -> None:
        case = Case((30, 20), (16, 4), inputs=256, outputs=(256,))
        t, dtype = draw(case, DTYPES[0]), DTYPES[0]
        sound = ours(case, t, dtype, Path.FUSED)
        x = t.x.clone()
        x[3] = torch.nan
        broken = ours(case, replace(t, x=x), dtype, Path.FUSED)
        assert torch.equal(broken["y"][30:], sound["y"][30:])
        assert not broken["y"].isfinite().all()


class TestAlongOnHopper:
    """Made along with first tiles, whether that is faster or not."""

    pytestmark = needs_hopper

    @pytest.mark.parametrize("dtype", DTYPES[-1:], ids=str)
    @pytest.mark.parametrize("case", ALONG)
    def test_values_and_gradients(
        self, case: Case, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fused, "_makes_s_inside", lambda *_: False)
        t = draw(case, dtype)
        assert 0 < case.plan().tables(DEVICE).num_tiles <= num_programs(DEVICE)
        monkeypatch.setattr(fused, "_makes_s_along", lambda *_: True)
        got, torchs = ours(case, t, dtype, Path.FUSED), by_autograd(case, t, dtype)
        exact = by_autograd(case, t, torch.float64)
        for name in NAMES:
            assert_as_exact_as_torch(got[name], torchs[name], exact[name])
        for _ in range(8):
            again = ours(case, t, dtype, Path.FUSED)
            assert all(torch.equal(got[name], again[name]) for name in NAMES)


def uniform(jobs: int, rows: int, rank: int) -> Plan:
    return Plan(
        jobs * rows,
        tuple(
            Segment(i * rows, (i + 1) * rows, i * rank, (i + 1) * rank, 1.0) for i in range(jobs)
        ),
    )


@pytest.mark.parametrize(
    ("plan", "inputs", "outputs", "programs"),
    [
        pytest.param(uniform(32, 256, 16), 4096, 4096, 32, id="a-quarter-has-a-tile-less"),
        pytest.param(uniform(32, 256, 16), 14336, 4096, 32, id="long-rows"),
        pytest.param(uniform(8, 1024, 128), 4096, 4096, 0, id="too-many-ranks"),
        pytest.param(uniform(32, 256, 16), 2048, 2048, 0, id="too-few-programs"),
    ],
)
def test_s_is_made_inside_where_that_is_hidden(
    plan: Plan, inputs: int, outputs: int, programs: int
) -> None:
    tables = plan.tables(torch.device("cpu"))
    assert producers_of(tables, 1, inputs, outputs, 132) == programs


@pytest.mark.parametrize(
    ("plan", "inputs", "pays"),
    [
        pytest.param(uniform(32, 256, 16), 2048, True, id="as-measured"),
        pytest.param(uniform(32, 256, 16), 8192, True, id="long-rows"),
        pytest.param(uniform(32, 256, 16), 576, False, id="short-rows"),
        pytest.param(uniform(40, 200, 16), 2048, True, id="a-second-segment-in-some-tiles"),
        pytest.param(uniform(512, 16, 16), 2048, False, id="many-segments-in-a-tile"),
    ],
)
def test_s_is_made_along_where_that_is_cheaper(plan: Plan, inputs: int, pays: bool) -> None:
    tables = plan.tables(torch.device("cpu"))
    assert fits_along(tables, 1, 132)
    assert along_pays(tables, inputs) is pays


def test_s_is_made_along_of_few_ranks_and_rows() -> None:
    device = torch.device("cpu")
    assert not fits_along(uniform(8, 1024, 17).tables(device), 1, 132)
    assert not fits_along(uniform(8, 1024, 16).tables(device), 3, 132)
    assert not fits_along(uniform(32, 1024, 16).tables(device), 1, 132)
    assert not fits_along(Plan(0, ()).tables(device), 1, 132)


@pytest.mark.parametrize(
    ("inputs", "outputs", "is_hidden"),
    [(4096, 6144, True), (4096, 4096, False), (14336, 4096, True), (2048, 2048, False)],
)
def test_both_gradients_are_hidden_beside_a_long_product(
    inputs: int, outputs: int, is_hidden: bool
) -> None:
    tables = uniform(8, 1024, 64).tables(torch.device("cpu"))
    assert hides_both(tables, 8192, inputs, outputs, 132) is is_hidden
    assert not hides_both(tables, 8192, inputs, outputs, 128), "no multiprocessor is left alone"


@pytest.mark.parametrize(
    ("plan", "outputs", "is_spared"),
    [
        pytest.param(uniform(32, 256, 16), 4096, True, id="8B"),
        pytest.param(uniform(32, 256, 16), 2048, True, id="1B"),
        pytest.param(uniform(32, 256, 16), 576, False, id="135M"),
        pytest.param(uniform(4, 512, 16), 3072, False, id="few-rows"),
        pytest.param(uniform(16, 512, 16), 28672, True, id="all-that-walk-half-a-thousand-rows"),
        pytest.param(uniform(8, 1024, 16), 28672, False, id="long-segments"),
        pytest.param(uniform(32, 256, 17), 4096, False, id="high-rank"),
    ],
)
def test_dy_passes_once_where_that_spares_more_than_it_takes(
    plan: Plan, outputs: int, is_spared: bool
) -> None:
    tables = plan.tables(torch.device("cpu"))
    assert _is_one_pass(tables, 2 * plan.num_rows * outputs) is is_spared
