"""Whether a task's backbone is copied to every rank or split over them, and how it is loaded."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch

from alto_exec.decoder import Decoder, can_be_written_out
from alto_exec.machine import dtype_of
from alto_exec.models.load import load_backbone
from alto_exec.parallel.ranks import Ranks
from alto_exec.parallel.sharded_decoder import ShardedDecoder
from alto_exec.preparation import PreparedTask, bank_of
from alto_policy.exchange import LAYERS_AT_HAND, ShardedLinears
from alto_policy.layout import Layout, PassCosts, Spread, choose_layout, count_whole_layers
from alto_runs.costs.recording import most_recorded_in_shards, most_recorded_tokens
from alto_runs.study import ExecutorSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["load_shards", "spread_of"]

_MARGIN = 0.9  # of the memory, as when a model of it is measured


def spread_of(prepared: PreparedTask, spec: ExecutorSpec, ranks: Ranks) -> Spread:
    """Chosen from the shapes of the model alone, before any weight is read. What is packed in few
    bits is copied."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(
        prepared.model, local_files_only=True, trust_remote_code=False
    )
    if spec.frozen_weights != "plain" or not can_be_written_out(config):
        return Spread(layout=Layout.COPIES)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype_of(spec))
    sizes = _Sizes.of(model)
    decoder = Decoder(cast("PreTrainedModel", model), prepared.spec.targets)
    counted = prepared.memory(decoder, bank_of(decoder, spec), spec)
    if ranks.device.type == "cuda" and spec.memory_gb is None:
        counted = replace(counted, capacity=int(_MARGIN * torch.cuda.mem_get_info()[1]))
    linears = ShardedLinears(
        num_gpus=ranks.size,
        layers=sizes.layers,
        groups=decoder.group_sizes,
        item_bytes=decoder.dtype.itemsize,
        reads_peers=ranks.reach_one_another,
    )
    exchanged = 0 if spec.recompute is True else linears.most_exchanged_bytes()
    copies = replace(counted, fixed=sizes.weights)
    shards = replace(counted, fixed=sizes.on_one_of(ranks.size) + exchanged)
    can_record = ranks.device.type == "cuda"
    costs = PassCosts.estimated(
        linears,
        sizes.parameters,
        recorded_alone=most_recorded_tokens(linears.groups) if can_record else 0,
        recorded_together=most_recorded_in_shards(linears) if can_record else 0,
        recomputes=spec.recompute is True,
    )
    layout = choose_layout(prepared.task, copies, shards, costs)
    if layout is Layout.COPIES:
        return Spread(layout=layout)
    room = count_whole_layers(prepared.task, shards, sizes.more_for_whole_layer(ranks.size))
    return Spread(layout=layout, whole_layers=min(room, sizes.layers))


def load_shards(
    prepared: PreparedTask, spec: ExecutorSpec, ranks: Ranks, spread: Spread
) -> ShardedDecoder:
    """This rank's part of the backbone, by way of the main memory."""
    model = load_backbone(prepared.model, device=torch.device("cpu"), dtype=dtype_of(spec))
    return ShardedDecoder(
        model,
        ranks,
        prepared.spec.targets,
        recompute=spec.recompute is True,
        whole_layers=spread.whole_layers,
    )


@dataclass(frozen=True, slots=True)
class _Sizes:
    layers: int
    weights: int  # bytes
    of_layers: int  # bytes
    parameters: int

    @classmethod
    def of(cls, model: Any) -> "_Sizes":
        layers = model.model.layers
        return cls(
            len(layers),
            sum(p.nbytes for p in model.parameters()),
            sum(p.nbytes for p in layers.parameters()),
            sum(p.numel() for p in model.parameters()),
        )

    def on_one_of(self, num_ranks: int) -> int:
        """A part of each layer, those at hand whole, and what is not split."""
        whole = self.weights - self.of_layers + LAYERS_AT_HAND * self.of_layers // self.layers
        return whole + self.of_layers // num_ranks

    def more_for_whole_layer(self, num_ranks: int) -> int:
        """Bytes of a layer that are not this rank's part of it."""
        return self.of_layers // self.layers * (num_ranks - 1) // num_ranks
