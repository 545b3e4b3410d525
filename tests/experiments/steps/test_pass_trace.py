from alto_exec.profiling.synthetic import random_samples
from experiments.steps.pass_trace import Launch, Total, busy_microseconds, totals, with_targets


def test_launches_of_one_name_are_added_up_the_longest_first() -> None:
    launches = [Launch("norm", 0, 2), Launch("product", 2, 7), Launch("norm", 9, 3)]
    assert totals(launches) == [Total("product", 1, 7), Total("norm", 2, 5)]


def test_time_in_which_kernels_run_beside_one_another_counts_once() -> None:
    beside = [Launch("a", 0, 10), Launch("b", 2, 3), Launch("c", 8, 6), Launch("d", 20, 1)]
    assert busy_microseconds(reversed(beside)) == 15
    assert busy_microseconds([]) == 0


def test_the_last_tokens_are_targets() -> None:
    (whole,) = random_samples(1, 8, 50)
    assert with_targets([whole], 1.0) == [whole]
    (quarter,) = with_targets([whole], 0.25)
    assert quarter.tokens == whole.tokens
    assert quarter.is_target == (False,) * 6 + (True,) * 2
    assert quarter.num_targets == 2
