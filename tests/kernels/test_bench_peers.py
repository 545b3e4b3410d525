"""How the bench calls LoRAFusion's kernels and judges ours; a stub stands for what is not here."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from alto_kernels.lora_linear import lora_linear_group_ref
from bench.lora_cases import BATCHES, Batch, Operands, Shape, operands
from bench.lora_linear import summary
from bench.lorafusion import lorafusion

# As their module offers it: at most 4 adapters, rows in tiles of 8, lists that are filled up.
STUB = """
from types import SimpleNamespace
import torch
from megatron.core import parallel_state

def get_lora_kernel_config(name):
    assert name == "fused_multi_lora_block_size_m"
    return 8

def prepare_multi_lora_batch_info(seq_len_list, lora_idx_list, lora_rank_list, dropout_p_list,
                                  alpha_list, block_size_m):
    assert len(seq_len_list) == len(lora_idx_list) <= 4 and not any(dropout_p_list)
    return SimpleNamespace(
        seq_len_list=seq_len_list, padded_seq_len_list=[-(-n // 8) * 8 for n in seq_len_list],
        block_to_lookup_table=lora_rank_list, block_to_dropout_p=None, block_to_alpha=alpha_list,
        same_dropout_p_value=0.0, max_r=max(lora_rank_list))

def fused_linear_multi_lora(padded_x, linear_w, lora_a_list, lora_b_list, seq_len_list,
                            padded_seq_len_list, block_to_lookup_table, block_to_dropout_p,
                            block_to_alpha, enable_dropout, same_dropout_p_value, max_r):
    assert not enable_dropout and padded_x.shape[:2] == (1, sum(padded_seq_len_list))
    rows = padded_x[0].split(padded_seq_len_list)
    parts = [x @ linear_w.T + s * (x @ a.T @ b.T)
             for x, a, b, s in zip(rows, lora_a_list, lora_b_list, block_to_alpha)]
    lora_a_list.append(None)
    return torch.cat(parts)[None]
"""
SHAPE = Shape("tiny", "qkv", 16, (16, 8))
BATCH = Batch("ragged", (5, 8, 0, 3, 9, 1, 16), (2, 4, 2, 8, 2, 3, 2))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    ops = tmp_path / "lorafusion" / "ops"
    ops.mkdir(parents=True)
    for parent in (ops.parent, ops):
        (parent / "__init__.py").touch()
    (ops / "multi_lora.py").write_text(STUB)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(("lorafusion", "megatron")):
            del sys.modules[name]


def in_fp32() -> Operands:
    o = operands(SHAPE, BATCH, torch.device("cpu"))
    group = replace(
        o.group,
        weight_OI=o.group.weight_OI.float(),
        a_RMI=o.group.a_RMI.detach().float(),
        b_RO=o.group.b_RO.float(),
    )
    return Operands(o.x.detach().float().requires_grad_(), o.dy.float(), group, o.plan)


def test_lorafusion_is_called_on_the_whole_batch(folder: Path) -> None:
    """In groups of 4 segments, tiles padded: gradients are those of the definition."""
    o = in_fp32()
    found = lorafusion(folder)(o)()
    assert isinstance(found, list)
    a, b = (t.detach().requires_grad_() for t in (o.group.a_RMI, o.group.b_RO))
    y = lora_linear_group_ref(o.x, replace(o.group, a_RMI=a, b_RO=b), o.plan)
    dx, da, db = torch.autograd.grad(y, [o.x, a, b], o.dy)
    segments = [s for s in o.plan.segments if s.end_row > s.first_row]
    assert [len(part) for part in found] == [1 + 2 * 2 * 4, 1 + 2 * 2 * 2]
    for part, group in zip(found, (segments[:4], segments[4:]), strict=True):
        dx_part, *adapters = part
        row = 0
        for s in group:
            size = s.end_row - s.first_row
            assert_near(dx_part[0, row : row + size], dx[s.first_row : s.end_row])
            row += -(-size // 8) * 8
        for index, columns in o.group.members:
            own = adapters[2 * len(group) * index :]
            for number, s in enumerate(group):
                ranks = slice(s.first_rank, s.end_rank)
                assert_near(own[number], da[ranks, index])
                assert_near(own[len(group) + number], db[ranks, columns].T)


def test_a_folder_without_their_package_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"has no lorafusion/ops/multi_lora\.py"):
        lorafusion(tmp_path)


def test_a_line_says_whether_the_bar_is_met() -> None:
    near, far = {"ours": 1.04, "loop": 9.0}, {"ours": 1.16, "padded_bmm": 1.3}
    line = summary("8B", BATCHES[0], [near, far])
    assert line.endswith("ours 1.098   bar 1.08 MISSED"), "a peer counts where it ran on all shapes"
    assert summary("8B", BATCHES[1], [near, far]).endswith("bar 1.12 met")
    assert "bar" not in summary("1B", BATCHES[1], [near, far])


def assert_near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
