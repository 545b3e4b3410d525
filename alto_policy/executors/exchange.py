"""What the GPUs of a backbone in shards receive from each other in a pass, and how long that takes.

Either the shards of a layer are brought together before it is computed with, or they stay: each GPU
computes its own outputs for the tokens of all, and hands them back. Few tokens are less than
weights. Shards come by an all-gather, or are copied out of the memory of the other GPUs by engines
of their own, which is slower and takes nothing from the arithmetic.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["LAYERS_AT_HAND", "PassTokens", "ShardedLinears", "Way"]

# H100s of one host with NVLink: bytes that come in by the time by which a pass gets longer.
# Gathered: of launched passes on two and four, and of recorded ones on two (4.1 and 5.7 with 2,048
# and 256 tokens of an 8B model), in which more of it lies beside the arithmetic.
_LAUNCHED_GATHER_RATE, _RECORDED_GATHER_RATE = 3.2e11, 4.9e11
_GATHER_SECONDS = 30e-6  # of a gather without content; assumed
# Copied, on four H200: bytes of other GPUs by the time of a pass that waits for them, and the part
# of that time by which one gets longer that does not. And what a pass takes for its own arithmetic.
_COPY_RATE, _COPY_SHARE, _PRODUCTS_RATE = 1.95e11, 0.15, 5e14
# Travelling: of recorded passes on two, with what puts the rows in order and what adapters take
# that are not computed with the frozen product.
_TRAVELLING_RATE = 1.25e11
# Of each exchange. Of a launched pass with the launches between them: 0.68 to 0.71 ms (64 layers)
# and 0.80 to 0.88 (32), nearly all of it the host's. Of a recorded one fitted with that rate.
_LAUNCHED_EXCHANGE_SECONDS, _RECORDED_EXCHANGE_SECONDS = 7e-4, 3.3e-5
LAYERS_AT_HAND = 2  # that are whole at a time; those need not come anew where a pass turns back
_MOST_TOKENS = 1 << 20  # of one GPU in a pass
_SPARE = 8  # counts are filled up to the largest if that adds this part of all at most


class Way(StrEnum):
    GATHERED = "gathered"  # weights come to the tokens
    COPIED = "copied"  # the same, out of the memory of GPUs that reach one another
    TRAVELLING = "travelling"  # tokens go to the weights


@dataclass(frozen=True, slots=True)
class PassTokens:
    """Of each GPU, in the two halves of a pass."""

    forward: tuple[int, ...]
    backward: tuple[int, ...]  # 0 where nothing is trained

    def evened(self) -> "PassTokens":
        """With the rows that are sent: nearly equal counts are made equal, which is faster."""
        return PassTokens(_evened(self.forward), _evened(self.backward))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedLinears:
    """The frozen weights that are in shards: equal layers of groups, each of one input."""

    num_gpus: int
    layers: int
    groups: tuple[tuple[int, int], ...]  # inputs and outputs
    item_bytes: int
    reads_peers: bool = False  # the GPUs reach one another's memory

    @property
    def layer_bytes(self) -> int:
        return sum(inputs * outputs for inputs, outputs in self.groups) * self.item_bytes

    def gathering_seconds(self, *, is_training: bool, is_recorded: bool) -> float:
        count = self._fetches(is_training=is_training)
        rate = _RECORDED_GATHER_RATE if is_recorded else _LAUNCHED_GATHER_RATE
        return count * (self._received_bytes / rate + _GATHER_SECONDS)

    def copying_seconds(self, tokens: PassTokens) -> float:
        """By which the pass gets longer: no less than what does not fit beside the arithmetic."""
        is_training = any(tokens.backward)
        seconds = self._fetches(is_training=is_training) * self._received_bytes / _COPY_RATE
        products = sum(inputs * outputs for inputs, outputs in self.groups) * self.layers
        rows = max(tokens.forward) + max(tokens.backward)
        return max(_COPY_SHARE * seconds, seconds - 2 * products * rows / _PRODUCTS_RATE)

    def travelling_seconds(self, tokens: PassTokens, *, is_recorded: bool) -> float:
        """Until the GPU that sends or receives the most is done: links are as fast both ways."""
        sent = tokens.evened()
        halves = 2 if any(sent.backward) else 1
        most = max(self._moved_bytes(sent, number) for number in range(self.num_gpus))
        collectives = 2 * halves * len(self.groups) * self.layers
        each = _RECORDED_EXCHANGE_SECONDS if is_recorded else _LAUNCHED_EXCHANGE_SECONDS
        return most / _TRAVELLING_RATE + collectives * each

    def exchanged_bytes(self, tokens: PassTokens) -> int:
        """Most that one GPU holds of tokens that travel, beside what the pass keeps: inputs of all,
        its outputs for them, and those of its own tokens, twice while they are put in order."""
        sent = tokens.evened()
        most = 0
        for counts in (sent.forward, sent.backward):
            together, own = sum(counts), max(counts)
            for inputs, outputs in self.groups:
                part = -(-outputs // self.num_gpus)
                there = self.num_gpus * own + together
                most = max(most, there * max(inputs, part) + together * part + 3 * own * outputs)
        return most * self.item_bytes

    def most_exchanged_bytes(self) -> int:
        """In any pass in which tokens travel. They cost the least where all GPUs have as many."""

        def is_gathered(count: int) -> bool:
            tokens = PassTokens((count,) * self.num_gpus, (count,) * self.num_gpus)
            return self.cheaper(tokens, is_recorded=True) is not Way.TRAVELLING

        count = bisect_left(range(1, _MOST_TOKENS), True, key=is_gathered)
        return self.exchanged_bytes(PassTokens((count,) * self.num_gpus, (0,) * self.num_gpus))

    def cheapest(
        self, tokens: PassTokens, *, is_recorded: bool, may_travel: bool = True
    ) -> tuple[Way, float]:
        """The way that takes the least, and the seconds."""
        found = {
            Way.GATHERED: self.gathering_seconds(
                is_training=any(tokens.backward), is_recorded=is_recorded
            )
        }
        if self.reads_peers:
            found[Way.COPIED] = self.copying_seconds(tokens)
        if may_travel:
            found[Way.TRAVELLING] = self.travelling_seconds(tokens, is_recorded=is_recorded)
        way = min(found, key=lambda each: found[each])
        return way, found[way]

    def cheaper(self, tokens: PassTokens, *, is_recorded: bool) -> Way:
        return self.cheapest(tokens, is_recorded=is_recorded)[0]

    @property
    def _received_bytes(self) -> float:
        """Of a layer, by each GPU."""
        return self.layer_bytes * (self.num_gpus - 1) / self.num_gpus

    def _fetches(self, *, is_training: bool) -> int:
        return 2 * max(0, self.layers - LAYERS_AT_HAND) if is_training else self.layers

    def _moved_bytes(self, sent: PassTokens, number: int) -> int:
        """In or out of the GPU with this number, whichever is more.

        Forward its inputs go to all others, and come back as outputs, a part from each. Back again
        gradients of outputs go out in parts, and those of inputs come in from all others.
        """
        inputs = sum(size for size, _ in self.groups)
        parts = sum(-(-size // self.num_gpus) for _, size in self.groups)
        received = handed_on = 0
        halves = (sent.forward, inputs, parts), (sent.backward, parts, inputs)
        for counts, there, back in halves:
            own, others = counts[number] * (self.num_gpus - 1), sum(counts) - counts[number]
            received += others * there + own * back
            handed_on += own * there + others * back
        return max(received, handed_on) * self.layers * self.item_bytes


def _evened(counts: Sequence[int]) -> tuple[int, ...]:
    most, together = max(counts), sum(counts)
    if (most * len(counts) - together) * _SPARE <= together:
        return (most,) * len(counts)
    return tuple(counts)
