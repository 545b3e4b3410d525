"""Which blocks of attention's kernels are fastest on this card, beside PyTorch's flash attention.

    PYTHONPATH=kernels python -m bench.attention_tiles --case 8B

Forward, then each half of the backward pass while the other stays as it is; the best is kept while
the next is tried. What is printed is to be written into `varlen_attention/tiles.py` by hand.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from triton.errors import TritonError

from alto_kernels.varlen_attention import CumulativeLengths, tiles
from alto_kernels.varlen_attention.kernel.backward import attention_bwd
from alto_kernels.varlen_attention.kernel.forward import attention_fwd
from alto_kernels.varlen_attention.tiles import Tiles
from bench.timing import medians

_ROUNDS = 15


@dataclass(frozen=True)
class Case:
    name: str
    heads: int
    key_heads: int
    size: int
    lengths: tuple[int, ...]


CASES = (
    Case("8B", 32, 8, 128, (512,) * 16),
    Case("1B", 32, 8, 64, (512,) * 16),
    Case("135M", 9, 3, 64, tuple(range(30, 600, 22))),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", required=True, choices=[case.name for case in CASES])
    arguments = parser.parse_args()
    (case,) = (case for case in CASES if case.name == arguments.case)
    widths = [case.size * heads for heads in (case.heads, case.key_heads, case.key_heads)]
    rows = sum(case.lengths)
    qkv_TD = torch.randn(rows, sum(widths), device="cuda", dtype=torch.bfloat16)
    q_TD, k_TD, v_TD = qkv_TD.split(widths, dim=1)
    sequences = CumulativeLengths.of(case.lengths, qkv_TD.device)

    angles_Td = torch.rand(rows, case.size // 2, device="cuda")
    cos_Td, sin_Td = angles_Td.cos(), angles_Td.sin()

    def forward() -> tuple[Tensor, Tensor]:
        """Which turns the queries once more each time."""
        return attention_fwd(q_TD, k_TD, v_TD, cos_Td, sin_Td, sequences, case.size)

    mixed_TD, lse_hT = forward()
    dmixed_TD = torch.randn_like(mixed_TD)

    def backward() -> object:
        return attention_bwd(
            dmixed_TD, q_TD, k_TD, v_TD, mixed_TD, lse_hT, cos_Td, sin_Td, sequences, case.size
        )

    found = medians(_flash((q_TD, k_TD, v_TD), dmixed_TD, sequences, case.size), _ROUNDS)
    print({name: f"{milliseconds:.3f} ms" for name, milliseconds in found.items()}, flush=True)
    _improve("MIXED", case.size, forward)
    _improve("QUERY_GRADIENTS", case.size, backward)
    _improve("KEY_GRADIENTS", case.size, backward)


def _flash(
    parts: tuple[Tensor, ...], dmixed_TD: Tensor, sequences: CumulativeLengths, size: int
) -> dict[str, Callable[[], object]]:
    q, k, v = (part.unflatten(1, (-1, size)) for part in parts)
    ends, longest = (sequences.ends,) * 2, (sequences.longest,) * 2

    def forward() -> tuple[Tensor, ...]:
        made: tuple[Tensor, ...] = torch.ops.aten._flash_attention_forward(
            q, k, v, *ends, *longest, 0.0, True, False
        )
        return made

    mixed, lse, seed, offset, _ = forward()
    dmixed = dmixed_TD.unflatten(1, (-1, size))

    def backward() -> object:
        return torch.ops.aten._flash_attention_backward(
            dmixed, q, k, v, mixed, lse, *ends, *longest, 0.0, True, seed, offset
        )

    return {"flash forward": forward, "flash backward": backward}


def candidates(now: Tiles, *, walks_over_queries: bool) -> Iterator[Tiles]:
    """What is now comes first, and once. A program's own block is the one of 64 rows or more."""
    found = [now]
    for own, other, warps, stages in product((64, 128), (32, 64, 128), (4, 8), (1, 2, 3, 4)):
        queries, keys = (other, own) if walks_over_queries else (own, other)
        found.append(Tiles(queries, keys, warps, stages))
    yield from dict.fromkeys(found)


def _improve(name: str, size: int, run: Callable[[], object]) -> None:
    """The table keeps the fastest."""
    table: dict[int, Tiles] = getattr(tiles, name)
    times: dict[Tiles, float] = {}
    for tried in candidates(table[size], walks_over_queries=name == "KEY_GRADIENTS"):
        table[size] = tried
        try:
            times[tried] = medians({"ours": run}, _ROUNDS)["ours"]
        except (RuntimeError, TritonError) as error:
            print(f"{tried} does not run: {str(error).splitlines()[0][:80]}")
    ranked = sorted(times, key=times.__getitem__)
    table[size] = ranked[0]
    print(f"{name}[{size}]")
    for tried in ranked[:6]:
        print(f"  {times[tried]:.3f} ms  {tried}", flush=True)


if __name__ == "__main__":
    main()
