"""Frozen linears with many LoRA adapters, each on its own rows of one batch."""

from alto_kernels.lora_linear.autograd import lora_linear_group
from alto_kernels.lora_linear.dropout import dropout_key, keep_mask
from alto_kernels.lora_linear.path import Path, has_kernels, path_alone_for, path_for
from alto_kernels.lora_linear.plan import AdaptedGroup, Plan
from alto_kernels.lora_linear.reference import lora_linear_group_ref
from alto_kernels.lora_linear.segments import Segment
from alto_kernels.lora_linear.tables import TablesShape, rank_step, room_for

__all__ = [
    "AdaptedGroup",
    "Path",
    "Plan",
    "Segment",
    "TablesShape",
    "dropout_key",
    "has_kernels",
    "keep_mask",
    "lora_linear_group",
    "lora_linear_group_ref",
    "path_alone_for",
    "path_for",
    "rank_step",
    "room_for",
]
