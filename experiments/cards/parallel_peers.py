"""PEFT over several GPUs as users run it today: FSDP2, or DDP, one job after another.

The global batch of a job is spread over the ranks. Where it does not divide, it is filled up with
sequences that nobody asked for, as the ALTO paper does for its baseline; they are computed and not
counted.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from alto_exec.data.samples import Sample
from alto_runs.sample_order import batch_indices
from experiments.backbones.random_backbone import empty_model, fill, fill_ends

__all__ = ["PeftJob", "peft_model"]

_RATE = 1e-4


def peft_model(config: Any, rank: int, device: torch.device, dtype: torch.dtype, wrap: str) -> Any:
    """A model with one adapter on all linears, its layers sharded (`fsdp`) or replicated (`ddp`).

    FSDP2 is given what it is best with here: layers gathered in advance, and gathered again in the
    backward pass; the adapter in the backbone's dtype, so that both come in one message.
    """
    from peft import LoraConfig, get_peft_model

    model = empty_model(config, dtype)
    lora = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    peft = get_peft_model(model, lora, autocast_adapter_dtype=False)
    fill_ends(model, device)
    for number, layer in enumerate(model.model.layers):
        fill(layer, device, 100 + number)
        if wrap == "fsdp":
            _shard(layer)
    if wrap == "fsdp":
        _shard(model)
        return peft.train()
    devices = [device] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(peft.train(), device_ids=devices)


def _shard(module: nn.Module) -> None:
    from torch.distributed.fsdp import fully_shard

    fully_shard(module)


class PeftJob:
    """One job of `batch_size` sequences a step, of which this rank computes its share."""

    def __init__(self, model: Any, samples: Sequence[Sample], batch_size: int) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        trained = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, lr=_RATE)
        size, rank = dist.get_world_size(), dist.get_rank()
        share = -(-batch_size // size)
        rows = range(rank * share, (rank + 1) * share)
        # The first step of the job with seed 0, so that its loss can be held against ours.
        drawn = batch_indices(0, 0, batch_size, len(samples))
        tokens = [samples[drawn[row % batch_size]].tokens for row in rows]
        self._tokens = torch.tensor(tokens, device=self._device)
        self._is_real = torch.tensor([row < batch_size for row in rows], device=self._device)
        # The mean over the ranks is taken by who sums the gradients.
        self._factor = size / batch_size
        self.losses: list[float] = []

    def step(self) -> None:
        loss = self._loss()
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.losses.append(float(loss.detach()))

    def first_loss(self) -> float:
        """Of the first step, over all ranks."""
        found = torch.tensor(self.losses[0] / dist.get_world_size(), device=self._device)
        dist.all_reduce(found)
        return float(found)

    def _loss(self) -> Tensor:
        """The mean over the tokens of the sequences that were asked for."""
        logits = self._model(input_ids=self._tokens).logits[:, :-1].float()
        targets = self._tokens[:, 1:]
        losses = nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), reduction="none"
        )
        per_sequence = losses.view(targets.shape).mean(dim=1)
        return (per_sequence * self._is_real).sum() * self._factor
