"""Recorded runs of other seeds, and what their adapters answer, in the figures made of them."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import stdev

import pytest

from alto_policy.types import Hyperparameters
from alto_runs.errors import UserError
from alto_runs.files.lines import compressed
from experiments.exhibits import (
    fig01_sensitivity,
    fig07_early_rank,
    fig10_expert,
    fig14_quality,
    fig15_samples_saved,
    fig16_warmup,
)
from experiments.exhibits.past_selection import splits
from experiments.grids.curve_sets import by_seed, recorded_sets
from experiments.grids.same_task import is_same_task, name_of, told_seeds
from experiments.grids.scores import searches
from tests.experiments.runs import ALTO, loss_of, record
from tests.experiments.tables import rows_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "traces" / "recorded"


def right(chosen: Hyperparameters) -> float:
    """Of the tokens; the more, the less the loss."""
    return round(0.9 - (loss_of(chosen, 1.0) - 1) / 8, 6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ropes-fifo", "ropes"),
        ("qasc-question-generation-1000-alto-seed1", "qasc-question-generation"),
        ("qasc-question-generation-alto2", "qasc-question-generation"),
        ("ropes-seed1-fifo", "ropes"),
        ("generated-3", "generated-3"),
        ("seedlings", "seedlings"),
    ],
)
def test_policy_seed_and_records_are_not_part_of_a_name(
    name: str, expected: str, folder: Path
) -> None:
    record(folder / name, name)
    (curves,) = recorded_sets(folder)
    assert name_of(curves.task) == expected == curves.name


def test_seeds_of_a_task_are_together_and_other_tasks_apart(folder: Path) -> None:
    record(folder / "a", "a_b-fifo")
    record(folder / "a-seed1", "a-b-fifo-seed1", seed=1)
    record(folder / "a-less", "a-b-fifo-seed2", seed=2, samples=200)
    record(folder / "c", "c-fifo", seed=1)
    groups = by_seed(recorded_sets(folder))
    assert [[curves.origin.split("/")[2] for curves in group] for group in groups] == [
        ["a", "a-seed1"],
        ["a-less"],
        ["c"],
    ]


def test_data_of_the_same_amount_is_told_whatever_the_batch_sizes(folder: Path) -> None:
    record(folder / "a", "a-fifo", samples=1201, batch_sizes=(1, 2))
    record(folder / "b", "a-fifo", samples=1201, batch_sizes=(16, 32))
    record(folder / "c", "a-fifo", samples=1249, batch_sizes=(16, 32))
    one, larger, more = (search.task for search in searches(folder))
    assert is_same_task(one, larger)
    assert not is_same_task(one, more)


def test_a_search_that_was_recorded_again_counts_once(folder: Path) -> None:
    record(folder / "first", "a-fifo", batch_sizes=(2, 4))
    record(folder / "later", "a-fifo")
    (curves,) = recorded_sets(folder)
    assert curves.origin == "traces/recorded/later/run.jsonl"


def test_figure_1_tells_accuracies_and_where_there_are_none(folder: Path) -> None:
    record(folder / "a", "a-fifo", answers=right)
    record(folder / "a1", "a-fifo-seed1", seed=1, answers=lambda chosen: right(chosen) / 2)
    record(folder / "b", "b-fifo")
    record(folder / "b-exits", "b-alto", ALTO, answers=right)
    shown = fig01_sensitivity.exhibit(folder)
    rows = {(row["task"], row["measure"]): row for row in rows_of(shown)}
    tokens, whole = rows["a", "answer tokens"], rows["a", "whole answers"]
    spreads = [100 * (right(best) - right(worst)) for best, worst in (extremes(0), extremes(1))]
    halved = [spreads[0], spreads[1] / 2]
    assert tokens["worst against best"] == pytest.approx(sum(halved) / 2)
    assert tokens["deviation"] == pytest.approx(stdev(halved))
    assert tokens["seeds"] == 2
    assert whole["worst against best"] == pytest.approx(sum(halved) / 4)
    assert whole["untuned"] == pytest.approx(6.25)
    assert whole["paper, worst against best"] == "42.8, 73.9 points"
    losses = rows["a", "validation loss"]
    assert losses["seeds"] == 2
    assert losses["deviation"] > 0
    assert rows["b", "validation loss"]["deviation"] is None
    assert ("b", "answer tokens") not in rows, "its jobs were stopped"
    assert "No accuracies recorded of full grids: b." in shown.found
    assert "Seeds of a: 0, 1;" in shown.seeds


def test_figure_1_has_pairs_that_an_untuned_model_is_not_asked_about(folder: Path) -> None:
    record(folder / "a", "a-fifo", answers=right)
    path = folder / "a" / "answers.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        share = None if row["job"] is None else row["tokens"]
        row |= {"answers": None, "tokens": None, "preferred": share}
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    shown = fig01_sensitivity.exhibit(folder)
    (pairs,) = (row for row in rows_of(shown) if row["measure"] == "pairs preferred")
    best, worst = (right(chosen) for chosen in extremes(0))
    assert pairs["best"] == pytest.approx(100 * best)
    assert pairs["worst against best"] == pytest.approx(100 * (best - worst))
    assert pairs["untuned"] is None
    (told,) = (text for text in shown.found if text.startswith("a, pairs preferred"))
    assert "untuned" not in told


def extremes(seed: int) -> tuple[Hyperparameters, Hyperparameters]:
    return (
        Hyperparameters(learning_rate=1e-3, batch_size=2, seed=seed),
        Hyperparameters(learning_rate=2e-5, batch_size=1, seed=seed),
    )


def test_figure_10_sets_accuracies_and_the_papers_beside_losses(folder: Path) -> None:
    record(folder / "a", "a-fifo", answers=right)
    record(folder / "a-exits", "a-alto", ALTO, answers=lambda chosen: 0.5)
    record(folder / "a-exits1", "a-alto-seed1", ALTO, seed=1, answers=lambda chosen: 0.25)
    record(folder / "b", "b-fifo")
    shown = fig10_expert.exhibit(folder)
    rows = {(row["task"], row["settings"]): row for row in rows_of(shown)}
    best = Hyperparameters(learning_rate=1e-3, batch_size=2)
    near = Hyperparameters(learning_rate=2e-4, batch_size=4)
    assert rows["a", "Unsloth"]["answer tokens, %"] == pytest.approx(100 * right(near))
    assert rows["a", "Unsloth"]["paper, GSM8K accuracy"] == "43.5, 60.3"
    assert rows["a", "alto"]["whole answers, %"] == pytest.approx(50 * right(best))
    assert rows["a", "alto"]["paper, GSM8K accuracy"] == "49.5, 62.6"
    ended = rows["a", "alto, recorded"]
    least = loss_of(best, 1.0)
    assert ended["answer tokens, %"] == pytest.approx(37.5)
    assert ended["behind"] == pytest.approx(0.01 / least / 2), "against the seed that there is"
    assert ended["deviation"] == pytest.approx(0.01 / least / 2**0.5)
    assert rows["b", "alto"]["answer tokens, %"] is None
    assert ("b", "alto, recorded") not in rows
    assert "No accuracies recorded of full grids: b." in shown.found


def test_figure_14_judges_an_adapter_only_at_the_report_it_was_taken(folder: Path) -> None:
    def turning(chosen: Hyperparameters, share: float) -> float:
        """Best of batch 4 is a job that the warm-up stops; that of 1 is stopped on a hill."""
        if chosen.batch_size == 4 and chosen.learning_rate == 2e-5:
            return 9.0 - 8.5 * (share > 0.5)
        if chosen.batch_size == 1 and chosen.learning_rate == 1e-3:
            return 0.5 + (share if share < 0.5 else -0.2)
        return loss_of(chosen, share)

    record(folder / "a", "a-fifo", answers=right, loss=turning)
    record(folder / "a1", "a-fifo-seed1", seed=1, loss=turning)
    record(folder / "a-exits", "a-alto", ALTO, answers=right)
    record(folder / "b", "b-fifo")
    shown = fig14_quality.exhibit(folder)
    rows = {(row["task"], row["batch"]): row for row in rows_of(shown)}
    kept, lost = rows["a", 2], rows["a", 4]
    share = 100 * right(Hyperparameters(learning_rate=1e-3, batch_size=2))
    assert kept["answer tokens, %"] == kept["with exits'"] == pytest.approx(share)
    assert kept["behind"] == kept["deviation"] == 0
    assert lost["behind"] > 1
    assert lost["deviation"] > 0
    stopped = Hyperparameters(learning_rate=2e-5, batch_size=4)
    assert lost["answer tokens, %"] == pytest.approx(100 * right(stopped))
    best_of_1 = Hyperparameters(learning_rate=1e-3, batch_size=1)
    assert rows["a", 1]["answer tokens, %"] == pytest.approx(100 * right(best_of_1))
    assert rows["a", 1]["with exits'"] is None, "its adapter is another than the one judged"
    assert rows["b", 2]["answer tokens, %"] is None
    assert any(
        f"the winner gets {share / 2:.1f} % of the answers word for word (untuned model 6.2 %)" in s
        for s in shown.found
    )
    assert "No accuracies recorded of full grids: b." in shown.found


def crossing(chosen: Hyperparameters, share: float) -> float:
    """Of seed 1 the worst at the warm-up ends best."""
    is_late = chosen.seed == 1 and (chosen.learning_rate, chosen.batch_size) == (2e-5, 4)
    return loss_of(chosen, share) if not is_late else 9.0 - 8.9 * (share > 0.5)


def test_figure_7_asks_of_a_task_that_every_seed_keeps_its_best(folder: Path) -> None:
    record(folder / "a", "a-fifo")
    record(folder / "a1", "a-fifo-seed1", seed=1, loss=crossing)
    record(folder / "b", "b-fifo")
    shown = fig07_early_rank.exhibit(folder)
    assert [row["task"] for row in rows_of(shown)] == ["a, seed 0", "a, seed 1", "b"]
    assert [row["winner's rank at 5 %"] for row in rows_of(shown)] == [1, 12, 1]
    assert "on 1 of 2 tasks, of every seed" in shown.found[-1]


def test_figure_15_has_the_deviation_of_seeds_and_what_recorded_runs_saved(folder: Path) -> None:
    record(folder / "a", "a-fifo")
    record(folder / "a1", "a-fifo-seed1", seed=1)
    record(folder / "exits", "a-alto", ALTO)
    record(folder / "exits-again", "a-alto2", ALTO)
    record(folder / "exits1", "a-alto-seed1", ALTO, seed=1, loss=crossing)
    record(folder / "exits2", "a-alto-seed2", ALTO, seed=2)
    record(folder / "other", "a-alto", replace(ALTO, keep=0.5))
    record(folder / "less", "a-alto", ALTO, samples=200)
    shown = fig15_samples_saved.exhibit(folder)
    rows = {row["task"]: row for row in rows_of(shown)}
    assert rows["a"]["deviation"] == pytest.approx(0.0)
    ended = rows["a, recorded"]
    saved = {one.origin.split("/")[2]: sum(one.saved_by_rule.values()) for one in searches(folder)}
    seeds = [saved["exits"], saved["exits1"], saved["exits2"]]
    assert ended["saved"] == pytest.approx(sum(seeds) / 3)
    assert ended["deviation"] == pytest.approx(stdev(seeds))
    least = loss_of(Hyperparameters(learning_rate=1e-3, batch_size=2), 1.0)
    assert ended["worst regret"] == pytest.approx(0.02 / least), "seed 2 has no grid: of the best"
    assert ended["regret"] == pytest.approx(0.02 / least / 3)
    assert len([log for log in shown.logs if "exits" in log]) == 4
    assert not any("other" in log for log in shown.logs)


def test_figures_15_and_16_show_a_longer_grid_that_does_not_count(folder: Path) -> None:
    """Its best job is stopped; other grids that lie beside it are not shown."""
    record(folder / "a", "a-fifo")
    more = folder.with_name("longer")
    record(more / "a-longer-fifo", "ten", seed=1, samples=800, loss=crossing)
    record(more / "b-fifo", "b-fifo", samples=800, loss=crossing)
    shown = fig15_samples_saved.exhibit(folder)
    rows = {row["task"]: row for row in rows_of(shown)}
    assert not any(name.startswith("b") for name in rows)
    assert float(str(rows["a, 800 samples"]["regret"])) > 0.005
    assert " of 1 comparisons" in shown.gist
    found = fig16_warmup.exhibit(folder).found
    (told,) = (one for one in found if one.startswith("a, 800 samples"))
    assert told.endswith("the best job stopped.")


def test_figure_15_tells_why_the_best_job_was_not_found(folder: Path) -> None:
    record(folder / "a", "a-fifo")
    record(folder / "a1", "a-fifo-seed1", seed=1, loss=crossing)
    found = fig15_samples_saved.exhibit(folder).found
    (told,) = (text for text in found if "grid's best job was stopped" in text)
    assert told.startswith("a, seed 1, is ")
    assert told.endswith("(underperformed) after 5% of its samples, when it was number 12 of 12.")


def test_figure_15_judges_a_choice_by_the_losses_of_the_grid_of_its_seed(folder: Path) -> None:
    record(folder / "a", "a-fifo")
    record(folder / "a1", "a-fifo-seed1", seed=1)
    record(folder / "exits", "a-alto", ALTO, loss=lambda h, s: 3 * loss_of(h, s))
    record(folder / "exits2", "a-alto-seed2", ALTO, seed=2)

    def other(chosen: Hyperparameters, share: float) -> float:
        return loss_of(replace(chosen, batch_size=2 * chosen.batch_size), share)

    record(folder / "exits1", "a-alto-seed1", ALTO, seed=1, loss=other)
    found = fig15_samples_saved.exhibit(folder).found
    told = [text for text in found if "the job it chose" in text]
    assert len(told) == 2, "of seed 2 there is no grid"
    assert told[0].startswith("a, recorded, seed 0: the job it chose is number 1 of the 12 ")
    chosen, best = (
        loss_of(Hyperparameters(learning_rate=1e-3, batch_size=size, seed=1), 1.0)
        for size in (1, 2)
    )
    assert told[1].startswith("a, recorded, seed 1: the job it chose is number 2 of the 12 ")
    assert f", {chosen / best - 1:.2%} behind" in told[1]


def test_figure_16_has_the_deviation_of_seeds(folder: Path) -> None:
    record(folder / "a", "a-fifo")
    record(folder / "a1", "a-fifo-seed1", seed=1, loss=crossing)
    rows = {(r["task"], r["warm-up"]): r for r in rows_of(fig16_warmup.exhibit(folder))}
    assert rows["a", 0.05]["best kept"] == 0.5
    found = [fig16_warmup.foresight(curves, 0.05).rho for curves in recorded_sets(folder)]
    assert rows["a", 0.05]["deviation of rho"] == pytest.approx(stdev(found))


def test_settings_are_never_chosen_on_another_seed_of_the_task_judged(folder: Path) -> None:
    for name, seed in (("a", 0), ("a", 1), ("b", 0), ("c", 0)):
        record(folder / f"{name}{seed}", f"{name}-fifo-seed{seed}", seed=seed)
    found = [(judged.name, [other.name for other in others]) for judged, others in splits(folder)]
    assert found == [
        ("a", ["b", "c"]),
        ("a", ["b", "c"]),
        ("b", ["a", "a", "c"]),
        ("c", ["a", "a", "b"]),
    ]


def test_accuracies_of_seeds_are_averaged(folder: Path) -> None:
    record(folder / "a", "a-fifo", answers=right)
    record(folder / "a1", "a-fifo-seed1", seed=1, answers=lambda chosen: 0.5)
    best = Hyperparameters(learning_rate=1e-3, batch_size=2)
    of_10 = {r["settings"]: r for r in rows_of(fig10_expert.exhibit(folder))}
    of_14 = {r["batch"]: r for r in rows_of(fig14_quality.exhibit(folder))}
    expected = pytest.approx(50 * (right(best) + 0.5))
    assert of_10["alto"]["answer tokens, %"] == expected
    assert of_14[2]["answer tokens, %"] == of_14[2]["with exits'"] == expected


def test_a_run_that_was_cut_off_tells_nothing_of_what_had_not_ended(folder: Path) -> None:
    record(folder / "a", "a-fifo", answers=right)
    record(folder / "a-exits", "a-alto", ALTO, answers=right)
    for name in ("a", "a-exits"):
        log = folder / name / "run.jsonl"
        lines = log.read_text().splitlines()
        ended = next(n for n, line in enumerate(lines) if "JobLeft" in line)
        log.write_text("".join(f"{line}\n" for line in lines[: ended + 1]))
    full, _ = searches(folder)
    assert not full.is_whole
    assert len(full.scores) == 1
    assert "a, recorded" not in {
        row["task"] for row in rows_of(fig15_samples_saved.exhibit(folder))
    }


ROW = {"task": "a-fifo", "job": "a-fifo-00", "answers": 1.0, "tokens": 1.0, "preferred": None}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not what answers.py writes"),
        (json.dumps(ROW | {"job": "x"}), "'x'"),
        (json.dumps(ROW), "untuned"),
    ],
)
def test_answers_of_another_run_are_refused(folder: Path, line: str, message: str) -> None:
    record(folder / "a", "a-fifo")
    (folder / "a" / "answers.jsonl").write_text(f"{line}\n")
    with pytest.raises(UserError, match=message):
        searches(folder)


def test_a_caption_tells_which_tasks_have_seeds() -> None:
    assert told_seeds([("a", [0]), ("b", [0])]) == "One seed a job, no error bars."
    assert told_seeds([("a", [0, 1]), ("b", [0])]).startswith(
        "Seeds of a: 0, 1; one of every other"
    )


def test_compressed_runs_are_read_and_named_as_they_are(folder: Path) -> None:
    record(folder / "a", "a-fifo", answers=right)
    record(folder / "b", "b-fifo", answers=right)
    for name in ("run.jsonl", "answers.jsonl"):
        path = folder / "b" / name
        path.with_name(f"{name}.gz").write_bytes(compressed(path.read_bytes()))
        path.unlink()
    plain, packed = searches(folder)
    assert packed.origin == "traces/recorded/b/run.jsonl.gz"
    assert packed.scores.keys() == plain.scores.keys() != set()
    one, other = recorded_sets(folder)
    assert one.best.tolist() == other.best.tolist()
