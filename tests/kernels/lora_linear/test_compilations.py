"""What differs from batch to batch must not compile a kernel anew: that takes seconds each time."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from alto_kernels.lora_linear import Path
from alto_kernels.lora_linear.kernel import dy_pass, expand, outer, shrink
from tests.kernels.comparing import ON_GPU
from tests.kernels.lora_linear.cases import Case, draw, ours


def _jitted() -> Iterator[Any]:
    from alto_kernels.lora_linear.kernel import gemm_hopper

    for module in (dy_pass, expand, outer, shrink, gemm_hopper):
        for function in vars(module).values():
            if hasattr(function, "device_caches"):
                yield function


def _compiled() -> int:
    return sum(len(caches[0]) for f in _jitted() for caches in f.device_caches.values())


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="the interpreter compiles nothing")
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_another_number_of_rows_compiles_nothing(dropout: float) -> None:
    """Whether it is a multiple of 16 or not."""

    def run(sizes: tuple[int, ...]) -> int:
        case = Case(sizes, (16,) * len(sizes), 256, (256, 256), dropouts=(dropout,) * len(sizes))
        for path in (Path.FUSED, Path.ADDED):
            ours(case, draw(case, torch.bfloat16), torch.bfloat16, path)
        return _compiled()

    first = run((512, 512, 512))
    assert first > 0
    for sizes in ((512, 512, 497), (512, 400, 300, 11), (512, 512, 512, 512, 512)):
        assert run(sizes) == first, sizes
