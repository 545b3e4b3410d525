"""What training and evaluation ask of a frozen backbone, however it is computed."""

from typing import Protocol

import torch
from torch import Tensor

from alto_exec.adapters.bank import AdapterBank, LinearShape
from alto_exec.adapters.peft_format import BaseModel
from alto_exec.passes.activations import Activations
from alto_exec.passes.batch import PackedBatch
from alto_exec.passes.cuda_graphs import Replayed
from alto_exec.passes.weighing import Weigh

__all__ = ["FrozenModel"]


class FrozenModel(Protocol):
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def shapes(self) -> tuple[LinearShape, ...]:
        """Of the linears with adapters, in the order of the model."""
        ...

    @property
    def base_model(self) -> BaseModel: ...
    @property
    def vocabulary_size(self) -> int: ...
    @property
    def num_bytes(self) -> int:
        """Memory of the frozen weights."""
        ...

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens after which the model has said all it wants to say."""
        ...

    @property
    def activations(self) -> Activations:
        """Which of them are computed again."""
        ...

    @property
    def replayed(self) -> Replayed:
        """Training passes so far that were not launched."""
        ...

    @property
    def travelled(self) -> int:
        """Training passes so far in which tokens went to shards of the weights."""
        ...

    def loss_sums(self, bank: AdapterBank, batch: PackedBatch) -> Tensor:
        """(shares,) fp32 or wider: the losses of each share's target tokens, summed."""
        ...

    def train(self, bank: AdapterBank, batch: PackedBatch, weigh: Weigh) -> Tensor:
        """(N,) loss of each target; the gradients of their weighted sum are added to the bank.

        What is handed back is good until the next pass.
        """
        ...

    def target_logits(self, bank: AdapterBank, batch: PackedBatch) -> Tensor:
        """(targets, vocabulary), fp32 or wider: what is predicted for each target token."""
        ...
