"""The passes that all ranks make together: launched, or recorded together and replayed."""

import sys
import traceback
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from alto_exec.adapters.bank import AdapterBank
from alto_exec.adapters.bank_memory import RecordedBank
from alto_exec.parallel.agreement import UNRECORDED, Agreed, Agreement, Offer, Pass, as_bits
from alto_exec.parallel.ranks import Ranks
from alto_exec.parallel.sharded_layers import ShardedLayers, Standing
from alto_exec.passes.activations import Activations
from alto_exec.passes.batch import PackedBatch
from alto_exec.passes.cuda_graphs import (
    Launch,
    PassShape,
    Recording,
    Replayed,
    Train,
    free_bytes,
    pool_of,
    spare_bytes,
)
from alto_exec.passes.weighing import Weigh
from alto_policy.executors.exchange import Way

__all__ = ["Part", "SharedPasses"]


@dataclass(frozen=True, slots=True)
class Part:
    """What a rank computes in a pass."""

    want: Pass
    bank: AdapterBank
    batch: PackedBatch
    weigh: Weigh
    compute: Train
    is_recordable: bool = False
    row_bytes: int = 0  # that it takes at most, of a recorded pass
    spare: float = 0.0  # room for so much more, in a recording that others like it shall use

    def offer(self, recordings: dict[int, "_Own"], layers_again: int) -> Offer:
        tokens, held = len(self.batch.tokens_T), as_bits(recordings)
        if not self.is_recordable:
            return Offer(self.want, tokens, UNRECORDED, held, layers_again=layers_again)
        own = PassShape.around(self.batch, self.weigh)
        fitting = [
            number
            for number, each in recordings.items()
            if each.want is self.want and each.recording.takes(self.batch, own)
        ]
        return Offer(self.want, tokens, self.new_shape().rows, held, as_bits(fitting))

    def new_shape(self) -> PassShape:
        return PassShape.around(self.batch, self.weigh, self.spare)


@dataclass(slots=True)
class _Own:
    """This rank's part of a recording."""

    want: Pass
    recording: Recording
    left: Standing | None = None  # by the recorded pass


