import pytest

from alto_policy.exchange import PassTokens, ShardedLinears, Way
from alto_policy.layout import PassCosts

LLAMA_8B = ShardedLinears(
    num_gpus=4,
    layers=32,
    groups=((4096, 6144), (4096, 4096), (4096, 28672), (14336, 4096)),
    item_bytes=2,
)


@pytest.mark.parametrize(
    ("forward", "backward", "expected"),
    [
        pytest.param((256,) * 4, (256,) * 4, Way.TRAVELLING, id="few tokens"),
        pytest.param((4096,) * 4, (4096,) * 4, Way.GATHERED, id="many"),
        pytest.param((2900, 0, 0, 0), (2900, 0, 0, 0), Way.GATHERED, id="all of one GPU"),
        pytest.param((725,) * 4, (725,) * 4, Way.TRAVELLING, id="as many, of all"),
        pytest.param((900,) * 4, (0,) * 4, Way.GATHERED, id="evaluation, in which all is gathered"),
    ],
)
def test_the_cheaper_way(
    forward: tuple[int, ...], backward: tuple[int, ...], expected: Way
) -> None:
    assert LLAMA_8B.cheaper(PassTokens(forward, backward)) is expected


def test_costs_of_a_layout_know_the_cheaper_way() -> None:
    costs = PassCosts.estimated(LLAMA_8B, 8_000_000_000, recomputes=False)
    assert costs.exchange([256] * 4) < costs.gathering == costs.exchange([4096] * 4)
    again = PassCosts.estimated(LLAMA_8B, 8_000_000_000, recomputes=True)
    assert again.exchange([256] * 4) == again.gathering
