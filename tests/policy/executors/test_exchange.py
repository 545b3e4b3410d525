from dataclasses import replace

import pytest

from alto_policy.executors.exchange import PassTokens, ShardedLinears, Way
from alto_policy.executors.layout import PassCosts


def sharded(layers: int, hidden: int, keys: int, middle: int) -> ShardedLinears:
    """Of Llama's family, on four GPUs."""
    groups = (
        (hidden, hidden + 2 * keys),
        (hidden, hidden),
        (hidden, 2 * middle),
        (middle, hidden),
    )
    return ShardedLinears(num_gpus=4, layers=layers, groups=groups, item_bytes=2)


LLAMA_1B = sharded(16, 2048, 512, 8192)
LLAMA_8B = sharded(32, 4096, 1024, 14336)
QWEN_32B = sharded(64, 5120, 1024, 27648)
LLAMA_405B = sharded(126, 16384, 1024, 53248)


@pytest.mark.parametrize("linears", [LLAMA_8B, QWEN_32B])
@pytest.mark.parametrize("tokens", [(512,) * 4, (256,) * 4, (256, 0, 0, 0)])
def test_what_was_measured_faster_is_chosen(
    linears: ShardedLinears, tokens: tuple[int, ...]
) -> None:
    """Four H100s, batches of 8 x 2, 8 x 1 and 1 x 1 of 256: gathered 0.22 to 0.58 s, travelling
    0.41 to 0.73."""
    assert linears.cheaper(PassTokens(tokens, tokens), is_recorded=False) is Way.GATHERED


@pytest.mark.parametrize("linears", [LLAMA_1B, LLAMA_8B])
@pytest.mark.parametrize("rows", [(2560, 2560), (512, 0)])
def test_what_was_measured_faster_in_recorded_passes_is_chosen(
    linears: ShardedLinears, rows: tuple[int, ...]
) -> None:
    """Two H100s, batches of 8 x 2 and 1 x 1 of 256: gathered 0.036 and 0.016 s (1B), 0.174 and
    0.062 (8B), travelling 0.073 and 0.023, 0.284 and 0.069."""
    on_two = replace(linears, num_gpus=2)
    assert on_two.cheaper(PassTokens(rows, rows), is_recorded=True) is Way.GATHERED


@pytest.mark.parametrize(
    ("rows", "is_recorded", "expected"),
    [(1024, True, Way.GATHERED), (1536, True, Way.COPIED), (8192, False, Way.COPIED)],
)
def test_weights_are_copied_where_arithmetic_hides_it(
    rows: int, is_recorded: bool, expected: Way
) -> None:
    """Four H200s, 8 jobs of 1 x 256 and 2 x 256 in recorded rows, 32 of 1,024: gathered 0.084,
    0.116 and 0.500 s, copied 0.100, 0.105 and 0.456."""
    reaching = replace(LLAMA_8B, reads_peers=True)
    tokens = PassTokens((rows,) * 4, (rows,) * 4)
    assert reaching.cheaper(tokens, is_recorded=is_recorded) is expected
    assert LLAMA_8B.cheaper(tokens, is_recorded=is_recorded) is Way.GATHERED


def test_what_is_computed_again_does_not_travel() -> None:
    few = PassTokens((512, 0, 0, 0), (512, 0, 0, 0))
    way, seconds = QWEN_32B.cheapest(few, is_recorded=True, may_travel=False)
    assert way is Way.GATHERED
    assert seconds == QWEN_32B.gathering_seconds(is_training=True, is_recorded=True)


def test_few_tokens_travel_in_recorded_passes_of_large_layers() -> None:
    few = PassTokens((512, 0, 0, 0), (512, 0, 0, 0))
    assert QWEN_32B.cheaper(few, is_recorded=True) is Way.TRAVELLING
    assert QWEN_32B.cheaper(few, is_recorded=False) is Way.GATHERED


def test_memory_of_the_most_tokens_that_travel() -> None:
    """Of the largest group, 40 KB for each row that comes or goes, in hundreds of MB."""
    most = QWEN_32B.most_exchanged_bytes()
    count = next(n for n in range(1, 9999) if _is_gathered(QWEN_32B, n)) - 1
    tokens = PassTokens((count,) * 4, (count,) * 4)
    assert most == QWEN_32B.exchanged_bytes(tokens)
    hidden, middle, item = 5120, 27648, 2
    part = 2 * middle // 4
    # Handed over, as it came, what is found of it; own outputs as they come and twice in order.
    given, came = 4 * count * part, 4 * count * part
    assert most == item * (given + came + 4 * count * part + 3 * count * 2 * middle)
    assert replace(QWEN_32B, layers=0).most_exchanged_bytes() == 0
    assert hidden < part


def _is_gathered(linears: ShardedLinears, count: int) -> bool:
    tokens = PassTokens((count,) * 4, (count,) * 4)
    return linears.cheaper(tokens, is_recorded=True) is Way.GATHERED


@pytest.mark.parametrize(
    ("forward", "backward", "expected"),
    [
        pytest.param((256,) * 4, (256,) * 4, Way.TRAVELLING, id="few tokens"),
        pytest.param((4096,) * 4, (4096,) * 4, Way.GATHERED, id="many"),
        pytest.param((4000, 0, 0, 0), (4000, 0, 0, 0), Way.GATHERED, id="all of one GPU"),
        pytest.param((1000,) * 4, (1000,) * 4, Way.TRAVELLING, id="as many, of all"),
        pytest.param(
            (3000,) * 4, (0,) * 4, Way.GATHERED, id="evaluation, in which all is gathered"
        ),
    ],
)
def test_the_cheaper_way(
    forward: tuple[int, ...], backward: tuple[int, ...], expected: Way
) -> None:
    assert LLAMA_405B.cheaper(PassTokens(forward, backward), is_recorded=False) is expected


def estimated(*, recomputes: bool) -> PassCosts:
    return PassCosts.estimated(
        LLAMA_405B,
        405_000_000_000,
        recorded_alone=200,
        recorded_together=100,
        recomputes=recomputes,
    )


def test_costs_of_a_layout_know_the_cheaper_way() -> None:
    """And the launches of an exchange are told once."""
    costs, again = estimated(recomputes=False), estimated(recomputes=True)
    few, many = [256] * 4, [4096] * 4
    tokens = PassTokens((256,) * 4, (256,) * 4)
    exchange = LLAMA_405B.travelling_seconds(tokens, is_recorded=False)
    assert costs.together(few) == pytest.approx(256 * costs.per_token + exchange)
    gathering = LLAMA_405B.gathering_seconds(is_training=True, is_recorded=False)
    for each, counts in ((costs, many), (again, few), (again, many)):
        gathered = each.launches + gathering + each.per_token * counts[0]
        assert each.together(counts) == pytest.approx(gathered)
    recorded, launched = costs.together([100] * 4), costs.together([101] * 4)
    assert recorded + LLAMA_405B.layers * 8 * 6e-4 < launched
