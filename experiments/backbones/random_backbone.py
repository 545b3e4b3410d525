"""Backbones of random weights, made on the device a layer at a time: none is ever there as a whole
that need not be."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from alto_exec.profiling.synthetic import random_model

__all__ = ["empty_model", "fill", "fill_ends", "with_layers_made_in_turn"]

_DEVIATION = 0.02


def empty_model(config: Any, dtype: torch.dtype) -> Any:
    """A transformers causal LM without memory."""
    return random_model(config, torch.device("meta"), dtype)


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


def with_layers_made_in_turn(config: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A model whose layers come into being when they are gone through, one after another."""
    model = empty_model(config, dtype)
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
