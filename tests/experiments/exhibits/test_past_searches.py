"""Every recorded search beside the full grid of its data and seed: how far behind, and by what."""

from pathlib import Path

import pytest

from alto_policy.policies.alto_plus import AltoPlusSettings
from alto_policy.types import Hyperparameters
from experiments.exhibits.past_searches import Row, exhibit, rows_of, told_why
from experiments.grids.curve_sets import RECORDED
from experiments.grids.same_task import name_of
from experiments.grids.scores import searches
from tests.experiments.runs import ALTO, loss_of, record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "traces" / "recorded"


def found(folder: Path) -> dict[str, Row]:
    return {row.search: row for row in rows_of(folder)}


def late(chosen: Hyperparameters, share: float) -> float:
    """The worst at the warm-up ends best."""
    is_late = (chosen.learning_rate, chosen.batch_size) == (2e-5, 4)
    return loss_of(chosen, share) if not is_late else 9.0 - 8.9 * (share > 0.5)


def test_what_a_search_is_behind_is_the_product_of_its_parts(folder: Path) -> None:
    record(folder / "a-fifo", "a-fifo", loss=late)
    record(folder / "a-alto", "a-alto", ALTO, loss=lambda h, s: 1.01 * late(h, s))
    row = found(folder)["recorded/a-alto"]
    chosen = loss_of(Hyperparameters(learning_rate=1e-3, batch_size=2), 1.0)
    assert row.choice == pytest.approx(chosen / 0.1 - 1)
    assert row.stop == 0.0
    assert row.recording == pytest.approx(0.01)
    assert row.behind == pytest.approx(1.01 * chosen / 0.1 - 1)
    assert row.grid_behind == pytest.approx(row.choice)
    (told,) = exhibit(folder).found
    assert "by choice, for the grid's best job was stopped (underperformed) after 5% of" in told
    assert "+1.00% by recording it twice" in told


def test_a_winner_that_was_stopped_before_its_best_report_says_so(folder: Path) -> None:
    def turning(chosen: Hyperparameters, share: float) -> float:
        """The best job rises for a while, and falls again."""
        is_best = (chosen.learning_rate, chosen.batch_size) == (1e-3, 2)
        return loss_of(chosen, share) + (is_best and 0.3 < share < 0.9)

    record(folder / "a-fifo", "a-fifo", loss=turning)
    record(folder / "a-alto", "a-alto", ALTO, loss=turning)
    row, one = found(folder)["recorded/a-alto"], searches(folder)[0]
    stopped = one.standings[0].steps / one.task.jobs[0].steps * 2  # of a batch of 2
    least = min(
        turning(one.standings[0].hyperparameters, (n + 1) / 20) for n in range(round(20 * stopped))
    )
    assert row.choice == 0.0
    assert row.stop is not None
    assert row.stop > 0.0
    assert row.stop == pytest.approx(least / turning(one.standings[0].hyperparameters, 1.0) - 1)
    assert row.recording == pytest.approx(0.0)


def test_a_grid_of_another_seed_is_not_its_own(folder: Path) -> None:
    record(folder / "a-fifo", "a-fifo")
    record(folder / "a-alto-seed1", "a-alto-seed1", ALTO, seed=1)
    assert found(folder)["recorded/a-alto-seed1"].behind is None
    (told,) = exhibit(folder).found
    assert told == "`recorded/a-alto-seed1`: no full grid of this data and seed is recorded."


def test_what_recording_it_twice_does_is_told_of_the_grid_that_was(folder: Path) -> None:
    """Another seed's, where it is not this search's own."""
    record(folder.with_name("repeated") / "a-fifo", "a-fifo")
    for seed, end in enumerate(("", "-seed1")):
        record(folder / f"a-fifo{end}", f"a-fifo{end}", seed=seed)
        name = f"a-alto{end}"
        record(folder / name, name, ALTO, seed=seed, loss=lambda h, s: 1.01 * loss_of(h, s))
    own, other = exhibit(folder).found
    assert "when this grid was recorded twice" in own
    assert "when the grid of seed 0 (not this one) was recorded twice" in other
    least = loss_of(Hyperparameters(learning_rate=1e-3, batch_size=2), 1.0)
    assert f"(the same job {least:.4f} in the grid and {1.01 * least:.4f} here)" in own


def test_searches_of_other_folders_are_judged_by_the_grids_of_this(folder: Path) -> None:
    record(folder / "a-fifo", "a-fifo")
    plus = folder.with_name("plus")
    record(plus / "a-alto-plus", "a-1000-alto-plus", AltoPlusSettings())
    (one,) = searches(plus)
    assert name_of(one.task) == "a"
    row = found(folder)["plus/a-alto-plus"]
    assert (row.policy, row.behind) == ("alto+", 0.0)
    assert exhibit(folder).gist.startswith("1 of 1 searches with exits save 75 %")


def test_searches_of_random_weights_are_not_among_them() -> None:
    names = [one.origin for one in searches(RECORDED.with_name("h200"))]
    assert any("llama" in name for name in names)
    assert not any("llama" in row.search for row in rows_of(RECORDED))
    assert not any("llama" in told for told in told_why(RECORDED))
