"""A frozen transformers causal LM whose linears meet the adapter bank."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from alto_exec.adapters.bank import AdapterBank, LinearShape
from alto_exec.adapters.peft_format import BaseModel
from alto_exec.backbones.attention import use_packed_attention
from alto_exec.backbones.linears import ALL_LINEAR, end_tokens_of, short_names, target_names
from alto_exec.passes.activations import Activations
from alto_exec.passes.batch import PackedBatch
from alto_exec.passes.cuda_graphs import Replayed
from alto_exec.passes.weighing import Weigh
from alto_kernels.lora_linear import Plan, lora_linear_group

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["AdaptedModule", "Backbone", "Routing"]


class Routing:
    """What the linears of one backbone read while a batch passes: transformers' models take no
    arguments of ours, so the plan waits here."""

    def __init__(self) -> None:
        self.bank: AdapterBank | None = None
        self.plan: Plan | None = None


class AdaptedModule(nn.Module):
    """Stands where a frozen linear stood."""

    def __init__(self, linear: nn.Module, number: int, routing: Routing) -> None:
        super().__init__()
        self.weight_OI, self.bias_O = _weights(linear)
        self._number = number
        self._routing = routing

    def forward(self, x: Tensor) -> Tensor:
        bank, plan = self._routing.bank, self._routing.plan
        assert bank is not None, "a batch passes only inside Backbone.target_logits"
        assert plan is not None
        group = bank.group(self._number, self.weight_OI, self.bias_O)
        (y_TO,) = lora_linear_group(x.reshape(-1, x.shape[-1]), group, plan)
        return y_TO.view(*x.shape[:-1], -1)


class Backbone:
    """One frozen copy of the model, and the names and shapes of the linears with adapters."""

    def __init__(self, model: "PreTrainedModel", targets: str | Sequence[str] = ALL_LINEAR) -> None:
        use_packed_attention(model)
        self._model = model
        self._routing = Routing()
        names = target_names(model, targets)
        self.base_model = BaseModel(
            str(model.name_or_path),
            short_names(model, names),
            is_transposed=not isinstance(model.get_submodule(names[0]), nn.Linear),
        )
        self.shapes: tuple[LinearShape, ...] = tuple(self._adapt(names))
        self.activations = Activations(0)  # all are kept

    @property
    def device(self) -> torch.device:
        return self._model.device

    @property
    def dtype(self) -> torch.dtype:
        return self._model.dtype

    @property
    def vocabulary_size(self) -> int:
        return cast(int, self._model.get_output_embeddings().weight.shape[0])

    @property
    def replayed(self) -> Replayed:
        return Replayed()

    @property
    def travelled(self) -> int:
        return 0

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens after which the model has said all it wants to say."""
        return end_tokens_of(self._model)

    @property
    def num_bytes(self) -> int:
        """Memory of the frozen weights."""
        tensors = {t.data_ptr(): t.nbytes for t in self._model.parameters()}
        for module in self._model.modules():
            if isinstance(module, AdaptedModule):
                frozen = (t for t in (module.weight_OI, module.bias_O) if t is not None)
                tensors |= {t.data_ptr(): t.nbytes for t in frozen}
        return sum(tensors.values())

    def target_logits(self, bank: AdapterBank, batch: PackedBatch) -> Tensor:
        """(targets, vocabulary), fp32 or wider: what is predicted for each target token."""
        # A model unknown to us may call a linear repeatedly.
        self._routing.bank, self._routing.plan = bank, batch.plan.adding()
        try:
            output = self._model(
                input_ids=batch.tokens_T[None],
                position_ids=batch.positions_T[None],
                logits_to_keep=batch.predicting_rows,
                use_cache=False,
                sequence_lengths=batch.lengths,
            )
        finally:
            self._routing.bank = self._routing.plan = None
        logits = cast(Tensor, output.logits[0])
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def loss_sums(self, bank: AdapterBank, batch: PackedBatch) -> Tensor:
        """(shares,) fp32 or wider: the losses of each share's target tokens, summed."""
        losses_N = cross_entropy(self.target_logits(bank, batch), batch.targets_N, reduction="none")
        return batch.share_sums(losses_N)

    def train(self, bank: AdapterBank, batch: PackedBatch, weigh: Weigh) -> Tensor:
        """(N,) loss of each target; the gradients of their weighted sum are added to the bank."""
        for segment in batch.plan.segments:
            if segment.starts_gradients:  # the plan that the model reads adds
                bank.grad_RC[segment.first_rank : segment.end_rank] = 0
        losses_N = cross_entropy(self.target_logits(bank, batch), batch.targets_N, reduction="none")
        losses_N.backward(weigh(losses_N.detach()))
        return losses_N.detach()

    def _adapt(self, names: Sequence[str]) -> list[LinearShape]:
        shapes = []
        for number, name in enumerate(names):
            parent_name, _, child_name = name.rpartition(".")
            parent = self._model.get_submodule(parent_name)
            module = AdaptedModule(getattr(parent, child_name), number, self._routing)
            setattr(parent, child_name, module)
            outputs, inputs = module.weight_OI.shape
            shapes.append(LinearShape(name, inputs, outputs))
        return shapes


def _weights(linear: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight (outputs, inputs) and bias of an nn.Linear or of transformers' Conv1D (GPT-2)."""
    weight, bias = cast(Tensor, linear.weight), cast(Tensor | None, linear.bias)
    weight = weight if isinstance(linear, nn.Linear) else weight.T
    return weight.detach(), None if bias is None else bias.detach()
