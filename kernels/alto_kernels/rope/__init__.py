"""Rotary position embedding of queries and keys (Su et al. 2021), in halves as Llama has it."""

from alto_kernels.rope.autograd import rope
from alto_kernels.rope.reference import rope_ref

__all__ = ["rope", "rope_ref"]
