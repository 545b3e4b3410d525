"""Frozen products over shards that stay where they are: the tokens of all ranks travel to them.

Each rank keeps some rows of a group's weight and computes these outputs for everybody's tokens.
All ranks make the same steps in the same order, those without tokens too. Adapters take no part.
Suffixes: T tokens of all ranks, t of this one, N ranks, R outputs of a rank's rows, I inputs.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from alto_exec.parallel.gathers import gather
from alto_exec.parallel.ranks import Ranks
from alto_policy.exchange import PassTokens

__all__ = ["TravellingTokens"]

_Step = tuple[int, bool]  # number of a shard; whether outputs are computed, not gradients


class TravellingTokens:
    """Of one pass after another, through shards in the order in which they were added."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._shards: list[Tensor] = []  # (R, I)
        self._returns: list[bool] = []  # whether a gradient of the inputs is asked for
        self._steps: Sequence[_Step] = ()
        self._position = 0
        self._tokens = PassTokens((), ())
        self.received_bytes = 0

    def add(self, shard_RI: Tensor, *, returns: bool) -> int:
        """Its number. `returns` as long as an adapter lies before it in the model."""
        self._shards.append(shard_RI)
        self._returns.append(returns)
        return len(self._shards) - 1

    def begin(self, tokens: PassTokens) -> None:
        """The backward half, if there is one, goes through the same shards the other way."""
        self._tokens = tokens.evened()
        numbers = range(len(self._shards))
        back = reversed([n for n in numbers if self._returns[n]]) if any(tokens.backward) else ()
        self._steps = [*((number, True) for number in numbers), *((n, False) for n in back)]
        self._position = 0

    def product(self, number: int, x_tI: Tensor, num_outputs: int) -> Tensor:
        """(t, `num_outputs`), differentiable."""
        y_tO: Tensor = _Product.apply(x_tI, self, number, num_outputs)  # type: ignore[no-untyped-call]
        return y_tO

    def finish(self) -> None:
        """Make the steps that are left without tokens of our own: zeros, where some were told."""
        try:
            while self._position < len(self._steps):
                number, is_forward = self._steps[self._position]
                shard = self._shards[number]
                counts, step = (
                    (self._tokens.forward, self.forward)
                    if is_forward
                    else (self._tokens.backward, self.backward)
                )
                width = shard.shape[1] if is_forward else shard.shape[0] * self._ranks.size
                step(number, shard.new_zeros(counts[self._ranks.rank], width))
        except torch.OutOfMemoryError as error:
            # The others wait for this rank, and notice the end of its process alone.
            raise RuntimeError("no memory to take part in the passes of other ranks") from error

    def forward(self, number: int, x_tI: Tensor) -> Tensor:
        """(t, N R), the last rows of a shard perhaps without meaning."""
        shard_RI, counts = self._shards[number], self._tokens.forward
        x_tI = _filled_up(x_tI, counts[self._ranks.rank])
        # Memory comes first: a rank that has none left can still make this step in `finish`.
        sent = x_tI if self._is_even(counts) else x_tI.repeat(self._ranks.size, 1)
        x_TI = x_tI.new_empty(sum(counts), x_tI.shape[1])
        y_TR = x_tI.new_empty(len(x_TI), len(shard_RI))
        y_NtR = x_tI.new_empty(self._ranks.size * len(x_tI), len(shard_RI))
        self._go_on(number, is_forward=True)
        if self._is_even(counts):
            gather(x_TI, x_tI, self._ranks.group)
        else:
            self._to_all(x_TI, sent, counts)
        torch.mm(x_TI, shard_RI.T, out=y_TR)
        self._to_owners(y_NtR, y_TR, counts)
        self.received_bytes += x_TI.nbytes - x_tI.nbytes + y_NtR.nbytes * (self._others) // self._ranks.size
        return y_NtR.view(self._ranks.size, len(x_tI), -1).transpose(0, 1).flatten(1)
