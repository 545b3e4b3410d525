"""Losses of target tokens behind a frozen head, without the logits of all of them at once."""

from alto_kernels.linear_cross_entropy.autograd import linear_cross_entropy, take_rows
from alto_kernels.linear_cross_entropy.chunks import chunk_rows
from alto_kernels.linear_cross_entropy.reference import linear_cross_entropy_ref

__all__ = ["chunk_rows", "linear_cross_entropy", "linear_cross_entropy_ref", "take_rows"]
