"""Llama's family of models written out over our kernels: the fast path of training.

The weights are those of a transformers model; linears that share their input stand below one
another as one. Suffixes: T tokens of the batch, H hidden, d half of a head, O outputs, I inputs.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from alto_exec.adapters.bank import AdapterBank
from alto_exec.adapters.peft_format import BaseModel
from alto_exec.backbones.layer_order import LayerKeeper, cross
from alto_exec.backbones.layers import FrozenLinear, Layer, Split, Travel, layer_of, shapes_of
from alto_exec.backbones.linears import ALL_LINEAR, end_tokens_of, short_names, target_names
from alto_exec.passes.activations import Activations
from alto_exec.passes.batch import PackedBatch
from alto_exec.passes.cuda_graphs import Replayed, Replays
from alto_exec.passes.weighing import FixedWeights, Weigh
from alto_kernels.head_norm import head_norm
from alto_kernels.linear_cross_entropy import linear_cross_entropy, take_rows
from alto_kernels.lora_linear import (
    AdaptedGroup,
    Plan,
    has_kernels,
    lora_linear_group,
    path_alone_for,
)
from alto_kernels.lora_mlp import lora_mlp
from alto_kernels.rms_norm import add_rms_norm
from alto_kernels.swiglu import swiglu
from alto_kernels.varlen_attention import varlen_attention
from alto_runs.costs.recording import kept_bytes_per_row, most_recorded_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Context", "Decoder", "can_be_written_out"]

_FAMILY = ("llama", "mistral", "qwen2", "qwen3", "smollm3")


def can_be_written_out(config: Any) -> bool:
    """Whether a model of this transformers config is what `Decoder` computes."""
    return (
        config.model_type in _FAMILY
        and config.hidden_act == "silu"
        and not _has_window(config)
        and config.rope_parameters["rope_type"] in ("default", "linear", "llama3")
    )


@dataclass(frozen=True, slots=True)
class Context:
    """What every layer reads of one batch."""

    bank: AdapterBank
    batch: PackedBatch
    plan: Plan  # of the rows that its linears are given
    angles_Td: tuple[Tensor, Tensor]  # their cosines and sines
    unturned_Td: tuple[Tensor, Tensor]  # of angles of zero
    travels: bool  # whether tokens travel to the weights that others keep a part of


class Decoder:
    """One frozen copy of the model. A layer whose `activations` are computed again keeps its input
    alone for the backward pass. A `keeper` takes over the weights of the layers and may be asked
    for them in turn alone; without one they all stay where they are."""

    def __init__(
        self,
        model: "PreTrainedModel",
        targets: str | Sequence[str] = ALL_LINEAR,
        *,
        recompute: bool = False,
        keeper: LayerKeeper | None = None,
    ) -> None:
        config: Any = model.config
        assert can_be_written_out(config)
        names = target_names(model, targets)
        self.shapes = tuple(shapes_of(model, names))
        numbers = {shape.name: number for number, shape in enumerate(self.shapes)}
        self.base_model = BaseModel(
            str(model.name_or_path), short_names(model, names), is_transposed=False
        )
        self.device, self.dtype = keeper.device if keeper else model.device, model.dtype
        self.end_tokens = end_tokens_of(model)
        self._keeper = keeper
        self._epsilon = float(config.rms_norm_eps)
        self._head_size = int(
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        inner: Any = model.model
        self._embedding = inner.embed_tokens.weight.detach().to(self.device)
        head_VH = cast(Any, model).lm_head.weight
        is_tied = head_VH is inner.embed_tokens.weight
        self._head_VH = self._embedding if is_tied else head_VH.detach().to(self.device)
        self._norm_H = inner.norm.weight.detach().to(self.device)
        rotary = inner.rotary_emb
        self._frequencies_d = rotary.inv_freq.to(self.device, torch.float32)
        self._rotary_scale = float(rotary.attention_scaling)
        layers = (
            layer_of(layer, f"model.layers.{i}.", numbers) for i, layer in enumerate(inner.layers)
        )
        self._layers = tuple(map(keeper.keep, layers) if keeper else layers)
        self.activations = Activations(len(self._layers), recompute=recompute)
        shapes = [group.weight_OI.shape for group in self._layers[0].groups]
        self.group_sizes = tuple((i, o) for o, i in shapes)  # of a layer
        layer_bytes = sum(i + o for i, o in self.group_sizes) * self.dtype.itemsize
        self._worth_recording = most_recorded_tokens(self.group_sizes)
        kept = kept_bytes_per_row(self.group_sizes, self.dtype.itemsize)
        kept += self._layers[0].num_normed * self.dtype.itemsize
        self.row_bytes = kept * len(self._layers)  # that a training pass takes at most
        # Nothing is kept for a backward pass; the widest moment is within one layer.
        self.evaluated_row_bytes = 2 * layer_bytes
        self._cuts_last = True  # to the rows that predict targets
        self._replays = Replays(self._train, self.row_bytes)
        self._evaluations = Replays(self.losses, self.evaluated_row_bytes, varies=False)

    def of_one_layer(self) -> "Decoder":
        """The first layer alone, of a decoder whose layers all stay where they are: whoever passes
        through it launches what is launched for every layer."""
        assert self._keeper is None
        one = copy(self)
        one._layers, one._cuts_last = self._layers[:1], False
        one.activations = Activations(1, recompute=self.activations.recompute)
        one._replays = Replays(one._train, one.row_bytes)
        one._evaluations = Replays(one.losses, one.evaluated_row_bytes, varies=False)
        return one

    @property
    def vocabulary_size(self) -> int:
        return int(self._head_VH.shape[0])

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    @property
    def most_recorded_tokens(self) -> int:
        """Of a pass worth recording; 0 where none can be, as where layers are unpacked."""
        can_be = self._keeper is None or self._keeper.can_be_recorded
        can_be = can_be and self.runs_in_kernels and not self.activations.recompute
        return self._worth_recording if can_be else 0

    @property
    def runs_in_kernels(self) -> bool:
        """Whether our kernels compute its layers."""
        sizes = {size for shape in self.shapes for size in (shape.inputs, shape.outputs)}
        return self.device.type == "cuda" and has_kernels(self.dtype, sizes)

    @property
    def is_whole(self) -> bool:
        """Whether all layers stay where they are."""
        return self._keeper is None

    @property
    def num_bytes(self) -> int:
        """Memory of the frozen weights."""
        kept = 0 if self._keeper is None else self._keeper.num_bytes
        here = {tensor.data_ptr(): tensor.nbytes for tensor in self._weights()}
        return kept + sum(here.values())

    @property
    def replayed(self) -> Replayed:
        return self._replays.replayed

    @property
    def travelled(self) -> int:
        return 0

    def loss_sums(self, bank: AdapterBank, batch: PackedBatch) -> Tensor:
        """(shares,) fp32 or wider: the losses of each share's target tokens, summed."""
        none = FixedWeights.none(batch)
        if self._keeper is None and self.can_be_recorded(bank, batch):
            return batch.share_sums(self._evaluations.train(bank, batch, none))
        return batch.share_sums(self.losses(bank, batch, none))

    def train(self, bank: AdapterBank, batch: PackedBatch, weigh: Weigh) -> Tensor:
        """(N,) loss of each target; the gradients of their weighted sum are added to the bank.

        What is handed back is good until the next pass.
        """
        layers_again = self.activations.begin(bank, batch)
        if self._keeper is None and self.can_be_recorded(bank, batch):
            return self._replays.train(bank, batch, weigh)
        self._replays.clear()
        self._evaluations.make_way(len(batch.tokens_T) * self.row_bytes)
        return self._train(bank, batch, weigh, layers_again)

    def target_logits(self, bank: AdapterBank, batch: PackedBatch) -> Tensor:
        """(targets, vocabulary), fp32 or wider: what is predicted for each target token."""
        logits: Tensor = self._predicting_states(bank, batch) @ self._head_VH.T
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _predicting_states(
        self, bank: AdapterBank, batch: PackedBatch, layers_again: int = 0
    ) -> Tensor:
        """(N, H): the last layer's output where a target is predicted; behind its attention, whose
        keys and values are those of all rows, it computes no others. The first layers are those
        that are computed again: when it is their turn, what the others kept is gone."""
        context = self._context(bank, batch)
        cut = self._cut(context)
        h_TH = self._embedding[batch.tokens_T]
        delta_TH: Tensor | None = None
        for number, layer in enumerate(self._layers):
            if self._keeper is not None:
                h_TH, delta_TH = cross(self._keeper, h_TH, delta_TH)
            behind = cut if number + 1 == len(self._layers) else context
            if number < layers_again:
                h_TH, delta_TH = checkpoint(
                    self._run_layer, layer, h_TH, delta_TH, context, behind, use_reentrant=False
                )
            else:
                h_TH, delta_TH = self._run_layer(layer, h_TH, delta_TH, context, behind)
        if self._keeper is not None:
            h_TH, delta_TH = cross(self._keeper, h_TH, delta_TH, is_last=True)
        assert delta_TH is not None
        h_NH = h_TH + delta_TH
        if cut is context:
            h_NH = take_rows(h_NH, batch.predicting_rows)
        _, x_NH = add_rms_norm(h_NH, None, self._norm_H, self._epsilon)
        return x_NH

    def _train(
        self, bank: AdapterBank, batch: PackedBatch, weigh: Weigh, layers_again: int = 0
    ) -> Tensor:
        h_NH = self._predicting_states(bank, batch, layers_again)
        losses_N = linear_cross_entropy(h_NH, self._head_VH, batch.targets_N)
        losses_N.backward(weigh(losses_N.detach()))
        if self._keeper is not None:
            self._keeper.finish()
        return losses_N.detach()

    @torch.no_grad()
    def losses(self, bank: AdapterBank, batch: PackedBatch, _: Weigh) -> Tensor:
        """(N,) of each target."""
        h_NH = self._predicting_states(bank, batch)
        return linear_cross_entropy(h_NH, self._head_VH, batch.targets_N)

    def can_be_recorded(self, bank: AdapterBank, batch: PackedBatch) -> bool:
        """Whether its launches are those of every batch of its shape, and recording them pays."""
        fits = len(batch.tokens_T) <= self.most_recorded_tokens and bool(batch.plan.segments)
        fits = fits and bank.memory.shadow_RC.dtype == self.dtype
        return fits and self.activations.layers_again(bank, batch) == 0

    def _run_layer(
        self,
        layer: Layer,
        h_TH: Tensor,
        delta_TH: Tensor | None,
        context: Context,
        behind: Context,
    ) -> tuple[Tensor, Tensor]:
        """The residual stream, and what is still to be added to it: norms add as they read. What is
        `behind` attention may be of the predicting rows alone."""
        h_TH, x_TH = add_rms_norm(h_TH, delta_TH, layer.attention_norm_H, self._epsilon)
        q_TD, k_TD, v_TD = _apply(layer.qkv, x_TH, context)
        if (norms := layer.head_norms) is not None:
            q_TD, k_TD = head_norm(q_TD, k_TD, norms.query_d, norms.key_d, self._epsilon)
        cos_Td, sin_Td = context.angles_Td if layer.turns else context.unturned_Td
        lengths, size = context.batch.lengths, self._head_size
        mixed_TD = varlen_attention(q_TD, k_TD, v_TD, cos_Td, sin_Td, lengths, size)
        if behind is not context:
            rows = context.batch.predicting_rows
            h_TH, mixed_TD = take_rows(h_TH, rows), take_rows(mixed_TD, rows)
        (delta_TH,) = _apply(layer.out, mixed_TD, behind)
        h_TH, x_TH = add_rms_norm(h_TH, delta_TH, layer.mlp_norm_H, self._epsilon)
        return h_TH, _mlp(layer, x_TH, behind)

    def _cut(self, context: Context) -> Context:
        """That of the predicting rows; the same where tokens travel, of which all ranks know."""
        plan = context.batch.predicting_plan
        if plan is None or context.travels or not self._cuts_last:
            return context
        return replace(context, plan=plan)

    def _context(self, bank: AdapterBank, batch: PackedBatch) -> Context:
        angles_Td = batch.positions_T[:, None] * self._frequencies_d
        turned = angles_Td.cos() * self._rotary_scale, angles_Td.sin() * self._rotary_scale
        unturned = turned
        if not all(layer.turns for layer in self._layers):
            unturned = torch.ones_like(angles_Td), torch.zeros_like(angles_Td)
        return Context(
            bank=bank,
            batch=batch,
            plan=batch.plan,
            angles_Td=turned,
            unturned_Td=unturned,
            travels=self._keeper is not None and self._keeper.travels,
        )

    def _weights(self) -> Iterator[Tensor]:
        yield from (self._embedding, self._head_VH, self._norm_H)
        for layer in self._layers:
            yield from layer.weights


