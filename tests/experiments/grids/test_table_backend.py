from alto_policy.decisions import ExitReason
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.asha import AshaSettings
from alto_policy.policies.fifo import FifoSettings
from experiments.grids.table_backend import Arrival, play_policy
from tests.experiments.tables import grid

FALLING = grid([[4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3], [7, 6, 5, 4]])


def test_jobs_report_in_lockstep() -> None:
    play = play_policy(FALLING, FifoSettings())
    assert play.rows == (0, 1, 2, 3) * 4
    assert play.columns == (0,) * 4 + (1,) * 4 + (2,) * 4 + (3,) * 4


def test_jobs_report_one_after_another_in_the_order_given() -> None:
    play = play_policy(FALLING, FifoSettings(), Arrival.SEQUENTIAL, order=(2, 0, 3, 1))
    assert play.rows == (2,) * 4 + (0,) * 4 + (3,) * 4 + (1,) * 4
    assert play.columns == (0, 1, 2, 3) * 4


def test_a_job_that_pauses_goes_on_where_it_was() -> None:
    play = play_policy(FALLING, AltoSettings(warmup=0.5, keep=0.5), Arrival.SEQUENTIAL)
    assert list(zip(play.rows, play.columns, strict=True)) == [
        *((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)),
        *((0, 2), (0, 3), (1, 2), (1, 3)),
    ]
    assert play.reasons == dict.fromkeys((2, 3), ExitReason.UNDERPERFORMED)


def test_what_is_stopped_reports_no_more() -> None:
    play = play_policy(FALLING, AshaSettings(grace=0.25, eta=2.0))
    assert play.rows.count(3) == 1
    assert play.reasons[3] is ExitReason.UNDERPERFORMED
