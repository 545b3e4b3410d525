"""Causal attention over sequences that lie end to end in one row."""

from alto_kernels.varlen_attention.autograd import flash_attention, varlen_attention
from alto_kernels.varlen_attention.plan import CumulativeLengths
from alto_kernels.varlen_attention.reference import varlen_attention_ref

__all__ = ["CumulativeLengths", "flash_attention", "varlen_attention", "varlen_attention_ref"]
