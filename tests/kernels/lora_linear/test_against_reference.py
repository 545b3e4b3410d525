"""Every path, forward and every gradient, against float64."""

import pytest
import torch

from alto_kernels.lora_linear.path import Path
from tests.kernels.comparing import HALF, ON_GPU, assert_as_exact_as_torch, in_each_dtype
from tests.kernels.lora_linear.cases import NAMES, Case, by_autograd, draw, ours, without_weight

CASES = [
    pytest.param(Case((128, 128), (16, 16)), id="aligned"),
    pytest.param(Case((1, 130, 0, 7), (8, 16, 4, 8)), id="ragged-with-an-empty-segment"),
    pytest.param(
        Case((40, 100, 61), (1, 72, 16), inputs=72, outputs=(64, 64, 24), tail=9),
        id="mixed-ranks-three-members-and-rows-without-adapter",
    ),
    pytest.param(Case((150,), (3,), inputs=40, outputs=(40,), bias=True), id="odd-sizes-and-bias"),
    pytest.param(
        Case((90, 50, 30), (16, 8, 24), outputs=(128, 64), dropouts=(0.5, 0.0, 0.1)), id="dropout"
    ),
    pytest.param(Case((0, 0), (8, 8), tail=33), id="no-segment-has-rows"),
]


@pytest.mark.parametrize("path", list(Path), ids=lambda path: path.value)
@pytest.mark.parametrize(("case", "dtype"), in_each_dtype(CASES))
def test_values_and_gradients(case: Case, dtype: torch.dtype, path: Path) -> None:
    given, t = without_weight(draw(case, dtype), path)
    got, torchs = ours(case, given, dtype, path), by_autograd(case, t, dtype)
    exact = by_autograd(case, t, torch.float64)
    for name in NAMES:
        assert_as_exact_as_torch(got[name], torchs[name], exact[name])


@pytest.mark.usefixtures("one_pass")
@pytest.mark.parametrize(("case", "dtype"), in_each_dtype(CASES[:2]))
def test_values_and_gradients_of_one_pass_over_dy(case: Case, dtype: torch.dtype) -> None:
    test_values_and_gradients(case, dtype, Path.FUSED)


LARGE = [
    pytest.param(Case((256,) * 32, (16,) * 32, inputs=4096, outputs=(4096, 1024, 1024)), id="qkv"),
    pytest.param(
        Case((1000, 24, 0, 2048, 700, 1, 3000, 1419), (8, 128, 16, 64, 256, 32, 48, 100),
             inputs=2048, outputs=(8192, 8192)),
        id="gate-up-ragged-ranks-8-to-256",
    ),
    pytest.param(
        Case((700, 324), (16, 64), inputs=576, outputs=(576, 192, 192), dropouts=(0.1, 0.3)),
        id="small-with-dropout",
    ),
]  # fmt: skip


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="too large for the interpreter")
@pytest.mark.parametrize("path", list(Path), ids=lambda path: path.value)
@pytest.mark.parametrize("case", LARGE)
def test_real_sizes(case: Case, path: Path) -> None:
    given, t = without_weight(draw(case, HALF), path)
    got, torchs = ours(case, given, HALF, path), by_autograd(case, t, HALF)
    exact = by_autograd(case, t, torch.float64)
    for name in NAMES:
        assert_as_exact_as_torch(got[name], torchs[name], exact[name])
