"""Causal attention over sequences that lie end to end in one row."""

from alto_kernels.varlen_attention.attention import CumulativeLengths, varlen_attention

__all__ = ["CumulativeLengths", "varlen_attention"]
