"""The definition. Suffixes: those of `lora_linear`, and F columns of gate, and of up."""

from torch import Tensor

from alto_kernels.lora_linear import AdaptedGroup, Plan, lora_linear_group_ref
from alto_kernels.swiglu import swiglu_ref

__all__ = ["lora_swiglu_ref"]


def lora_swiglu_ref(x_TI: Tensor, group: AdaptedGroup, plan: Plan) -> Tensor:
    gate_TF, up_TF = lora_linear_group_ref(x_TI, group, plan).chunk(2, dim=1)
    return swiglu_ref(gate_TF, up_TF)
