"""Forward and backward of a group by the Triton kernels: which pass runs on what."""

from typing import Any

import triton
from torch import Tensor

from alto_kernels.lora_linear.kernel.device import (
    first_in_line,
    follow,
    is_hopper,
    join,
    mark,
    next_in_line,
    num_programs,
    whole_numbers,
)
from alto_kernels.lora_linear.kernel.dy_pass import dy_pass
from alto_kernels.lora_linear.kernel.expand import expand
from alto_kernels.lora_linear.kernel.gemm import gemm
from alto_kernels.lora_linear.kernel.outer import add_outer
from alto_kernels.lora_linear.kernel.shrink import shrink
from alto_kernels.lora_linear.path import Path
from alto_kernels.lora_linear.plan import AdaptedGroup, Plan
from alto_kernels.lora_linear.tables import TILE_ROWS, Tables
from alto_kernels.swiglu.kernel import swiglu_bwd

__all__ = ["backward", "forward", "hides_both", "stores_gated"]

_ONE_PASS_RANK, _ONE_PASS_ROWS = 16, 512
# Of one pass over dy: what it takes for rows that it walks one after another, whatever else there
# is; and bytes in a microsecond that it spares the second one. Of an H100.
_STEP_ROWS, _STEP_MICROSECONDS, _SPARED_RATE = 32, 1.0, 3e6
_WIDEST = 256  # columns of a tile
# Operations a microsecond of a multiprocessor in a product, bytes of one beside it, on an H100.
_PRODUCT_RATE, _LEFT_RATE = 5.5e6, 80e3


