"""What all ranks make of what each of them tells."""

from dataclasses import replace

import pytest

from alto_exec.parallel import agreement
from alto_exec.parallel.agreement import UNRECORDED, Agreed, Agreement, Offer, Pass, as_bits
from alto_policy.executors.exchange import PassTokens

BUSY, IDLE = Offer(Pass.TRAIN, tokens=900, rows=1024), Offer(Pass.NONE)


def holding(offer: Offer, held: tuple[int, ...], fitting: tuple[int, ...]) -> Offer:
    return replace(offer, held=as_bits(held), fitting=as_bits(fitting))


def of_two(first: Agreement, second: Agreement, *offers: Offer) -> Agreed:
    """On the first of two ranks; the second decides alike."""
    agreed, other = first.agree(offers), second.agree(offers)
    assert replace(agreed, rows=0) == replace(other, rows=0)
    assert first.numbers == second.numbers
    return agreed


@pytest.fixture
def two() -> tuple[Agreement, Agreement]:
    """Which have one recording: the first rank trains 1024 rows, the second 512."""
    ranks = Agreement(0), Agreement(1)
    agreed = of_two(*ranks, BUSY, replace(BUSY, tokens=400, rows=512))
    assert (agreed.number, agreed.rows, agreed.is_new) == (0, 1024, True)
    return ranks


def test_a_pass_is_what_the_most_wanted_is() -> None:
    first, second = Agreement(0), Agreement(1)
    assert of_two(first, second, IDLE, IDLE) == Agreed(Pass.NONE, PassTokens((0, 0), (0, 0)))
    judged = Offer(Pass.FORWARD, tokens=30, rows=UNRECORDED)
    agreed = of_two(first, second, judged, replace(BUSY, rows=UNRECORDED))
    assert agreed == Agreed(Pass.TRAIN, PassTokens((30, 900), (0, 900)))


def test_a_recording_is_taken_where_all_ranks_have_room_in_it(
    two: tuple[Agreement, Agreement],
) -> None:
    fits = holding(replace(BUSY, tokens=800), held=(0,), fitting=(0,))
    not_here = replace(fits, fitting=0)
    agreed = of_two(*two, fits, replace(fits, tokens=100, rows=512))
    assert agreed == Agreed(Pass.TRAIN, PassTokens((1024, 512), (1024, 512)), 0, rows=1024)
    for offers in ((fits, not_here), (not_here, fits)):
        assert of_two(*two, *offers).is_new


def test_what_one_rank_has_lost_is_lost(two: tuple[Agreement, Agreement]) -> None:
    fits = holding(BUSY, held=(0,), fitting=(0,))
    lost = holding(BUSY, held=(), fitting=())
    agreed = of_two(*two, fits, lost)
    assert (agreed.number, agreed.is_new) == (0, True)
    assert two[0].numbers == (0,)
    assert not of_two(*two, IDLE, IDLE).is_new
    assert not two[0].numbers


@pytest.mark.parametrize(
    ("want", "kept"), [(Pass.TRAIN, ()), (Pass.FORWARD, (0,))], ids=["training", "evaluation"]
)
def test_a_pass_that_is_not_recorded_may_need_all_memory(
    two: tuple[Agreement, Agreement], want: Pass, kept: tuple[int, ...]
) -> None:
    large = Offer(want, tokens=9000, rows=UNRECORDED, held=as_bits([0]))
    agreed = of_two(*two, large, holding(IDLE, held=(0,), fitting=()))
    assert (agreed.number, agreed.tokens.forward) == (None, (9000, 0))
    assert two[0].numbers == kept


def test_the_one_of_which_the_busiest_rank_computes_the_least() -> None:
    ranks = Agreement(0), Agreement(1)
    rows = ((512, 2048), (1024, 1024), (1536, 256))
    for number, (here, there) in enumerate(rows):
        held = tuple(range(number))
        one, other = (holding(replace(BUSY, rows=count), held, ()) for count in (here, there))
        assert of_two(*ranks, one, other).number == number
    offer = holding(replace(BUSY, rows=512), (0, 1, 2), (0, 1, 2))
    assert of_two(*ranks, offer, offer).number == 1


def test_rows_computed_for_nothing_pay_for_another_recording(
    two: tuple[Agreement, Agreement], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the rank that computes the most."""
    monkeypatch.setattr(agreement, "RECORDING_ROWS", 1000)
    small = holding(replace(BUSY, tokens=500, rows=512), held=(0,), fitting=(0,))
    none = holding(replace(BUSY, tokens=0, rows=0), held=(0,), fitting=(0,))
    assert of_two(*two, none, small).number == 0  # 512 in vain, whatever the other wastes
    agreed = of_two(*two, none, small)
    assert (agreed.number, agreed.is_new, agreed.tokens.forward) == (1, True, (0, 512))


def test_the_recording_used_longest_ago_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "MOST_RECORDINGS", 3)
    ranks = Agreement(0), Agreement(1)
    for held in ((), (0,), (0, 1)):
        assert of_two(*ranks, *[holding(BUSY, held, ())] * 2).is_new
    assert of_two(*ranks, *[holding(BUSY, (0, 1, 2), (0,))] * 2).number == 0
    agreed = of_two(*ranks, *[holding(BUSY, (0, 1, 2), ())] * 2)
    assert (agreed.number, agreed.is_new) == (1, True)
    assert sorted(ranks[0].numbers) == [0, 1, 2]


def test_an_offer_is_told_in_numbers() -> None:
    offer = holding(BUSY, held=(0, 31), fitting=(31,))
    assert Offer.of(offer.numbers()) == offer
    assert max(offer.numbers()) < 1 << 63
