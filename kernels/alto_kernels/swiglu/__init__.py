"""silu(gate) * up, the middle of a gated feed-forward layer."""

from alto_kernels.swiglu.autograd import swiglu
from alto_kernels.swiglu.reference import swiglu_ref

__all__ = ["swiglu", "swiglu_ref"]
