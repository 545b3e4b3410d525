"""Whether a task's backbone is copied to every rank or split over them, and how it is loaded."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch

from alto_exec.backbones.decoder import Decoder, can_be_written_out
from alto_exec.host.machine import device_of, dtype_of
from alto_exec.models.load import load_backbone
from alto_exec.parallel.ranks import Ranks, ranks_in_one_memory
from alto_exec.parallel.sharded_decoder import ShardedDecoder
from alto_exec.preparation import PreparedTask, bank_of
from alto_policy.executors.exchange import LAYERS_AT_HAND, ShardedLinears
from alto_policy.executors.layout import (
    Layout,
    PassCosts,
    Spread,
    choose_layout,
    count_whole_layers,
)
from alto_policy.memory import MemoryModel, holding_widths
from alto_runs.costs.recording import most_recorded_in_shards, most_recorded_tokens
from alto_runs.study import ExecutorSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["load_shards", "spread_of", "widths_of"]

_MARGIN = 0.9  # of the memory, as when a model of it is measured


def spread_of(prepared: PreparedTask, spec: ExecutorSpec, ranks: Ranks) -> Spread:
    """Chosen from the shapes of the model alone, before any weight is read. What is packed in few
    bits is copied."""
    if (counted := _Counted.of(prepared, spec, ranks.device)) is None:
        return Spread(layout=Layout.COPIES)
    linears = counted.linears(ranks.size, reads_peers=ranks.reach_one_another)
    shards = counted.shards(linears)
    can_record = ranks.device.type == "cuda"
    costs = PassCosts.estimated(
        linears,
        counted.sizes.parameters,
        recorded_alone=most_recorded_tokens(linears.groups) if can_record else 0,
        recorded_together=most_recorded_in_shards(linears) if can_record else 0,
        recomputes=spec.recompute is True,
    )
    layout = choose_layout(prepared.task, counted.copies(), shards, costs)
    if layout is Layout.COPIES:
        return Spread(layout=layout)
    more = counted.sizes.more_for_whole_layer(ranks.size)
    room = count_whole_layers(prepared.task, shards, more)
    return Spread(layout=layout, whole_layers=min(room, counted.sizes.layers))


def widths_of(prepared: PreparedTask, spec: ExecutorSpec) -> tuple[int, ...]:
    """Of the numbers of GPUs that the task may take those that hold as many of its jobs as any, the
    backbone copied or split; none where all do, or where it is always copied."""
    widths, device = spec.widths, device_of(spec)
    if not widths or (counted := _Counted.of(prepared, spec, device)) is None:
        return ()
    task, copies = replace(prepared.task, num_gpus=widths[0], widths=widths), counted.copies()

    def memory_on(width: int) -> MemoryModel:
        capacity = copies.capacity // ranks_in_one_memory(device, width)
        layouts = [copies]
        if width > 1:
            layouts.append(counted.shards(counted.linears(width, reads_peers=False)))
        on_each = [replace(layout, capacity=capacity) for layout in layouts]
        return max(on_each, key=lambda one: one.num_fitting(task.jobs, task.max_length))

    return holding_widths(task, memory_on)


@dataclass(frozen=True, slots=True)
class _Counted:
    """What a backbone that can be split holds, by its shapes."""

    sizes: "_Sizes"
    decoder: Decoder
    memory: MemoryModel
    recomputes: bool

    @classmethod
    def of(
        cls, prepared: PreparedTask, spec: ExecutorSpec, device: torch.device
    ) -> "_Counted | None":
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(
            prepared.model, local_files_only=True, trust_remote_code=False
        )
        if spec.frozen_weights != "plain" or not can_be_written_out(config):
            return None
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype_of(spec))
        sizes = _Sizes.of(model)  # of which a decoder takes what it needs
        decoder = Decoder(cast("PreTrainedModel", model), prepared.spec.targets)
        memory = prepared.memory(decoder, bank_of(decoder, spec), spec)
        if device.type == "cuda" and spec.memory_gb is None:
            memory = replace(memory, capacity=int(_MARGIN * torch.cuda.mem_get_info()[1]))
        return cls(sizes, decoder, memory, spec.recompute is True)

    def linears(self, num_gpus: int, *, reads_peers: bool) -> ShardedLinears:
        return ShardedLinears(
            num_gpus=num_gpus,
            layers=self.sizes.layers,
            groups=self.decoder.group_sizes,
            item_bytes=self.decoder.dtype.itemsize,
            reads_peers=reads_peers,
        )

    def copies(self) -> MemoryModel:
        return replace(self.memory, fixed=self.sizes.weights)

    def shards(self, linears: ShardedLinears) -> MemoryModel:
        exchanged = 0 if self.recomputes else linears.most_exchanged_bytes()
        fixed = self.sizes.on_one_of(linears.num_gpus) + exchanged
        return replace(self.memory, fixed=fixed)


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
