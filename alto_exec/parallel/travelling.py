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

from alto_exec.parallel.ranks import Ranks
from alto_policy.executors.exchange import PassTokens

__all__ = ["TravellingTokens"]

# PyTorch 2.13 has another name for it, and warns of the one it had before.
_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class TravellingTokens:
    """Of one pass after another, through shards in the order in which they were added."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._shards: list[Tensor] = []  # (R, I)
        self._returns: list[bool] = []  # whether a gradient of the inputs is asked for
        self._steps: Sequence[tuple[int, bool]] = ()  # shard, and whether it is in the forward half
        self._position = 0
        self._tokens = PassTokens((), ())
        self.received_bytes = 0

    def add(self, shard_RI: Tensor, *, returns: bool) -> int:
        """The shard's number. It `returns` gradients if an adapter lies before it in the model."""
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
        """Make the steps that are left, with zeros for tokens of ours that the others expect."""
        rank, size = self._ranks.rank, self._ranks.size
        try:
            while self._position < len(self._steps):
                number, is_forward = self._steps[self._position]
                shard_RI = self._shards[number]
                if is_forward:
                    rows = self._tokens.forward[rank]
                    self.forward(number, shard_RI.new_zeros(rows, shard_RI.shape[1]))
                else:
                    rows = self._tokens.backward[rank]
                    self.backward(number, shard_RI.new_zeros(rows, size * shard_RI.shape[0]))
        except torch.OutOfMemoryError as error:
            # The others wait for this rank, and only notice the end of its process.
            raise RuntimeError("no memory to take part in the passes of other ranks") from error

    def forward(self, number: int, x_tI: Tensor) -> Tensor:
        """(t, N R) from this rank's tokens: the products with the shards, side by side."""
        shard_RI, counts = self._shards[number], self._tokens.forward
        rows = self._expect(number, counts, is_forward=True)
        is_even = len(set(counts)) == 1
        # Memory comes first: a rank that has none left can still make the step, in `finish`.
        given_tI = pad(x_tI, (0, 0, 0, rows - len(x_tI)))
        sent_XI = given_tI if is_even else given_tI.repeat(self._ranks.size, 1)
        x_TI = x_tI.new_empty(sum(counts), x_tI.shape[1])
        y_TR = x_tI.new_empty(len(x_TI), len(shard_RI))
        y_XR = x_tI.new_empty(self._ranks.size * rows, len(shard_RI))
        self._position += 1
        if is_even:
            _gather(x_TI, sent_XI, group=self._ranks.group)
            self._count(x_TI, rows)
        else:
            self._hand_to_all(x_TI, sent_XI, counts)
        torch.mm(x_TI, shard_RI.T, out=y_TR)
        self._hand_back(y_XR, y_TR, counts)
        parts_NtR = y_XR.view(self._ranks.size, rows, len(shard_RI))
        return parts_NtR.transpose(0, 1).flatten(1)[: len(x_tI)]

    def backward(self, number: int, dy_tX: Tensor) -> Tensor:
        """(t, I): the gradient of this rank's inputs, from that of all N R outputs."""
        shard_RI, counts, size = self._shards[number], self._tokens.backward, self._ranks.size
        rows = self._expect(number, counts, is_forward=False)
        given_tX = pad(dy_tX, (0, 0, 0, rows - len(dy_tX)))
        parts_tNR = given_tX.view(rows, size, len(shard_RI))
        sent_XR = parts_tNR.transpose(0, 1).contiguous().view(size * rows, len(shard_RI))
        dy_TR = dy_tX.new_empty(sum(counts), len(shard_RI))
        dx_TI = dy_tX.new_empty(len(dy_TR), shard_RI.shape[1])
        dx_XI = dy_tX.new_empty(size * rows, shard_RI.shape[1])
        self._position += 1
        self._hand_to_all(dy_TR, sent_XR, counts)
        torch.mm(dy_TR, shard_RI, out=dx_TI)
        self._hand_back(dx_XI, dx_TI, counts)
        # In the order of the ranks.
        wide = torch.promote_types(dy_tX.dtype, torch.float32)
        dx_tI = dx_XI.view(size, rows, shard_RI.shape[1]).sum(0, dtype=wide)
        return dx_tI[: len(dy_tX)].to(dy_tX.dtype)

    def go_to(self, received_bytes: int, *, is_over: bool) -> None:
        """The beginning of the pass or its end, with so much received."""
        self.received_bytes = received_bytes
        self._position = len(self._steps) if is_over else 0

    def outputs_with_room(self, number: int) -> int:
        return self._ranks.size * len(self._shards[number])

    def _expect(self, number: int, counts: Sequence[int], *, is_forward: bool) -> int:
        """Rows that this rank hands on in the step that is the next one for all."""
        assert self._steps[self._position] == (number, is_forward)
        return counts[self._ranks.rank]

    def _hand_to_all(self, found: Tensor, given: Tensor, counts: Sequence[int]) -> None:
        """A part of `given` to each rank: from each as many rows as it has tokens."""
        rows = counts[self._ranks.rank]
        splits = [rows] * self._ranks.size
        dist.all_to_all_single(found, given, list(counts), splits, group=self._ranks.group)
        self._count(found, rows)

    def _hand_back(self, found: Tensor, given: Tensor, counts: Sequence[int]) -> None:
        """What was found for each rank's tokens to that rank."""
        rows = counts[self._ranks.rank]
        splits = [rows] * self._ranks.size
        dist.all_to_all_single(found, given, splits, list(counts), group=self._ranks.group)
        self._count(found, rows)

    def _count(self, found: Tensor, own_rows: int) -> None:
        row_bytes = found.shape[1] * found.element_size()
        self.received_bytes += (len(found) - own_rows) * row_bytes


class _Product(torch.autograd.Function):
    """Makes a step of the pass on its way there, and another one on its way back."""

    @staticmethod
    def forward(
        ctx: Any, x_tI: Tensor, tokens: TravellingTokens, number: int, num_outputs: int
    ) -> Tensor:
        ctx.tokens, ctx.number = tokens, number
        return tokens.forward(number, x_tI)[:, :num_outputs].contiguous()

    @staticmethod
    def backward(ctx: Any, dy_tO: Tensor) -> tuple[Tensor, None, None, None]:
        room = ctx.tokens.outputs_with_room(ctx.number) - dy_tO.shape[1]
        return ctx.tokens.backward(ctx.number, pad(dy_tO, (0, room))), None, None, None
