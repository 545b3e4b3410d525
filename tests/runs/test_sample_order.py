from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alto_runs.sample_order import batch_indices

SEEDS = st.integers(0, 2**31 - 1)


def stream(seed: int, samples_per_step: int, num_samples: int, length: int) -> list[int]:
    steps = range(-(-length // samples_per_step))
    indices = (
        i for step in steps for i in batch_indices(seed, step, samples_per_step, num_samples)
    )
    return list(islice(indices, length))


@given(SEEDS, st.integers(1, 9), st.integers(1, 40), st.integers(1, 4))
def test_every_epoch_holds_every_sample_once(
    seed: int, samples_per_step: int, num_samples: int, epochs: int
) -> None:
    drawn = stream(seed, samples_per_step, num_samples, epochs * num_samples)
    for epoch in range(epochs):
        part = drawn[epoch * num_samples : (epoch + 1) * num_samples]
        assert sorted(part) == list(range(num_samples))


@given(SEEDS, st.integers(1, 9), st.integers(1, 9), st.integers(1, 40))
def test_the_stream_is_the_same_whatever_the_batch_size(
    seed: int, one: int, other: int, num_samples: int
) -> None:
    assert stream(seed, one, num_samples, 60) == stream(seed, other, num_samples, 60)


@given(SEEDS, st.integers(0, 10**6), st.integers(1, 50), st.integers(1, 40))
def test_a_step_needs_no_step_before_it(
    seed: int, step: int, samples_per_step: int, num_samples: int
) -> None:
    first = batch_indices(seed, step, samples_per_step, num_samples)
    batch_indices(seed + 1, step + 1, samples_per_step, num_samples)
    assert batch_indices(seed, step, samples_per_step, num_samples) == first
    assert len(first) == samples_per_step


@pytest.mark.parametrize(
    ("one", "other"), [((0, 0), (1, 0)), ((0, 0), (0, 1)), ((0, 1), (1, 0))], ids=str
)
def test_seeds_and_epochs_have_orders_of_their_own(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    """Pairs of (seed, epoch)."""
    drawn = [batch_indices(seed, epoch, 100, 100) for seed, epoch in (one, other)]
    assert drawn[0] != drawn[1]


def test_the_order_is_the_one_that_older_runs_had() -> None:
    assert batch_indices(0, 0, 8, 8) == [0, 3, 7, 5, 1, 2, 6, 4]
    assert batch_indices(0, 1, 8, 8) == [3, 7, 4, 2, 1, 6, 5, 0]
