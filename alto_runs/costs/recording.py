"""Which training passes the executor records once and replays, on a GPU and with our kernels; and
what a pass holds that keeps its activations.

A layer's launches take the host as long however small the batch is; where the GPU is done with
them sooner, a recorded pass saves what it would wait.
"""

from bisect import bisect_right
from collections.abc import Iterable

from alto_policy.executors.exchange import PassTokens, ShardedLinears
from alto_policy.memory import SPARE, recorded_rows

__all__ = [
    "RECORDING_ROWS",
    "kept_bytes_per_row",
    "most_recorded_in_shards",
    "most_recorded_tokens",
]

RECORDING_ROWS = 100_000  # computed in the time that recording takes; measured on a small model

# Most bytes of a pass over those that its linears read and write: 1.0 (1B) to 1.1 (135M) measured.
_KEPT = 1.25
# What a layer's launches take the host, and what a pass takes an H100: products, and each number
# that a linear reads or writes, all passes over it together. Measured.
_LAUNCH_SECONDS, _PRODUCTS_PER_SECOND, _NUMBERS_PER_SECOND = 5e-3, 3.5e14, 1e11
_SHARDED_LAUNCH_SECONDS = 7.5e-3  # with what brings a layer of shards; 7.0 to 8.2 on four, measured
_MOST_TOKENS = 1 << 20


def most_recorded_tokens(linears: Iterable[tuple[int, int]]) -> int:
    """Of a pass; `linears` are inputs and outputs of one layer's, those of one input as one."""
    return int(_LAUNCH_SECONDS / _row_seconds(linears))


def most_recorded_in_shards(linears: ShardedLinears) -> int:
    """Of a pass on each GPU. What these receive takes their time as well, in a launched pass at
    least that of gathers; the rows left over are computed and may travel."""
    launched = linears.gathering_seconds(is_training=True, is_recorded=False) / linears.layers

    def layer_seconds(tokens: int) -> float:
        rows = recorded_rows(tokens, SPARE)
        passed = PassTokens((rows,) * linears.num_gpus, (rows,) * linears.num_gpus)
        _, exchange = linears.cheapest(passed, is_recorded=True)
        return rows * _row_seconds(linears.groups) + exchange / linears.layers

    worth = max(_SHARDED_LAUNCH_SECONDS, launched)
    return max(0, bisect_right(range(_MOST_TOKENS), worth, key=layer_seconds) - 1)


def _row_seconds(linears: Iterable[tuple[int, int]]) -> float:
    """Of one layer on the GPU."""
    sizes = tuple(linears)
    products = sum(inputs * outputs for inputs, outputs in sizes)
    width = sum(inputs + outputs for inputs, outputs in sizes)
    return 2 * products / _PRODUCTS_PER_SECOND + width / _NUMBERS_PER_SECOND


def kept_bytes_per_row(linears: Iterable[tuple[int, int]], item_bytes: int = 2) -> int:
    """Most that a training pass holds of a row for one layer; `linears` as above."""
    return int(_KEPT * sum(inputs + outputs for inputs, outputs in linears) * item_bytes)
