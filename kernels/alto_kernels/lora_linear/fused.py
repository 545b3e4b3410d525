"""Forward and backward of a group by the Triton kernels: which pass runs on what."""

from typing import Any

from torch import Tensor

from alto_kernels.lora_linear.kernel.device import is_hopper, whole_numbers
from alto_kernels.lora_linear.kernel.dy_pass import dy_pass
from alto_kernels.lora_linear.kernel.expand import expand
from alto_kernels.lora_linear.kernel.gemm import gemm
from alto_kernels.lora_linear.kernel.outer import add_outer
from alto_kernels.lora_linear.kernel.shrink import shrink
from alto_kernels.lora_linear.path import Path
from alto_kernels.lora_linear.plan import AdaptedGroup, Plan
from alto_kernels.lora_linear.tables import Tables

__all__ = ["backward", "forward"]

_ONE_PASS_RANK = 32


def forward(x_TI: Tensor, group: AdaptedGroup, plan: Plan, path: Path) -> tuple[Tensor, Tensor]:
    """y (T, O) and s (P, members * rank width), the scaled shrinks in the pairs' blocks."""
    tables = plan.tables(x_TI.device)
    a_RC = group.a_RMI.flatten(1)
    s_PJ = shrink(x_TI, a_RC, _input_spans(group), tables, shared=True, number=group.number)
    weight, is_oi = _row_major(group.weight_OI)
    if path is Path.FUSED:
        ends = whole_numbers(tuple((c.stop,) for _, c in group.members), x_TI.device)
        y_TO = _product(
            x_TI, weight, group.bias_O, s_PJ, group.b_RO, ends, tables,
            w_is_nk=is_oi, members=len(group.outputs), block_n=_block_n(group.outputs),
        )  # fmt: skip
    else:
        y_TO = expand(
            s_PJ, group.b_RO, group.bias_O, _output_spans(group), tables, group.weight_OI.shape[0],
            shared=False,
        )  # fmt: skip
        y_TO.addmm_(x_TI, group.weight_OI.T)
    return y_TO, s_PJ


def backward(
    dy_TO: Tensor,
    x_TI: Tensor,
    s_PJ: Tensor,
    group: AdaptedGroup,
    plan: Plan,
    path: Path,
    *,
    need_dx: bool,
) -> Tensor | None:
    """dx (T, I) if it is needed; adds dA and dB to the gradients of the bank."""
    tables = plan.tables(x_TI.device)
    spans, output_spans = _input_spans(group), _output_spans(group)
    ds_PJ = _dy_passes(dy_TO, s_PJ, group, output_spans, tables)
    grad_a_RC = group.grad_a_RMI.flatten(1)
    add_outer(ds_PJ, x_TI, grad_a_RC, spans, tables, shared=True, number=group.number)
    if not need_dx:
        return None
    a_RC = group.a_RMI.flatten(1)
    weight, is_oi = _row_major(group.weight_OI)
    if path is Path.FUSED and not tables.has_dropout:
        return _product(
            dy_TO, weight, None, ds_PJ, a_RC, None, tables,
            w_is_nk=not is_oi, members=len(group.outputs), block_n=_block_n((group.inputs,)),
        )  # fmt: skip
    dx_TI = expand(ds_PJ, a_RC, None, spans, tables, group.inputs, shared=True, number=group.number)
    return dx_TI.addmm_(dy_TO, group.weight_OI)


def _dy_passes(
    dy_TO: Tensor, s_PJ: Tensor, group: AdaptedGroup, spans: Tensor, tables: Tables
) -> Tensor:
    """ds; adds dB to the bank. One pass over dy writes partial sums that grow with the rank."""
    if tables.rank_width <= _ONE_PASS_RANK:
        return dy_pass(dy_TO, s_PJ, group.b_RO, group.grad_b_RO, spans, tables, max(group.outputs))
    add_outer(s_PJ, dy_TO, group.grad_b_RO, spans, tables, shared=False)
    return shrink(dy_TO, group.b_RO, spans, tables, shared=False)


def _input_spans(group: AdaptedGroup) -> Tensor:
    """Of each member: its first column in x, its first column of A in the bank, and how many."""
    inputs = group.inputs
    rows = tuple((0, index * inputs, inputs) for index, _ in group.members)
    return whole_numbers(rows, group.weight_OI.device)


def _output_spans(group: AdaptedGroup) -> Tensor:
    rows = tuple((c.start, c.start, c.stop - c.start) for _, c in group.members)
    return whole_numbers(rows, group.weight_OI.device)


def _row_major(weight_OI: Tensor) -> tuple[Tensor, bool]:
    """The weight as it lies in memory, and whether that is (O, I)."""
    if weight_OI.stride(-1) == 1:
        return weight_OI, True
    return weight_OI.T, False


def _product(x_TK: Tensor, *operands: Any, **options: Any) -> Tensor:
    """The persistent product: in Gluon where the card is one it is written for."""
    if is_hopper(x_TK.device) and x_TK.dtype.itemsize == 2:
        from alto_kernels.lora_linear.kernel.gemm_hopper import gemm_hopper

        return gemm_hopper(x_TK, *operands, **options)
    return gemm(x_TK, *operands, **options)


def _block_n(outputs: tuple[int, ...]) -> int:
    """A tile of columns belongs to one member."""
    return next(n for n in (256, 128, 64) if all(size % n == 0 for size in outputs[:-1]))
