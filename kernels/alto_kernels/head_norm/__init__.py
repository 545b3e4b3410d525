"""Root-mean-square norms of each head's queries and keys, as Qwen 3 has them."""

from alto_kernels.head_norm.autograd import head_norm
from alto_kernels.head_norm.reference import head_norm_ref

__all__ = ["head_norm", "head_norm_ref"]
