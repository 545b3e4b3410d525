"""Root-mean-square norm of a residual stream, after what is added to it."""

from alto_kernels.rms_norm.autograd import add_rms_norm
from alto_kernels.rms_norm.reference import add_rms_norm_ref

__all__ = ["add_rms_norm", "add_rms_norm_ref"]