class SharedPasses:
    """One on each rank. A rank without a part assists the others: it makes their collectives."""

    def __init__(
        self, ranks: Ranks, layers: ShardedLayers, activations: Activations, way: Way | None
    ) -> None:
        """All passes go the `way` that is named. What is computed again would have to travel again,
        in an order that autograd decides: in such passes weights come to the tokens."""
        self.replayed = Replayed()  # so far, of those that this rank has trained in
        self.travelled = 0  # of these
        self.recorded_bank = RecordedBank(self)
        self._ranks = ranks
        self._layers = layers
        self._activations = activations
        self._way = way
        self._records = True
        self._agreement = Agreement(ranks.rank)
        self._recordings: dict[int, _Own] = {}
        ranks.watch_over(self)

    def make(self, part: Part) -> Tensor:
        """What `part` computes; good until the next pass."""
        self.recorded_bank.meet(part.bank.memory)
        if not self._records:
            part = replace(part, is_recordable=False)
        layers_again = self._activations.layers_again(part.bank, part.batch)
        agreed = self._agree(part.offer(self._recordings, layers_again))
        found = self._made(agreed, part)
        self.travelled += self._layers.travels and part.want is Pass.TRAIN
        return found

    def assist(self) -> bool:
        """Whether another rank wanted a pass."""
        fitting = [number for number, own in self._recordings.items() if own.want is Pass.NONE]
        held = as_bits(self._recordings)
        agreed = self._agree(Offer(Pass.NONE, held=held, fitting=as_bits(fitting)))
        if agreed.kind is Pass.NONE:
            return False
        self._made(agreed, None)
        return True

    def clear(self) -> None:
        """Give the memory back; the other ranks hear of it before the next pass."""
        self._keep(())

    def _agree(self, offer: Offer) -> Agreed:
        """The ranks tell each other what they want and have, and decide alike."""
        told = self._ranks.each(*offer.numbers())
        agreed = self._agreement.agree([Offer.of(numbers) for numbers in told])
        self._keep(self._agreement.numbers)
        return agreed

    def _made(self, agreed: Agreed, part: Part | None) -> Tensor:
        own = self._own_of(agreed, part)
        is_recorded = own is not None and (
            own.recording.is_recorded or self._has_room(agreed, part)
        )
        way = self._way_of(agreed, is_recorded=is_recorded)
        self._activations.agreed = agreed.layers_again
        self._layers.begin(agreed.kind, agreed.tokens, way)
        try:
            if own is None:
                return _computed(self._layers, part)
            return self._recorded_or_launched(agreed, own, part, is_recorded=is_recorded)
        except BaseException as error:
            # The other ranks go on, and want memory for that which may be what has run out.
            traceback.clear_frames(error.__traceback__)
            self._keep([n for n, each in self._recordings.items() if each is not own])
            raise
        finally:
            self._activations.agreed = None
            self._layers.finish()

    def _recorded_or_launched(
        self, agreed: Agreed, own: _Own, part: Part | None, *, is_recorded: bool
    ) -> Tensor:
        """The first pass is launched in any case, which compiles its kernels."""
        launch = _launch_of(self._layers, own, part)
        if own.recording.is_recorded:
            if own.want is Pass.TRAIN:
                self.replayed = self.replayed.plus(agreed.rows)
        elif agreed.is_new or not is_recorded or not self._record(own, launch):
            return launch()
        elif own.want is Pass.TRAIN:
            self.replayed = self.replayed.plus_recorded()
        assert own.left is not None
        found = own.recording.run(launch)
        self._layers.pass_over(own.left)
        return found

    def _own_of(self, agreed: Agreed, part: Part | None) -> _Own | None:
        if agreed.number is None:
            return None
        if agreed.is_new:
            want = Pass.NONE if part is None else part.want
            shape = None if part is None else part.new_shape()
            self._keep([number for number in self._recordings if number != agreed.number])
            self._recordings[agreed.number] = _Own(want, Recording(shape))
        return self._recordings[agreed.number]

    def _has_room(self, agreed: Agreed, part: Part | None) -> bool:
        """Whether all ranks can record the pass. A new one may take what others are kept in."""
        needed = 0 if part is None else agreed.rows * part.row_bytes
        if self._way_of(agreed, is_recorded=True) is Way.TRAVELLING:
            needed += self._layers.linears.exchanged_bytes(agreed.tokens)
        if not agreed.is_new:
            return self._ranks.all(spare_bytes(needed) <= free_bytes())
        if not self._ranks.all(needed <= free_bytes()):
            self._agreement.keep([n for n in self._agreement.numbers if n == agreed.number])
            self._keep(self._agreement.numbers)
        return True

    def _way_of(self, agreed: Agreed, *, is_recorded: bool) -> Way:
        may_travel = agreed.layers_again == 0
        if self._way is not None and (may_travel or self._way is not Way.TRAVELLING):
            return self._way
        linears = self._layers.linears
        way, _ = linears.cheapest(agreed.tokens, is_recorded=is_recorded, may_travel=may_travel)
        return way

    def _record(self, own: _Own, launch: Launch) -> bool:
        """Whether all ranks have recorded it; else it is launched, as all from now on, but for
        those whose memory has run out: they raise OutOfMemoryError."""
        errors: list[torch.OutOfMemoryError] = []

        def guarded() -> Tensor:
            try:
                return launch()
            except torch.OutOfMemoryError as error:
                errors.append(error)
                return torch.empty(0)

        before = self._layers.standing()
        own.recording.record(guarded, pool_of(each.recording for each in self._recordings.values()))
        own.left = self._layers.standing().since(before)
        self._layers.go_back(before)
        if self._ranks.all(not errors):
            return True
        self._stop_recording()
        if errors:
            raise errors[0]
        return False

    def _keep(self, numbers: Collection[int]) -> None:
        """Of the recordings these alone."""
        for number in [each for each in self._recordings if each not in numbers]:
            self._recordings.pop(number).recording.forget()

    def _stop_recording(self) -> None:
        """For good, alike on all ranks: each has hardly enough memory to train."""
        self._records = False
        self._agreement.keep(())
        self._keep(())
        if self._ranks.is_leader:
            sys.stderr.write(
                "alto: memory ran out while a pass was recorded; all passes are launched from now "
                "on\n"
            )


def _launch_of(layers: ShardedLayers, own: _Own, part: Part | None) -> Launch:
    """The pass on what is in the recording's room."""
    if part is None:
        return partial(_computed, layers, None)
    batch, weigh = own.recording.filled(part.batch, part.weigh)
    return partial(_computed, layers, replace(part, batch=batch, weigh=weigh))


def _computed(layers: ShardedLayers, part: Part | None) -> Tensor:
    """And whatever the other ranks compute beyond it."""
    try:
        if part is None:
            return torch.empty(0)
        return part.compute(part.bank, part.batch, part.weigh)
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        layers.finish()
