"""The definition. Suffixes: those of `lora_linear`, H columns of x and y, F of gate, and of up."""

from torch import Tensor

from alto_kernels.lora_linear import AdaptedGroup, Plan, lora_linear_group_ref
from alto_kernels.swiglu import swiglu_ref

__all__ = ["lora_mlp_ref"]


def lora_mlp_ref(x_TH: Tensor, gate_up: AdaptedGroup, down: AdaptedGroup, plan: Plan) -> Tensor:
    gate_TF, up_TF = lora_linear_group_ref(x_TH, gate_up, plan).chunk(2, dim=1)
    return lora_linear_group_ref(swiglu_ref(gate_TF, up_TF), down, plan)
