"""Causal attention over packed rows: a sequence attends to itself alone.

transformers hands its models' queries, keys and values to a function registered by name; ours
cuts the packed row by the lengths that travel along as the keyword `sequence_lengths`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from alto_runs.errors import UserError

__all__ = ["packed_attention", "use_packed_attention"]

_NAME = "alto_packed"
_UNSUPPORTED = ("s_aux", "position_bias")


def use_packed_attention(model: Any) -> None:
    """Switch a transformers causal LM to packed attention.

    Raises UserError for architectures that compute attention in a way of their own.
    """
    from transformers import AttentionInterface

    if not getattr(model, "_supports_attention_backend", False):
        raise UserError(
            f"model: {type(model).__name__} computes attention by itself, so sequences cannot be "
            "packed; choose an architecture with transformers' attention interface"
        )
    AttentionInterface.register(_NAME, packed_attention)
    model.set_attn_implementation(_NAME)


def packed_attention(  # noqa: PLR0913 - transformers calls it with these
    module: Any,
    query: Tensor,  # (1, heads, T, head size)
    key: Tensor,  # (1, key heads, T, head size)
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sequence_lengths: tuple[int, ...],
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """(1, T, heads, head size), and no weights."""
    if unsupported := [name for name in _UNSUPPORTED if others.get(name) is not None]:
        raise UserError(f"model: attention with {unsupported[0]} is not supported")
    grouped = query.shape[1] != key.shape[1]
    outputs = []  # (1, heads, t, head size) of each sequence
    parts = (torch.split(t, list(sequence_lengths), dim=2) for t in (query, key, value))
    for q, k, v in zip(*parts, strict=True):
        windowed = sliding_window is not None and q.shape[2] > sliding_window
        if softcap is not None:
            outputs.append(_capped(q, k, v, scaling, sliding_window, softcap))
        elif windowed:
            mask = _window_mask(q.shape[2], sliding_window, q.device)
            outputs.append(
                scaled_dot_product_attention(
                    q, k, v, attn_mask=mask, scale=scaling, enable_gqa=grouped
                )
            )
        else:
            outputs.append(
                scaled_dot_product_attention(
                    q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped
                )
            )
    return torch.cat([output.transpose(1, 2) for output in outputs], dim=1), None


def _window_mask(length: int, window: int | None, device: torch.device) -> Tensor:
    """(length, length) bool: a position sees itself and the `window - 1` positions before it."""
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return causal if window is None else causal.triu(1 - window)


def _capped(
    q: Tensor, k: Tensor, v: Tensor, scaling: float | None, window: int | None, softcap: float
) -> Tensor:
    """Attention whose scores pass through softcap * tanh(score / softcap), as in Gemma 2."""
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
    scale = scaling if scaling is not None else q.shape[-1] ** -0.5
    scores = softcap * torch.tanh(q @ k.mT * scale / softcap)
    scores = scores.masked_fill(~_window_mask(q.shape[2], window, q.device), -torch.inf)
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype) @ v
