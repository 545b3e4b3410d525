"""Rotary position embedding of queries or keys."""

from alto_kernels.rope.autograd import rope
from alto_kernels.rope.reference import rope_ref

__all__ = ["rope", "rope_ref"]