def _apply(split: Split, x_TI: Tensor, context: Context) -> tuple[Tensor, ...]:
    """Each linear's output, in the order of the model."""
    outputs: list[Tensor] = []
    for group in split.groups:
        if context.travels and group.travel is not None:
            outputs += _travelled(group, group.travel, x_TI, context)
        elif group.number is None:
            y_TO = torch.nn.functional.linear(x_TI, group.weight_OI, group.bias_O)
            outputs += y_TO.split(list(group.outputs), dim=1)
        else:
            outputs += lora_linear_group(x_TI, _adapted(group, context.bank), context.plan)
    return tuple(outputs[place] for place in split.order)


def _mlp(layer: Layer, x_TH: Tensor, context: Context) -> Tensor:
    """One operation where all its linears are adapted and their weights are here."""
    groups = layer.gate_up.groups + layer.down.groups
    is_here = not context.travels or all(group.travel is None for group in groups)
    if is_here and len(groups) == 2 and all(group.number is not None for group in groups):
        gate_up, down = (_adapted(group, context.bank) for group in groups)
        return lora_mlp(x_TH, gate_up, down, context.plan)
    return _apply(layer.down, swiglu(*_apply(layer.gate_up, x_TH, context)), context)[0]


def _travelled(
    group: FrozenLinear, travel: Travel, x_TI: Tensor, context: Context
) -> Sequence[Tensor]:
    """The same where tokens travel to the weight; the adapters' part and the bias are made here."""
    sizes = list(group.outputs)
    y_TO = travel(x_TI, sum(sizes))
    if group.number is None:
        biased_TO = y_TO if group.bias_O is None else y_TO + group.bias_O
        return torch.split(biased_TO, sizes, dim=1)
    adapted = _adapted(group, context.bank)
    own = lora_linear_group(x_TI, adapted, context.plan, path_alone_for(x_TI, adapted))
    return [y + part for y, part in zip(torch.split(y_TO, sizes, dim=1), own, strict=True)]


def _adapted(group: FrozenLinear, bank: AdapterBank) -> AdaptedGroup:
    assert group.number is not None
    return bank.group(group.number, group.weight_OI, group.bias_O)


def _has_window(config: Any) -> bool:
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return any(kind != "full_attention" for kind in kinds)
    return getattr(config, "sliding_window", None) is not None
