"""A study of preferences, from its file to its winner."""

import json
import math
import random
from pathlib import Path

import pytest
from rich.console import Console

from alto_exec import tune
from alto_runs.errors import UserError
from alto_runs.outcomes.comparison import read_comparisons
from alto_runs.replaying import replay_run
from alto_runs.study import load_study
from tests.tune.small_study import WORDS, write_study

STUDY = """\
name: preferences
model: {model}
objective: dpo
data: {{train: pairs.jsonl, validation: judged.jsonl, max_length: 96}}
search: {{learning_rate: [1.0e-6, 3.0e-3], rank: 4, batch_size: [2, 4], dpo_beta: 0.5}}
budget: {{samples: 144}}
reports: 4
executor: {{device: cpu, threads: 1}}
policy: {{name: alto, warmup: 0.25}}
prompts: ["say red"]
"""


def write_pairs(path: Path, count: int, seed: int) -> None:
    """Whatever the prompt says, the better answer is red, which a tiny model learns soon."""
    dice = random.Random(seed)
    better, *others = WORDS
    rows = [
        {"prompt": f"say {dice.choice(WORDS)}", "chosen": better, "rejected": dice.choice(others)}
        for _ in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def study_in(folder: Path, text: str = STUDY) -> Path:
    path = write_study(folder, text)
    write_pairs(folder / "pairs.jsonl", 24, seed=1)
    write_pairs(folder / "judged.jsonl", 10, seed=2)
    return path


def test_the_winner_has_learnt_which_answers_are_better(tmp_path: Path) -> None:
    result = tune(study_in(tmp_path), tmp_path / "run", console=Console(quiet=True))
    (comparison,) = read_comparisons(result.directory.comparison_path)
    best = result.best()
    assert best is not None
    assert comparison.untuned_val_loss == pytest.approx(math.log(2))
    assert comparison.val_loss == pytest.approx(best.standing.best_val_loss, rel=1e-6)
    assert comparison.val_loss < 0.9 * comparison.untuned_val_loss
    assert comparison.preferred is not None
    assert comparison.preferred == 1.0
    assert best.standing.hyperparameters.learning_rate == 3e-3
    assert replay_run(result.directory.path)[1] is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("objective: dpo", "objective: sft", "data.train: its records are preferences"),
        ("train: pairs", "train: train", "data.train: objective 'dpo' needs the fields prompt"),
        ("objective: dpo", "objective: ppo", "objective: value 'ppo': expected"),
        ("max_length: 96", "completion_only: false", "data.completion_only: .*expected true"),
        ("dpo_beta: 0.5", "dpo_beta: 0", "dpo_beta: value 0"),
    ],
)
def test_mistakes(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tune(load_study(study_in(tmp_path, STUDY.replace(old, new))), tmp_path / "run")
