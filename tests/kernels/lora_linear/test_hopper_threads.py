"""The product of Hopper cards, its partitions and programs as threads, against float64."""

import sys
from collections.abc import Iterator

import pytest
import torch

from alto_kernels.lora_linear import Path, fused
from tests.kernels.comparing import HALF, ON_GPU, assert_as_exact_as_torch
from tests.kernels.gluon_threads import interpreted
from tests.kernels.lora_linear.cases import NAMES, Case, by_autograd, draw, ours
from tests.kernels.lora_mlp.block import Block

pytestmark = pytest.mark.skipif(ON_GPU, reason="on a card the kernels run as they are")

_FOLDER = "alto_kernels.lora_linear.kernel"
CASES = [
    pytest.param(Case((128, 128), (16, 16), inputs=128, outputs=(256,)), id="aligned"),
    pytest.param(
        Case((1, 130, 0, 7), (8, 16, 4, 8), inputs=128, outputs=(512,)),
        id="ragged-with-an-empty-segment",
    ),
    pytest.param(
        Case((40, 100, 61), (1, 72, 16), inputs=200, outputs=(256, 512, 24), tail=9),
        id="mixed-ranks-three-members-and-rows-without-adapter",
    ),
    pytest.param(Case((150,), (3,), inputs=40, outputs=(256,), bias=True), id="odd-sizes-and-bias"),
]


@pytest.fixture(autouse=True)
def hopper(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    names = ("hopper_tiles", "hopper_shrink", "hopper_along", "hopper_gates", "gemm_hopper")
    monkeypatch.setattr(fused, "is_hopper", lambda _: True)
    with interpreted([f"{_FOLDER}.{name}" for name in names]):
        yield


ALONG = [
    *CASES[:2],
    CASES[3],
    pytest.param(
        Case((40, 100, 240), (1, 9, 16), inputs=200, outputs=(256, 512), tail=2),
        id="two-members-and-three-rows-of-tiles",
    ),
    pytest.param(Case((128, 200), (64, 40), inputs=128, outputs=(256,)), id="ranks-to-64"),
    pytest.param(
        Case((100, 90), (16, 5), inputs=600, outputs=(768,)), id="a-program-that-makes-none"
    ),
    pytest.param(Case((128, 0), (16, 4), inputs=128, outputs=(256,), tail=70), id="no-adapter"),
]


@pytest.mark.parametrize(
    ("case", "where"),
    [
        *(pytest.param(*each.values, where, id=f"{each.id}-{where}")
          for where in ("before", "inside") for each in CASES),
        *(pytest.param(*each.values, "along", id=f"{each.id}-along") for each in ALONG),
    ],
)  # fmt: skip
def test_values_and_gradients(case: Case, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_makes_s_inside", lambda *_: where == "inside")
    monkeypatch.setattr(fused, "_makes_s_along", lambda *_: where == "along")
    monkeypatch.setattr(sys.modules[f"{_FOLDER}.gemm_hopper"], "producers_of", lambda *_: 2)
    t = draw(case, HALF)
    got, torchs = ours(case, t, HALF, Path.FUSED), by_autograd(case, t, HALF)
    exact = by_autograd(case, t, torch.float64)
    for name in NAMES:
        assert_as_exact_as_torch(got[name], torchs[name], exact[name])


def test_gated_block() -> None:
    Block(Case((1, 130, 7), (8, 16, 3), inputs=40, outputs=(256, 256), tail=41), HALF).assert_exact(
        Path.FUSED
    )
