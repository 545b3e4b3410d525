"""Forward and backward by the Triton kernels: which pass runs on what."""

from torch import Tensor

from alto_kernels.lora_linear import AdaptedGroup, Path, Plan
from alto_kernels.lora_linear import fused as linears
from alto_kernels.lora_linear.kernel.device import first_in_line, mark, num_programs
from alto_kernels.lora_swiglu.kernel import MOST_RANKS, gated_ds
from alto_kernels.swiglu.kernel import swiglu_bwd, swiglu_fwd

__all__ = ["backward", "forward"]


def forward(
    x_TI: Tensor, group: AdaptedGroup, plan: Plan, path: Path
) -> tuple[Tensor, Tensor, Tensor]:
    """y (T, F), gate and up (T, O) side by side, and their scaled shrinks."""
    if linears.stores_gated(x_TI, group, path):
        y_TF = x_TI.new_empty(x_TI.shape[0], group.outputs[0])
        return y_TF, *linears.forward(x_TI, group, plan, path, gated_TF=y_TF)
    both_TO, s_PJ = linears.forward(x_TI, group, plan, path)
    return swiglu_fwd(*both_TO.chunk(2, dim=1)), both_TO, s_PJ


def backward(
    dy_TF: Tensor,
    x_TI: Tensor,
    both_TO: Tensor,
    s_PJ: Tensor,
    group: AdaptedGroup,
    plan: Plan,
    path: Path,
    *,
    need_dx: bool,
) -> Tensor | None:
    """dx (T, I) if it is needed; the gradients of A and B go to the bank.

    The pass that makes the gradients of gate and up makes ds of them too, where dB, which reads
    them once more, is hidden beside the product of dx.
    """
    tables, device = plan.tables(x_TI.device), x_TI.device
    outputs = group.weight_OI.shape[0]
    hides_db = linears.hides_both(tables, *x_TI.shape, outputs, num_programs(device))
    if tables.rank_width > MOST_RANKS or not hides_db:
        dboth_TO = swiglu_bwd(dy_TF, *both_TO.chunk(2, dim=1))
        return linears.backward(dboth_TO, x_TI, s_PJ, group, plan, path, need_dx=need_dx)
    dboth_TO = both_TO.new_empty(both_TO.shape)
    with first_in_line(device):
        ds_PJ = gated_ds(dy_TF, both_TO, dboth_TO, s_PJ, group.b_RO, tables)
        made = mark(device)
    narrow = linears.Narrow(ds_PJ, made, has_db=False)
    return linears.behind_ds(narrow, dboth_TO, x_TI, s_PJ, group, tables, path, need_dx=need_dx)
