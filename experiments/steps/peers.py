"""Whole training steps as others take them: PEFT with one adapter, and the frozen backbone alone.

Each is a function of no arguments that takes one step and gives its loss. Liger's kernels are
patched into transformers for good, so their peer comes last in a process.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["PEERS", "Step"]

Step = Callable[[], Tensor]


def peft(model: Any, tokens: Tensor, rank: int) -> Step:
    """One adapter on every linear of the blocks, and PyTorch's AdamW."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(model, config).train()
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-4)

    def step() -> Tensor:
        loss: Tensor = adapted(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def frozen_transformers(model: Any, tokens: Tensor, rank: int) -> Step:
    """Forward and backward through the frozen backbone, as an adapter would ask for it."""
    embedded = model.get_input_embeddings()(tokens).detach().requires_grad_()

    def step() -> Tensor:
        loss: Tensor = model(inputs_embeds=embedded, labels=tokens).loss
        loss.backward()
        embedded.grad = None
        return loss.detach()

    return step


def frozen_compiled(model: Any, tokens: Tensor, rank: int) -> Step:
    """The same, each layer compiled by torch.compile."""
    for layer in model.model.layers:
        layer.compile()
    return frozen_transformers(model, tokens, rank)


def frozen_liger(model: Any, tokens: Tensor, rank: int) -> Step:
    """The same, with Liger's kernels in place of transformers' modules."""
    from liger_kernel.transformers import apply_liger_kernel_to_llama

    apply_liger_kernel_to_llama(model=model)
    return frozen_transformers(model.train(), tokens, rank)  # else its loss is not the fused one


PEERS: Mapping[str, Callable[[Any, Tensor, int], Step]] = {
    "peft": peft,
    "frozen-transformers": frozen_transformers,
    "frozen-compiled": frozen_compiled,
    "frozen-liger": frozen_liger,
}
