"""A decoder's gated block behind frozen linears with LoRA adapters, as one operation."""

from alto_kernels.lora_mlp.autograd import lora_mlp
from alto_kernels.lora_mlp.reference import lora_mlp_ref

__all__ = ["lora_mlp", "lora_mlp_ref"]
