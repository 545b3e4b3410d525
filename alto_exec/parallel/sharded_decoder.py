"""A decoder of sharded layers: each rank computes its own batch, all make the same steps."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alto_exec.adapters.bank import AdapterBank, LinearShape
from alto_exec.adapters.peft_format import BaseModel
from alto_exec.backbones.decoder import Decoder
from alto_exec.backbones.linears import ALL_LINEAR
from alto_exec.parallel.agreement import Pass
from alto_exec.parallel.ranks import Ranks
from alto_exec.parallel.sharded_layers import ShardedLayers, spread_evenly
from alto_exec.parallel.shared_passes import Part, SharedPasses
from alto_exec.passes.activations import Activations
from alto_exec.passes.batch import PackedBatch
from alto_exec.passes.cuda_graphs import Replayed
from alto_exec.passes.weighing import FixedWeights, Weigh
from alto_policy.executors.exchange import Way
from alto_policy.memory import SPARE
from alto_runs.costs.recording import most_recorded_in_shards

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ShardedDecoder"]


class ShardedDecoder:
    """A FrozenModel, one on each rank. Before a pass the ranks agree on what it is for, whether it
    is recorded, and which way is cheaper for their tokens: to gather weights, or to send the tokens
    to them.

    The adapters, their gradients and optimizers stay with the rank that owns the job: nothing of
    them is sent. Embeddings, head and norms are whole on every rank, and so many `whole_layers`.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        ranks: Ranks,
        targets: str | Sequence[str] = ALL_LINEAR,
        *,
        recompute: bool = False,
        whole_layers: int = 0,
        way: Way | None = None,
        records: bool = True,
    ) -> None:
        """The model may be on the CPU: a layer at a time is taken from there. All passes go the
        `way` that is named, alike on all ranks, and are launched unless this one `records`."""
        num_layers = model.config.num_hidden_layers
        self.layers = ShardedLayers(
            ranks, spread_evenly(whole_layers, num_layers), can_be_recorded=records
        )
        self._decoder = Decoder(model, targets, recompute=recompute, keeper=self.layers)
        linears = self.layers.linears
        self._worth_recording = self._decoder.most_recorded_tokens
        if linears.layers:
            self._worth_recording = most_recorded_in_shards(linears)
        self._ranks = ranks
        self.passes = SharedPasses(ranks, self.layers, self.activations, way)

    @property
    def device(self) -> torch.device:
        return self._decoder.device

    @property
    def dtype(self) -> torch.dtype:
        return self._decoder.dtype

    @property
    def shapes(self) -> tuple[LinearShape, ...]:
        """Of the linears with adapters, in the order of the model."""
        return self._decoder.shapes

    @property
    def base_model(self) -> BaseModel:
        return self._decoder.base_model

    @property
    def vocabulary_size(self) -> int:
        return self._decoder.vocabulary_size

    @property
    def num_bytes(self) -> int:
        """Memory of the frozen weights on this rank: shards, what is whole, layers at hand."""
        return self._decoder.num_bytes

    @property
    def replayed(self) -> Replayed:
        return self.passes.replayed

    @property
    def travelled(self) -> int:
        return self.passes.travelled

    @property
    def most_recorded_tokens(self) -> int:
        """Of a pass worth recording, on the rank that has the most."""
        return min(self._decoder.most_recorded_tokens, self._worth_recording)

    @property
    def activations(self) -> Activations:
        return self._decoder.activations

    @property
    def num_layers(self) -> int:
        return self._decoder.num_layers

    @property
    def exchanged_bytes(self) -> int:
        """Most that is held here for tokens that travel."""
        return 0 if self.activations.recompute else self.layers.linears.most_exchanged_bytes()

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens after which the model has said all it wants to say."""
        return self._decoder.end_tokens

    def loss_sums(self, bank: AdapterBank, batch: PackedBatch) -> Tensor:
        """(shares,) fp32 or wider: the losses of each share's target tokens, summed."""
        decoder = self._decoder
        part = Part(
            want=Pass.FORWARD,
            bank=bank,
            batch=batch,
            weigh=FixedWeights.none(batch),
            compute=decoder.losses,
            is_recordable=self._can_be_recorded(bank, batch),
            row_bytes=decoder.evaluated_row_bytes,
        )
        return batch.share_sums(self.passes.make(part)[: len(batch.targets_N)])

    def train(self, bank: AdapterBank, batch: PackedBatch, weigh: Weigh) -> Tensor:
        """(N,) loss of each target; the gradients of their weighted sum are added to the bank.

        What is handed back is good until the next pass.
        """
        decoder = self._decoder
        part = Part(
            want=Pass.TRAIN,
            bank=bank,
            batch=batch,
            weigh=weigh,
            compute=decoder.train,
            is_recordable=self._can_be_recorded(bank, batch),
            row_bytes=decoder.row_bytes,
            spare=SPARE,
        )
        return self.passes.make(part)[: len(batch.targets_N)]

    @torch.no_grad()
    def target_logits(self, bank: AdapterBank, batch: PackedBatch) -> Tensor:
        """(targets, vocabulary), fp32 or wider: what is predicted for each target token."""

        def compute(bank: AdapterBank, batch: PackedBatch, _: Weigh) -> Tensor:
            return self._decoder.target_logits(bank, batch)

        return self.passes.make(Part(Pass.FORWARD, bank, batch, FixedWeights.none(batch), compute))

    def _can_be_recorded(self, bank: AdapterBank, batch: PackedBatch) -> bool:
        is_worth_it = len(batch.tokens_T) <= self._worth_recording
        return is_worth_it and self._decoder.can_be_recorded(bank, batch)

    def is_any(self, fact: bool) -> bool:
        """Whether it is so on any rank; a rank that asks assists until all do."""
        self.settle()
        return self._ranks.most(int(fact)) > 0

    @torch.no_grad()
    def settle(self) -> None:
        """Take part in the other ranks' passes until nobody wants another."""
        while self.passes.assist():
            pass
