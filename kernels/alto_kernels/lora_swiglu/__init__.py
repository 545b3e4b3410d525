"""silu(gate) * up behind two frozen linears with LoRA adapters, as one operation."""

from alto_kernels.lora_swiglu.autograd import lora_swiglu
from alto_kernels.lora_swiglu.reference import lora_swiglu_ref

__all__ = ["lora_swiglu", "lora_swiglu_ref"]
