"""What the ranks tell each other before a pass, and what all of them make of it alike: what it is
for, and which recording it takes.

NCCL has a collective captured and replayed by all its ranks or by none, so a recording is one of
all ranks, each with a part and a shape of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from enum import IntEnum
from functools import reduce
from operator import and_

from alto_exec.passes.cuda_graphs import MOST_RECORDINGS
from alto_policy.executors.exchange import PassTokens
from alto_runs.costs.recording import RECORDING_ROWS

__all__ = ["UNRECORDED", "Agreed", "Agreement", "Offer", "Pass", "as_bits"]

UNRECORDED = -1  # rows of a batch that is not to be recorded


class Pass(IntEnum):
    """What a rank wants to compute together with the others; the most wanted is computed."""

    NONE = 0
    FORWARD = 1
    TRAIN = 2


@dataclass(frozen=True, slots=True)
class Offer:
    """Of one rank; recordings are bits of a number."""

    want: Pass
    tokens: int = 0
    rows: int = 0  # of a recording that is made for them
    held: int = 0  # recordings that this rank still has
    fitting: int = 0  # those of them that have room for what it wants
    layers_again: int = 0  # for whose activations it has no room

    def numbers(self) -> tuple[int, ...]:
        return astuple(self)

    @classmethod
    def of(cls, numbers: tuple[int, ...]) -> "Offer":
        want, *others = numbers
        return cls(Pass(want), *others)


@dataclass(frozen=True, slots=True)
class Agreed:
    """On a pass."""

    kind: Pass
    tokens: PassTokens  # that it computes, those left over in a recording's room too
    number: int | None = None  # of the recording; None where the pass is launched as it is
    rows: int = 0  # that this rank computes
    is_new: bool = False
    layers_again: int = 0  # whose activations all ranks compute again; nothing is recorded then


class Agreement:
    """Each rank has one, and gives it the same offers."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._rows: dict[int, tuple[int, ...]] = {}  # by rank; the recording used last is last
        self._wasted: dict[int, int] = {}  # rows, since the recording last made room for another

    @property
    def numbers(self) -> Sequence[int]:
        """Of the recordings that there are."""
        return tuple(self._rows)

    def agree(self, offers: Sequence[Offer]) -> Agreed:
        kind = max(offer.want for offer in offers)
        held = reduce(and_, (offer.held for offer in offers))
        self.keep([number for number in self._rows if held >> number & 1])
        if kind is Pass.NONE or any(offer.rows == UNRECORDED for offer in offers):
            if kind is Pass.TRAIN:
                self.keep(())  # it may need their memory
            tokens = tuple(offer.tokens for offer in offers)
            again = max(offer.layers_again for offer in offers)
            return Agreed(kind, _tokens_of(offers, tokens), layers_again=again)
        number, is_new = self._chosen(offers), False
        if number is None:
            number, is_new = self._free_number(), True
            self._rows[number] = tuple(offer.rows for offer in offers)
            self._wasted[number] = 0
        rows = self._rows[number] = self._rows.pop(number)
        return Agreed(kind, _tokens_of(offers, rows), number, rows[self._rank], is_new)

    def keep(self, numbers: Sequence[int]) -> None:
        """Of the recordings these alone."""
        self._rows = {number: self._rows[number] for number in numbers}
        self._wasted = {number: self._wasted[number] for number in numbers}

    def _chosen(self, offers: Sequence[Offer]) -> int | None:
        """The one that is computed the fastest: until the rows that it computes for nothing have
        cost as much as another recording does. All wait for the rank that computes the most."""
        fitting = reduce(and_, (offer.fitting for offer in offers))
        known = [number for number in self._rows if fitting >> number & 1]
        if not known:
            return None
        least = min(known, key=lambda number: max(self._rows[number]))
        needed = max(offer.rows for offer in offers)
        self._wasted[least] += max(0, max(self._rows[least]) - needed)
        if self._wasted[least] <= RECORDING_ROWS:
            return least
        self._wasted[least] = 0
        return None

    def _free_number(self) -> int:
        """Where there is none, that of the recording used longest ago."""
        free = next((n for n in range(MOST_RECORDINGS) if n not in self._rows), None)
        if free is None:
            free = next(iter(self._rows))
            del self._rows[free]
        return free


def as_bits(numbers: Iterable[int]) -> int:
    return sum(1 << number for number in numbers)


def _tokens_of(offers: Sequence[Offer], counts: Sequence[int]) -> PassTokens:
    """One that evaluates while another trains has none in the backward half."""
    pairs = list(zip(offers, counts, strict=True))
    return PassTokens(
        forward=tuple(count for _, count in pairs),
        backward=tuple(count if offer.want is Pass.TRAIN else 0 for offer, count in pairs),
    )
