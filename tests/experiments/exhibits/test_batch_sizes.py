"""Which batch size is best, by rank, amount of training and amount of data."""

from pathlib import Path
from statistics import stdev

import pytest

from alto_policy.types import Hyperparameters
from experiments.exhibits import fig03_batch_size
from experiments.exhibits.exhibit import Verdict
from experiments.grids.curve_sets import by_seed, recorded_sets
from tests.experiments.runs import loss_of, record
from tests.experiments.tables import rows_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "traces" / "recorded"


def test_figure_3_judges_larger_batches_of_the_same_task_and_seed(folder: Path) -> None:
    larger = folder.with_name("batches")
    record(folder / "a", "a-fifo", samples=1280)
    record(folder / "a1", "a-fifo-seed1", seed=1, samples=1280)
    record(folder / "b", "b-fifo", samples=1280)
    record(larger / "a16", "a-fifo", samples=1280, batch_sizes=(16, 32))
    record(larger / "a64", "a-fifo", samples=1280, batch_sizes=(64,), reports=7)
    record(larger / "a64-1", "a-fifo-seed1", seed=1, samples=1280, batch_sizes=(32,))
    record(larger / "b", "b-fifo", samples=900, batch_sizes=(32,))
    shown = fig03_batch_size.exhibit(folder, larger, folder.with_name("sizes"))
    whole = {r["task"]: r for r in rows_of(shown) if (r["rank"], r["trained"]) == ("all", 1.0)}
    least, most = (loss_of(Hyperparameters(learning_rate=1e-3, batch_size=n), 1.0) for n in (2, 64))
    assert whole["a"]["best batch"] == 2
    assert whole["a"]["worst above best"] == pytest.approx(most / least - 1)
    assert whole["a"]["deviation"] is None, "seed 1 was not tried with all sizes"
    assert shown.verdict is Verdict.PARTLY, "the one task whose claim holds"
    assert sum("a16" in log or "a64" in log for log in shown.logs) == 2
    assert len(by_seed((*recorded_sets(folder), *recorded_sets(larger)))) == 3, "other data of b"


def test_figure_3_compares_amounts_of_data_between_tasks_by_the_batches_of_all(
    folder: Path,
) -> None:
    larger = folder.with_name("batches")
    record(folder / "a", "a-fifo", samples=1280, batch_sizes=(2, 8))
    record(
        folder / "b",
        "b-fifo",
        samples=640,
        batch_sizes=(2, 8),
        loss=lambda h, s: 99.0 - h.batch_size,
    )
    record(
        larger / "b",
        "b-fifo",
        samples=640,
        batch_sizes=(16,),
        loss=lambda h, s: 99.0 - h.batch_size,
    )
    shown = fig03_batch_size.exhibit(folder, larger, folder.with_name("sizes"))
    told = "by the amount of data: 8 of 640 samples (b), 2 of 1,280 samples (a)."
    assert f"Of the batches that all have, {told}" in shown.found


def test_figure_3_takes_the_mean_of_seeds_that_were_tried_alike(folder: Path) -> None:
    larger = folder.with_name("batches")
    steep = {0: 1.0, 1: 3.0}

    def loss(chosen: Hyperparameters, share: float) -> float:
        return 1 + steep[chosen.seed] * chosen.batch_size / 100

    for seed in steep:
        record(folder / f"a{seed}", f"a-fifo-seed{seed}", seed=seed, samples=640, loss=loss)
        name = larger / f"a{seed}"
        record(name, f"a-fifo-seed{seed}", seed=seed, samples=640, batch_sizes=(32,), loss=loss)
    shown = fig03_batch_size.exhibit(folder, larger, folder.with_name("sizes"))
    (whole,) = [r for r in rows_of(shown) if (r["rank"], r["trained"]) == ("all", 1.0)]
    behind = [(1 + 0.32 * each) / (1 + 0.01 * each) - 1 for each in steep.values()]
    assert whole["worst above best"] == pytest.approx(sum(behind) / 2)
    assert whole["deviation"] == pytest.approx(stdev(behind))


def test_figure_3_tells_the_best_batch_of_each_amount_of_data(folder: Path) -> None:
    larger, sizes = folder.with_name("batches"), folder.with_name("sizes")

    def loss(chosen: Hyperparameters, share: float) -> float:
        """Of less data, larger batches are the worse, and of more the better."""
        return 1 + chosen.batch_size / 100

    record(folder / "a", "a-1000-fifo", samples=640, batch_sizes=(2, 8), loss=loss_of)
    record(larger / "a", "a-1000-fifo", samples=640, batch_sizes=(32,), loss=loss_of)
    for name, samples in (("a-250", 128), ("a-2000", 1280)):
        lost = loss if samples < 640 else lambda h, s: 3 - loss(h, s)
        record(
            sizes / name,
            f"{name}-fifo",
            samples=samples,
            batch_sizes=(2, 8, 32),
            reports=4,
            loss=lost,
        )
    shown = fig03_batch_size.exhibit(folder, larger, sizes)
    whole = {r["task"]: r for r in rows_of(shown) if (r["rank"], r["trained"]) == ("all", 1.0)}
    assert {name: row["best batch"] for name, row in whole.items()} == {
        "a": 2,
        "a, 128 samples": 2,
        "a, 1,280 samples": 32,
    }
    told = "a, by the amount of data: batch 2 of 128 samples, 2 of 640 samples, 32 of 1,280 samples"
    assert f"{told} a job." in shown.found
    assert shown.verdict is Verdict.PARTLY, "the claim holds of two amounts"
    assert any("sizes/a-2000" in log for log in shown.logs)
