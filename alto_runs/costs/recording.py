"""Which training passes the executor records once and replays, on a GPU and with our kernels; and
what a pass holds that keeps its activations.

A layer's launches take the host as long however small the batch is; where the GPU is done with
them sooner, a recorded pass saves what it would wait.
"""

from collections.abc import Iterable

__all__ = [
    "RECORDING_ROWS",
    "SPARE",
    "kept_bytes_per_row",
    "most_recorded_tokens",
    "recorded_rows",
]

SPARE = 1 / 16  # a training pass is recorded with room for so much more than its batch has
RECORDING_ROWS = 100_000  # computed in the time that recording takes; measured on a small model
_LEAST_ROWS = 512  # fewer take no less time: that of a thousand launches

# Most bytes of a pass over those that its linears read and write: 1.0 (1B) to 1.1 (135M) measured.
_KEPT = 1.25
# What a layer's launches take the host, and what a pass takes an H100: products, and each number
# that a linear reads or writes, all passes over it together. Measured.
_LAUNCH_SECONDS, _PRODUCTS_PER_SECOND, _NUMBERS_PER_SECOND = 5e-3, 3.5e14, 1e11


def most_recorded_tokens(linears: Iterable[tuple[int, int]]) -> int:
    """Of a pass; `linears` are inputs and outputs of one layer's, those of one input as one."""
    sizes = tuple(linears)
    products = sum(inputs * outputs for inputs, outputs in sizes)
    width = sum(inputs + outputs for inputs, outputs in sizes)
    return int(
        _LAUNCH_SECONDS / (2 * products / _PRODUCTS_PER_SECOND + width / _NUMBERS_PER_SECOND)
    )


def kept_bytes_per_row(linears: Iterable[tuple[int, int]], item_bytes: int = 2) -> int:
    """Most that a training pass holds of a row for one layer; `linears` as above."""
    return int(_KEPT * sum(inputs + outputs for inputs, outputs in linears) * item_bytes)


def recorded_rows(tokens: int, spare: float = 0.0) -> int:
    """Of a recorded pass with room for so many tokens and `spare` of them more: one of few sizes,
    at most an eighth above that."""
    count = int((1 + spare) * tokens)
    step = max(_LEAST_ROWS, (1 << max(0, count - 1).bit_length()) // 16)
    return max(1, -(-count // step)) * step