def forward(
    x_TI: Tensor,
    group: AdaptedGroup,
    plan: Plan,
    path: Path,
    *,
    gated_TF: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y (T, O) and s (P, members * rank width), the scaled shrinks in the pairs' blocks; where
    `stores_gated`, silu(gate) * up of y's two members to `gated_TF`, if that is given."""
    tables, outputs = plan.tables(x_TI.device), group.weight_OI.shape[0]
    a_RC = group.a_RMI.flatten(1)
    inside = path is Path.FUSED and _makes_s_inside(x_TI, group, tables)
    along = path is Path.FUSED and not inside and gated_TF is None
    along = along and _makes_s_along(x_TI, group, tables)
    if inside or along:
        s_PJ = x_TI.new_empty(tables.num_pairs * TILE_ROWS, tables.rank_width * len(group.outputs))
    else:
        s_PJ = shrink(x_TI, a_RC, _input_spans(group), tables, shared=True, number=group.number)
    if path is not Path.FUSED:
        y_TO = expand(
            s_PJ, group.b_RO, group.bias_O, _output_spans(group), tables, outputs, shared=False
        )
        return y_TO if path.is_alone else y_TO.addmm_(x_TI, group.weight_OI.T), s_PJ
    weight, is_oi = _row_major(group.weight_OI)
    y_TO = x_TI.new_empty(x_TI.shape[0], outputs)
    ends = whole_numbers(tuple((c.stop,) for _, c in group.members), x_TI.device)
    _product(
        y_TO, x_TI, weight, group.bias_O, s_PJ, group.b_RO, ends if gated_TF is None else None,
        tables, w_is_nk=is_oi, members=len(group.outputs), block_n=_block_n(group.outputs),
        **({"a_RC": a_RC, "along": along} if inside or along else {}),
        **({} if gated_TF is None else {"gated_TF": gated_TF}),
    )  # fmt: skip
    return y_TO, s_PJ


def stores_gated(x_TI: Tensor, group: AdaptedGroup) -> bool:
    """Whether our own product of y can store what its two members make together."""
    is_wide = all(size % _WIDEST == 0 for size in group.outputs)
    return is_wide and _row_major(group.weight_OI)[1] and _runs_in_gluon(x_TI)


def _makes_s_inside(x_TI: Tensor, group: AdaptedGroup, tables: Tables) -> bool:
    """Whether the product of y makes s itself, beside its first tiles, and is faster for it."""
    if not _may_make_s(x_TI, group, tables):
        return False
    from alto_kernels.lora_linear.kernel.hopper_shrink import producers_of

    members, outputs = len(group.outputs), group.weight_OI.shape[0]
    return producers_of(tables, members, group.inputs, outputs, num_programs(x_TI.device)) > 0


def _makes_s_along(x_TI: Tensor, group: AdaptedGroup, tables: Tables) -> bool:
    """Whether it makes s along with the first tiles of its first programs, and is faster for it."""
    if not _may_make_s(x_TI, group, tables):
        return False
    from alto_kernels.lora_linear.kernel.hopper_shrink import along_pays, fits_along

    fits = fits_along(tables, len(group.outputs), num_programs(x_TI.device))
    return fits and along_pays(tables, group.inputs)


def _may_make_s(x_TI: Tensor, group: AdaptedGroup, tables: Tables) -> bool:
    is_wide = _block_n(group.outputs) == _WIDEST
    return _runs_in_gluon(x_TI) and not tables.has_dropout and is_wide


def backward(
    dy_TO: Tensor,
    x_TI: Tensor,
    s_PJ: Tensor,
    group: AdaptedGroup,
    plan: Plan,
    path: Path,
    *,
    need_dx: bool,
    gates_T2I: Tensor | None = None,
) -> Tensor | None:
    """dx (T, I) if it is needed; the gradients of A and B go to the bank.

    With gate and up side by side, of which x = silu(gate) * up, their gradients in place of dx.

    The product of dx is compute bound and leaves a few multiprocessors alone, so the gradients that
    it does not wait for, which are memory bound, run beside it. Where that is too much for those,
    dB runs beside what makes ds, for both read dy, and the product waits for it too: the rest of it
    would be left with those few.
    """
    device = x_TI.device
    tables, spans = plan.tables(device), _output_spans(group)
    one_pass, db_made = _is_one_pass(tables, dy_TO.nbytes), None
    # Before the lines part: whatever is done to it first is ahead of both.
    dx_TI = x_TI.new_empty(x_TI.shape if gates_T2I is None else gates_T2I.shape)
    with first_in_line(device):
        if one_pass:
            grad_b_RO, widest = group.grad_b_RO, max(group.outputs)
            ds_PJ = dy_pass(dy_TO, s_PJ, group.b_RO, grad_b_RO, spans, tables, widest)
        else:
            ds_PJ = shrink(dy_TO, group.b_RO, spans, tables, shared=False)
        ds_made = mark(device)
    (rows, inputs), outputs = x_TI.shape, group.weight_OI.shape[0]
    db_first = not one_pass and not hides_both(tables, rows, inputs, outputs, num_programs(device))
    if db_first:
        add_outer(s_PJ, dy_TO, group.grad_b_RO, spans, tables, shared=False)
        db_made = mark(device)
    if need_dx:
        with next_in_line(device):
            follow(db_made, device)
            _dx(dx_TI, dy_TO, ds_PJ, group, tables, path, gates_T2I)
    follow(ds_made, device)
    if not one_pass and not db_first:
        add_outer(s_PJ, dy_TO, group.grad_b_RO, spans, tables, shared=False)
    x_spans, grad_a_RC = _input_spans(group), group.grad_a_RMI.flatten(1)
    add_outer(ds_PJ, x_TI, grad_a_RC, x_spans, tables, shared=True, number=group.number)
    join(device)
    return dx_TI if need_dx else None


def _is_one_pass(tables: Tables, dy_bytes: int) -> bool:
    """Whether one pass over dy for ds and dB is faster than one for each.

    Its partial sums grow with the rank, and long segments leave it too few programs (measured on an
    H100). A program of it walks all rows of its segment: where dy is small, that takes longer than
    to read dy again.
    """
    if tables.rank_width > _ONE_PASS_RANK or tables.max_segment > _ONE_PASS_ROWS:
        return False
    walked = triton.cdiv(tables.max_segment, _STEP_ROWS) * _STEP_MICROSECONDS
    return bool(dy_bytes / _SPARED_RATE >= walked)


def hides_both(tables: Tables, rows: int, inputs: int, outputs: int, programs: int) -> bool:
    """Whether x and dy pass through the multiprocessors that dx leaves alone while it is made."""
    tiles = tables.num_tiles * triton.cdiv(inputs, _WIDEST)
    used = triton.cdiv(tiles, max(1, triton.cdiv(tiles, programs)))
    microseconds = 2 * rows * inputs * outputs / (max(1, used) * _PRODUCT_RATE)
    return bool(rows * (inputs + outputs) * 2 <= (programs - used) * _LEFT_RATE * microseconds)


def _dx(
    dx_TI: Tensor,
    dy_TO: Tensor,
    ds_PJ: Tensor,
    group: AdaptedGroup,
    tables: Tables,
    path: Path,
    gates_T2I: Tensor | None,
) -> None:
    """dx = dy W + ds A, the second masked where there is dropout, or that alone; or the gradients
    of gate and up that come of it."""
    a_RC, is_product = group.a_RMI.flatten(1), path is Path.FUSED and not tables.has_dropout
    is_wide = group.inputs % _WIDEST == 0
    if gates_T2I is not None and not (is_product and is_wide and _runs_in_gluon(dy_TO)):
        whole_TI = dy_TO.new_empty(dy_TO.shape[0], group.inputs)
        _dx(whole_TI, dy_TO, ds_PJ, group, tables, path, None)
        gate_TI, up_TI = gates_T2I.chunk(2, dim=1)
        swiglu_bwd(whole_TI, gate_TI, up_TI, dx_TI)
    elif is_product:
        weight, is_oi = _row_major(group.weight_OI)
        _product(
            dx_TI, dy_TO, weight, None, ds_PJ, a_RC, None, tables,
            w_is_nk=not is_oi, members=len(group.outputs), block_n=_block_n((group.inputs,)),
            **({} if gates_T2I is None else {"gates_TO": gates_T2I}),
        )  # fmt: skip
    else:
        expand(
            ds_PJ, a_RC, None, _input_spans(group), tables, group.inputs,
            shared=True, number=group.number, out=dx_TI,
        )  # fmt: skip
        if not path.is_alone:
            dx_TI.addmm_(dy_TO, group.weight_OI)


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


def _product(y_TN: Tensor, *operands: Any, **options: Any) -> None:
    """The persistent product: in Gluon where the card is one it is written for."""
    if _runs_in_gluon(y_TN):
        from alto_kernels.lora_linear.kernel.gemm_hopper import gemm_hopper

        gemm_hopper(y_TN, *operands, **options)
    else:
        gemm(y_TN, *operands, **options)


def _runs_in_gluon(tensor: Tensor) -> bool:
    return is_hopper(tensor.device) and tensor.dtype.itemsize == 2


def _block_n(outputs: tuple[int, ...]) -> int:
    """A tile of columns belongs to one member."""
    return next(n for n in (_WIDEST, 128, 64) if all(size % n == 0 for size in outputs[:-1]))
