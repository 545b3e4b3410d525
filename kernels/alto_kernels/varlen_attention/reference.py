"""The definition, a product for each sequence. Differentiable by PyTorch, and never tuned."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from alto_kernels.varlen_attention.plan import CumulativeLengths

__all__ = ["varlen_attention_ref"]


def varlen_attention_ref(
    q_TD: Tensor, k_TD: Tensor, v_TD: Tensor, lengths: CumulativeLengths, head_size: int
) -> Tensor:
    """(T, D): softmax(q k^T / sqrt(head size)) v over the rows so far of each row's sequence."""
    heads = (t.unflatten(1, (-1, head_size)).transpose(0, 1) for t in (q_TD, k_TD, v_TD))
    parts = (t.split(list(lengths.lengths), dim=1) for t in heads)
    outputs = [
        scaled_dot_product_attention(
            q_htd[None], k_htd[None], v_htd[None],
            is_causal=True, enable_gqa=q_TD.shape[1] != k_TD.shape[1],
        )[0]
        for q_htd, k_htd, v_htd in zip(*parts, strict=True)
    ]  # fmt: skip
    return torch.cat(outputs, dim=1).transpose(0, 1).flatten(1)
