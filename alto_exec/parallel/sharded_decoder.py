"""A decoder of sharded layers: each rank computes its own batch, all make the same steps."""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alto_exec.bank import AdapterBank, LinearShape
from alto_exec.batch import PackedBatch
from alto_exec.decoder import Decoder
from alto_exec.modules import ALL_LINEAR
from alto_exec.parallel.ranks import Ranks
from alto_exec.parallel.sharded_layers import Pass, ShardedLayers, spread_evenly
from alto_exec.peft_format import BaseModel
from alto_exec.replay import Replayed
from alto_exec.weighing import Weigh
from alto_policy.exchange import PassTokens, Way

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ShardedDecoder"]


class ShardedDecoder:
    """A FrozenModel, one on each rank. Before a pass the ranks agree on what it is for, and which
    way is cheaper for their tokens: to gather weights, or to send the tokens to them.

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
    ) -> None:
        """The model may be on the CPU: a layer at a time is taken from there. All passes go the
        `way` that is named, alike on all ranks."""
        self._ranks = ranks
        # What is computed again would have to travel again, in an order that autograd decides.
        assert not (recompute and way is Way.TRAVELLING)
        self._way = Way.GATHERED if recompute else way
        num_layers = model.config.num_hidden_layers
        self.layers = ShardedLayers(ranks, spread_evenly(whole_layers, num_layers))
        self._decoder = Decoder(model, targets, recompute=recompute, keeper=self.layers)

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
        return self._decoder.replayed

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens after which the model has said all it wants to say."""
        return self._decoder.end_tokens

    @torch.no_grad()
    def loss_sums(self, bank: AdapterBank, batch: PackedBatch) -> Tensor:
        """(shares,) fp32 or wider: the losses of each share's target tokens, summed."""
        with self._pass(Pass.FORWARD, batch):
            return self._decoder.loss_sums(bank, batch)

    def train(self, bank: AdapterBank, batch: PackedBatch, weigh: Weigh) -> Tensor:
        """(N,) loss of each target; the gradients of their weighted sum are added to the bank.

        What is handed back is good until the next pass.
        """
        with self._pass(Pass.TRAIN, batch):
            return self._decoder.train(bank, batch, weigh)

    @torch.no_grad()
    def target_logits(self, bank: AdapterBank, batch: PackedBatch) -> Tensor:
        """(targets, vocabulary), fp32 or wider: what is predicted for each target token."""
        with self._pass(Pass.FORWARD, batch):
            return self._decoder.target_logits(bank, batch)

    @torch.no_grad()
    def settle(self) -> None:
        """Take part in the other ranks' passes until nobody wants another."""
        while self._begin(Pass.NONE, 0):
            self.layers.finish()

    @contextmanager
    def _pass(self, wanted: Pass, batch: PackedBatch) -> Iterator[None]:
        """One that evaluates while another trains does so in the forward half."""
        self._begin(wanted, len(batch.tokens_T))
        try:
            yield
        except BaseException as error:
            # The other ranks go on, and want memory for that which may be what has run out.
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            self.layers.finish()

    def _begin(self, wanted: Pass, num_tokens: int) -> bool:
        """Whether there is a pass: the ranks tell each other what they want, and decide alike."""
        told = self._ranks.each(wanted, num_tokens)
        kind = Pass(max(want for want, _ in told))
        if kind is Pass.NONE:
            return False
        tokens = PassTokens(
            forward=tuple(count for _, count in told),
            backward=tuple(count if want == Pass.TRAIN else 0 for want, count in told),
        )
        self.layers.begin(kind, tokens, self._way or self.layers.linears.cheaper(tokens))
        return True
