"""Causal attention over packed rows: a sequence attends to itself alone.

transformers hands its models' queries, keys and values to a function registered by name; ours
cuts the packed row by the lengths that travel along as the keyword `sequence_lengths`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from alto_kernels.varlen_attention import CumulativeLengths, flash_attention
from alto_runs.errors import UserError

__all__ = ["packed_attention", "use_packed_attention"]

_NAME = "alto_packed"
# Sparse attention, biases and sinks of other kinds: what some of transformers' models give beside
# queries, keys and values. To leave one out would compute another model, in silence.
_UNSUPPORTED = ("position_bias", "indices", "block_indices", "sinks")
_LOOK_TOKENS = 8  # of each sequence in a look at whether they feel each other


def use_packed_attention(model: Any) -> None:
    """Switch a transformers causal LM to packed attention.

    Raises UserError for architectures that compute attention in a way of their own, and for those
    in which tokens meet elsewhere.
    """
    from transformers import AttentionInterface

    if not getattr(model, "_supports_attention_backend", False):
        raise UserError(
            f"model: {type(model).__name__} computes attention by itself, so sequences cannot be "
            "packed; choose an architecture with transformers' attention interface"
        )
    if "chunked_attention" in (getattr(model.config, "layer_types", None) or ()):
        raise UserError(f"model: {type(model).__name__} attends in chunks, which is not supported")
    AttentionInterface.register(_NAME, packed_attention)
    model.set_attn_implementation(_NAME)
    if _leaks(model):
        raise UserError(
            f"model: {type(model).__name__} mixes tokens outside attention (by a convolution or a "
            "recurrence), so sequences cannot be packed; choose a transformer without"
        )


@torch.no_grad()
def _leaks(model: Any) -> bool:
    """Whether a sequence feels that the one beside it is not a number."""
    lengths = CumulativeLengths.of((_LOOK_TOKENS,) * 3, model.device)
    tokens = torch.arange(3 * _LOOK_TOKENS, device=model.device)[None] % _LOOK_TOKENS

    def is_number(poison: float) -> Tensor:
        def poisoned(module: Any, inputs: Any, embedded: Tensor) -> Tensor:
            embedded = embedded.clone()
            embedded[:, _LOOK_TOKENS : 2 * _LOOK_TOKENS] += poison
            return embedded

        hook = model.get_input_embeddings().register_forward_hook(poisoned)
        try:
            output = model(
                input_ids=tokens, position_ids=tokens, use_cache=False, sequence_lengths=lengths
            )
        finally:
            hook.remove()
        first, _, last = output.logits[0].isfinite().all(dim=1).split(_LOOK_TOKENS)
        return torch.stack((first, last))

    return not torch.equal(is_number(0.0), is_number(torch.nan))


def packed_attention(  # noqa: PLR0913 - transformers calls it with these
    module: Any,
    query: Tensor,  # (1, heads, T, head size)
    key: Tensor,  # (1, key heads, T, head size)
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sequence_lengths: CumulativeLengths | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,  # (heads,) of GPT-OSS: a score that nothing is seen for
    **others: Any,
) -> tuple[Tensor, None]:
    """(1, T, heads, head size), and no weights."""
    if sequence_lengths is None:
        raise UserError("model: its layers keep from attention where sequences end")
    if unsupported := [name for name in _UNSUPPORTED if others.get(name) is not None]:
        raise UserError(f"model: attention with {unsupported[0]} is not supported")
    if not getattr(module, "is_causal", True) or others.get("is_causal") is False:
        raise UserError("model: attention to tokens that come later is not supported")
    if _is_for_flash(query, value) and softcap is None and s_aux is None:
        q, k, v = (t[0].transpose(0, 1).flatten(1) for t in (query, key, value))
        mixed = flash_attention(q, k, v, sequence_lengths, query.shape[3], scaling, sliding_window)
        return mixed.unflatten(1, (-1, query.shape[3]))[None], None
    grouped = query.shape[1] != key.shape[1]
    outputs = []  # (1, heads, t, head size) of each sequence
    parts = (torch.split(t, list(sequence_lengths.lengths), dim=2) for t in (query, key, value))
    for q, k, v in zip(*parts, strict=True):
        windowed = sliding_window is not None and q.shape[2] > sliding_window
        if softcap is not None or s_aux is not None:
            outputs.append(_by_scores(q, k, v, scaling, sliding_window, softcap, s_aux))
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


def _is_for_flash(query: Tensor, value: Tensor) -> bool:
    """All sequences in one launch, where PyTorch's flash attention takes heads of this size."""
    size = query.shape[3]
    fits = size == value.shape[3] and size % 8 == 0 and size <= 256
    return query.is_cuda and query.dtype.itemsize == 2 and fits


def _window_mask(length: int, window: int | None, device: torch.device) -> Tensor:
    """(length, length) bool: a position sees itself and the `window - 1` positions before it."""
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return causal if window is None else causal.triu(1 - window)


def _by_scores(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attention whose scores pass through softcap * tanh(score / softcap), as in Gemma 2, or share
    their weight with a sink of each head, as in GPT-OSS."""
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
    scores = q @ k.mT * (scaling if scaling is not None else q.shape[-1] ** -0.5)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~_window_mask(q.shape[2], window, q.device), -torch.inf)
    if sinks is not None:
        beside = sinks.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, beside], dim=-1)
    # Gemma 2's weights are fp32 in transformers even where all else is wider.
    own = torch.float32 if sinks is None else torch.promote_types(scores.dtype, torch.float32)
    weights = scores.softmax(dim=-1, dtype=own)
    return weights[..., : k.shape[2]].to(v.dtype) @ v
