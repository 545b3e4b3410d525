"""Forward and backward by the kernels of `lora_linear`: where they can, its products store what
gate and up make, and their gradients."""

from typing import NamedTuple

from torch import Tensor

from alto_kernels.lora_linear import AdaptedGroup, Path, Plan
from alto_kernels.lora_linear import fused as linears
from alto_kernels.swiglu.kernel import swiglu_fwd

__all__ = ["Kept", "backward", "forward"]


class Kept(NamedTuple):
    """For the backward pass, beside x."""

    gates_T2F: Tensor  # gate and up side by side
    gates_s_PJ: Tensor  # their scaled shrinks
    mixed_TF: Tensor  # silu(gate) * up
    down_s_PJ: Tensor


def forward(
    x_TH: Tensor, gate_up: AdaptedGroup, down: AdaptedGroup, plan: Plan
) -> tuple[Tensor, Kept]:
    mixed_TF = x_TH.new_empty(x_TH.shape[0], down.inputs)
    if linears.stores_gated(x_TH, gate_up):
        both = linears.forward(x_TH, gate_up, plan, Path.FUSED, gated_TF=mixed_TF)
    else:
        both = linears.forward(x_TH, gate_up, plan, Path.FUSED)
        gate_TF, up_TF = both[0].chunk(2, dim=1)
        swiglu_fwd(gate_TF, up_TF, mixed_TF)
    y_TH, down_s_PJ = linears.forward(mixed_TF, down, plan, Path.FUSED)
    return y_TH, Kept(*both, mixed_TF, down_s_PJ)


def backward(
    dy_TH: Tensor,
    x_TH: Tensor,
    kept: Kept,
    gate_up: AdaptedGroup,
    down: AdaptedGroup,
    plan: Plan,
    *,
    need_dx: bool,
) -> Tensor | None:
    """dx (T, H) if it is needed; the gradients of A and B go to the bank."""
    dgates_T2F = linears.backward(
        dy_TH, kept.mixed_TF, kept.down_s_PJ, down, plan, Path.FUSED,
        need_dx=True, gates_T2I=kept.gates_T2F,
    )  # fmt: skip
    assert dgates_T2F is not None
    return linears.backward(
        dgates_T2F, x_TH, kept.gates_s_PJ, gate_up, plan, Path.FUSED, need_dx=need_dx
    )
