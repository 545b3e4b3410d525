"""Backbones of random weights, made on the device a layer at a time: none is ever there as a whole
that need not be."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import nn

__all__ = ["SHAPES", "empty_model", "fill", "fill_ends", "with_layers_made_in_turn"]

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
        "tie_word_embeddings": True,
    },
    "135m": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "8b": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    },
    "32b": {
        "hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64,
        "num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 152064,
    },
    "70b": {
        "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
    },
}  # fmt: skip
_DEVIATION = 0.02


def empty_model(shape: str, dtype: torch.dtype) -> Any:
    """A transformers causal LM without memory."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=8192, rms_norm_eps=1e-5)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.requires_grad_(False).eval()


def fill(module: nn.Module, device: torch.device, seed: int) -> None:
    """Give the module memory, and values that depend on the seed and on the shapes alone."""
    module.to_empty(device=device)
    dice = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
            elif parameter.ndim == 1:
                parameter.fill_(1.0)
            elif "lora_A" not in name:  # PEFT's adapters have values of their own
                parameter.normal_(std=_DEVIATION, generator=dice)
            else:
                nn.init.kaiming_uniform_(parameter, a=5**0.5)


def fill_ends(model: Any, device: torch.device) -> None:
    """Embeddings, last norm and head; where a rotation begins."""
    inner = model.model
    fill(inner.embed_tokens, device, 1)
    fill(inner.norm, device, 2)
    if model.config.tie_word_embeddings:
        model.lm_head.weight = inner.embed_tokens.weight
    else:
        fill(model.lm_head, device, 3)
    with device:
        inner.rotary_emb = type(inner.rotary_emb)(config=model.config)


def with_layers_made_in_turn(shape: str, device: torch.device, dtype: torch.dtype) -> Any:
    """A model whose layers come into being when they are gone through, one after another."""
    model = empty_model(shape, dtype)
    fill_ends(model, device)
    model.model.layers = _MadeInTurn(model.model.layers, device)
    return model


class _MadeInTurn(nn.ModuleList):
    def __init__(self, layers: nn.ModuleList, device: torch.device) -> None:
        super().__init__(list(layers.children()))
        self._target = device

    def __iter__(self) -> Iterator[nn.Module]:
        for number, empty in enumerate(self._modules.values()):
            assert empty is not None
            layer = deepcopy(empty)
            fill(layer, self._target, 100 + number)
            yield layer
