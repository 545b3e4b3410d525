"""Root-mean-square normalisation with a frozen weight."""

from alto_kernels.rms_norm.autograd import rms_norm
from alto_kernels.rms_norm.reference import rms_norm_ref

__all__ = ["rms_norm", "rms_norm_ref"]
