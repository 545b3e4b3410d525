"""The output head and its cross-entropy in one, summed for each segment of rows."""

from alto_kernels.linear_cross_entropy.autograd import linear_cross_entropy
from alto_kernels.linear_cross_entropy.reference import linear_cross_entropy_ref

__all__ = ["linear_cross_entropy", "linear_cross_entropy_ref"]
