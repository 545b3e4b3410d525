"""Run as a program, without the interpreter: every kernel is compiled for sm_90 where there is no
card. Its launchers are called as on a card; a launch compiles, down to the card's own code, and
starts nothing. Prints the kernels that were compiled, a line for each."""

import os
import sys
from threading import Thread
from typing import Any, cast

import torch
from torch import Tensor
from triton import FutureKernel
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from alto_kernels.adamw import Bank, Moments, Update
from alto_kernels.adamw.kernel import adamw_step
from alto_kernels.ahead import compiled_ahead
from alto_kernels.head_norm.kernel import head_norm_bwd, head_norm_fwd
from alto_kernels.linear_cross_entropy.kernel import softmax_losses
from alto_kernels.lora_linear import fused
from alto_kernels.lora_linear.path import Path
from alto_kernels.rms_norm.kernel import add_rms_norm_bwd, add_rms_norm_fwd
from alto_kernels.rope.kernel import rotate, turn
from alto_kernels.swiglu.kernel import swiglu_bwd, swiglu_fwd
from alto_kernels.varlen_attention import CumulativeLengths, tiles
from alto_kernels.varlen_attention.kernel.backward import attention_bwd
from alto_kernels.varlen_attention.kernel.forward import attention_fwd
from tests.kernels.lora_linear.cases import Case, draw, ours
from tests.kernels.lora_mlp.block import Block

BF16 = torch.bfloat16
_MADE = {"inside": "MAKES_S", "along": "ALONG"}


class _NoCard:
    """What Triton asks of a device: that it is an H100."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_ahead() -> set[str]:
    """The names of what is launched from now on, as they are found: all of it ahead of its run,
    whichever thread asks for it."""
    found: set[str] = set()
    run = JITFunction.run

    def noticed(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        assert warmup
        kernel = run(self, *args, grid=grid, warmup=warmup, **options)  # type: ignore[no-untyped-call]
        assert isinstance(kernel, FutureKernel)
        made = [word for word, name in _MADE.items() if options.get(name)]
        found.add(" with s made ".join((f"{self.fn.__module__}.{self.fn.__name__}", *made)))
        return kernel

    setattr(JITFunction, "run", noticed)  # noqa: B010 - a method is none of its types
    driver.set_active(cast(DriverBase, _NoCard()))
    return found


def halves(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=BF16)


def lora_linears() -> None:
    """Both products, one pass over dy and several, dropout, bias, members, s made inside."""
    narrow = Case((128, 60), (16, 16), 256, (256, 256), bias=True)
    wide = Case((600, 40), (64, 8), 256, (64, 64), dropouts=(0.1, 0.0))
    for is_hopper in (False, True):
        vars(fused)["is_hopper"] = lambda device, is_hopper=is_hopper: is_hopper
        for case in (narrow, wide):
            ours(case, draw(case, BF16), BF16, Path.FUSED)
    ours(wide, draw(wide, BF16), BF16, Path.ADDED)
    vars(fused)["_is_one_pass"] = lambda *_: True  # as where there are many more rows
    ours(narrow, draw(narrow, BF16), BF16, Path.FUSED)
    vars(fused)["_makes_s_inside"] = lambda *_: False
    vars(fused)["_makes_s_along"] = lambda *_: True
    ours(narrow, draw(narrow, BF16), BF16, Path.FUSED)


def gated_block() -> None:
    """Products that store what gate and up make, and their gradients."""
    vars(fused)["is_hopper"] = lambda device: True
    case = Case((128, 60), (16, 16), 256, (256, 256))
    Block(case, BF16).ours(Path.FUSED)


def others() -> None:
    for delta in (None, halves(4, 96)):
        new_TH, _, scale_T = add_rms_norm_fwd(halves(4, 96), delta, halves(96), 1e-5)
        add_rms_norm_bwd(delta, halves(4, 96), new_TH, scale_T, halves(96))
    q_TD, k_TD, _ = halves(4, 8 * 32).split([4 * 32, 2 * 32, 2 * 32], dim=1)
    normed = head_norm_fwd(q_TD, k_TD, halves(32), halves(32), 1e-6)
    head_norm_bwd(*normed, q_TD, k_TD, halves(32), halves(32), 1e-6)
    swiglu_fwd(halves(4, 96), halves(4, 96), halves(4, 96))
    swiglu_bwd(halves(4, 96), halves(4, 96), halves(4, 96), halves(4, 192))
    parts = (halves(4, 64), halves(4, 32), halves(4, 32))
    for backwards in (False, True):
        rotate(parts, torch.ones(4, 8), torch.ones(4, 8), backwards=backwards)
    turn(parts[0], torch.ones(4, 8), torch.ones(4, 8))
    for needs_gradient in (False, True):
        targets = torch.zeros(4, dtype=torch.int64)
        softmax_losses(halves(4, 500), targets, torch.zeros(4), needs_gradient)


def attentions() -> None:
    """Each size of a head with its blocks; keys and values with half as many heads."""
    for size in tiles.MIXED:
        q_TD, k_TD, v_TD = halves(70, 8 * size).split([4 * size, 2 * size, 2 * size], dim=1)
        lengths = CumulativeLengths.of((50, 20), q_TD.device)
        cos_Td = sin_Td = torch.ones(70, size // 2)
        mixed_TD, lse_hT = attention_fwd(q_TD, k_TD, v_TD, cos_Td, sin_Td, lengths, size)
        attention_bwd(mixed_TD, q_TD, k_TD, v_TD, mixed_TD, lse_hT, cos_Td, sin_Td, lengths, size)


def optimizer_steps() -> None:
    for in_8_bits in (False, True):
        for copy in (None, halves(8, 300)):
            value, gradient = torch.ones(2, 8, 300).unbind()
            moments = Moments.zeros(8, 300, value.device, in_8_bits=in_8_bits)
            losses = None if copy is None else torch.zeros(1)
            for clip in (None, 1.0):
                update = Update(0, 8, 1, 1e-3, clip=clip)
                adamw_step(Bank(value, gradient, moments, copy), [update], losses)


if __name__ == "__main__":
    found = compile_ahead()
    with compiled_ahead(len(os.sched_getaffinity(0))):
        for launches in (others, attentions, optimizer_steps, lora_linears, gated_block):
            thread = Thread(target=launches)
            thread.start()
            thread.join()
    sys.stdout.write("\n".join(sorted(found)))
