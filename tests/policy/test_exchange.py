import pytest

from alto_policy.exchange import PassTokens, ShardedLinears, Way
from alto_policy.layout import PassCosts


def sharded(layers: int, hidden: int, keys: int, middle: int) -> ShardedLinears:
    """Of Llama's family, on four GPUs."""
    groups = (
        (hidden, hidden + 2 * keys),
        (hidden, hidden),
        (hidden, 2 * middle),
        (middle, hidden),
    )
    return ShardedLinears(num_gpus=4, layers=layers, groups=groups, item_bytes=2)


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
    assert linears.cheaper(PassTokens(tokens, tokens)) is Way.GATHERED


@pytest.mark.parametrize(
    ("forward", "backward", "expected"),
    [
        pytest.param((256,) * 4, (256,) * 4, Way.TRAVELLING, id="few tokens"),
        pytest.param((4096,) * 4, (4096,) * 4, Way.GATHERED, id="many"),
        pytest.param((6000, 0, 0, 0), (6000, 0, 0, 0), Way.GATHERED, id="all of one GPU"),
        pytest.param((1500,) * 4, (1500,) * 4, Way.TRAVELLING, id="as many, of all"),
        pytest.param(
            (3000,) * 4, (0,) * 4, Way.GATHERED, id="evaluation, in which all is gathered"
        ),
    ],
)
def test_the_cheaper_way(
    forward: tuple[int, ...], backward: tuple[int, ...], expected: Way
) -> None:
    assert LLAMA_405B.cheaper(PassTokens(forward, backward)) is expected


def test_costs_of_a_layout_know_the_cheaper_way() -> None:
    costs = PassCosts.estimated(LLAMA_405B, 405_000_000_000, recomputes=False)
    assert costs.exchange([256] * 4) < costs.gathering == costs.exchange([4096] * 4)
    again = PassCosts.estimated(LLAMA_405B, 405_000_000_000, recomputes=True)
    assert again.exchange([256] * 4) == again.gathering
