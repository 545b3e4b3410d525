"""LoRAFusion's kernels (arXiv 2510.00206) as a peer, from a folder with them: none of them is here.

A call takes 4 adapters at most, so a batch goes in groups of 4, and the frozen product with it. The
rows of a segment fill whole tiles, padded before anything is timed. Dropout is off: with it their
two passes are not of one function.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from alto_kernels.lora_linear import Segment
from bench.lora_cases import Operands
from bench.lora_peers import Peer, Run

__all__ = ["MOST_ADAPTERS", "load", "lorafusion"]

MOST_ADAPTERS = 4  # of one call
_MODULE = "lorafusion.ops.multi_lora"


def lorafusion(folder: Path) -> Peer:
    """The peer. Raises SystemExit where the folder does not hold their package."""
    kernels = load(folder, _MODULE)

    def peer(o: Operands) -> Run:
        segments = [s for s in o.plan.segments if s.end_row > s.first_row]
        groups = [segments[i : i + MOST_ADAPTERS] for i in range(0, len(segments), MOST_ADAPTERS)]
        parts = [_part(kernels, o, group) for group in groups]
        return lambda: [run() for run in parts]

    return peer


def _part(kernels: Any, o: Operands, segments: Sequence[Segment]) -> Run:
    """Forward and backward of one call for each member of the group of linears."""
    block = kernels.get_lora_kernel_config("fused_multi_lora_block_size_m")
    info = kernels.prepare_multi_lora_batch_info(
        seq_len_list=[s.end_row - s.first_row for s in segments],
        lora_idx_list=list(range(len(segments))),
        lora_rank_list=[s.rank for s in segments],
        dropout_p_list=[0.0] * len(segments),
        alpha_list=[s.scale for s in segments],
        block_size_m=block,
    )
    x = _padded(o.x, segments, block).requires_grad_()
    dy = _padded(o.dy, segments, block)
    calls, leaves, gradients = [], [x], []
    for index, columns in o.group.members:
        ranks = [slice(s.first_rank, s.end_rank) for s in segments]
        a = [_leaf(o.group.a_RMI[rows, index]) for rows in ranks]
        b = [_leaf(o.group.b_RO[rows, columns].T) for rows in ranks]
        calls.append((o.group.weight_OI[columns], a, b))
        leaves += [*a, *b]
        gradients.append(dy[..., columns].contiguous())

    def forward() -> list[Tensor]:
        return [
            kernels.fused_linear_multi_lora(
                padded_x=x,
                linear_w=weight_OI,
                lora_a_list=list(a),  # which it fills up
                lora_b_list=list(b),
                seq_len_list=info.seq_len_list,
                padded_seq_len_list=info.padded_seq_len_list,
                block_to_lookup_table=info.block_to_lookup_table,
                block_to_dropout_p=info.block_to_dropout_p,
                block_to_alpha=info.block_to_alpha,
                enable_dropout=False,
                same_dropout_p_value=info.same_dropout_p_value,
                max_r=info.max_r,
            )
            for weight_OI, a, b in calls
        ]

    return lambda: torch.autograd.grad(forward(), leaves, gradients)


def _padded(rows_TC: Tensor, segments: Sequence[Segment], block: int) -> Tensor:
    """(1, rows, C): each segment filled up with zeros to whole tiles."""
    parts = []
    for s in segments:
        part = rows_TC.detach()[s.first_row : s.end_row]
        parts.append(torch.nn.functional.pad(part, (0, 0, 0, -len(part) % block)))
    return torch.cat(parts)[None]


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format).requires_grad_()


def load(folder: Path, module: str) -> ModuleType:
    """A module of theirs, with what it asks for at its import and does not use here. Their settings
    of an H100 stand for those of a card that they do not know. Raises SystemExit where the folder
    does not hold their package."""
    if not (folder / "lorafusion" / "ops" / "multi_lora.py").is_file():
        raise SystemExit(f"--lorafusion: {folder} has no lorafusion/ops/multi_lora.py")
    os.environ["LORAFUSION_FORWARD_USE_TMA"] = "0"  # written for an older Triton
    if "megatron" not in sys.modules:
        core = ModuleType("megatron.core")
        core.parallel_state = ModuleType("megatron.core.parallel_state")  # type: ignore[attr-defined]
        sys.modules |= {
            "megatron": ModuleType("megatron"),
            "megatron.core": core,
            "megatron.core.parallel_state": core.parallel_state,
        }
    if torch.cuda.is_available():
        _restore_names()
    sys.path.insert(0, str(folder))
    try:
        if torch.cuda.is_available():
            _give_settings(import_module("lorafusion.ops.triton_ops.config"))
        return import_module(module)
    finally:
        sys.path.remove(str(folder))


def _give_settings(config: Any) -> None:
    config.HARDWARE_CONFIGS.setdefault(config.get_device_short_name(), config.H100_CONFIG)


def _restore_names() -> None:
    """Names of Triton 3.2 that their modules look up at import."""
    import triton
    import triton.language as tl

    utils: Any = triton.runtime.driver.active.utils  # type: ignore[attr-defined]
    for owner, names in (
        (tl, ("_experimental_descriptor_load", "_experimental_descriptor_store")),
        (utils, ("fill_1d_tma_descriptor", "fill_2d_tma_descriptor")),
    ):
        for name in names:
            if not hasattr(owner, name):
                setattr(owner, name, None)
