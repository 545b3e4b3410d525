"""A study that trains in seconds: a tiny model, a learnable task, jobs that end in every way."""

import json
import random
from pathlib import Path

from alto_runs.study import Study, load_study
from tests.exec.tiny_models import save_tiny

__all__ = ["small_study", "write_records", "write_study"]

WORDS = ("red", "blue", "green", "black", "white")

STUDY = """\
name: small
model: {model}
data: {{train: train.jsonl, validation: validation.jsonl, max_length: 96}}
search:
  learning_rate: [0, 3.0e-3, 3.0e-2, 3.0e+4]
  rank: [2, 4]
  batch_size: [1, 2]
budget: {{samples: 32}}
reports: 8
executor: {{device: cpu, threads: 1, max_jobs: 6}}
policy: {{name: alto, warmup: 0.25, rules: {{gap: 0.02, overfitting_patience: 1}}}}
prompts: ["say red"]
"""


def write_records(path: Path, count: int, seed: int) -> None:
    """The completion repeats the prompt's word: a tiny model learns it in a few steps."""
    dice = random.Random(seed)
    words = [dice.choice(WORDS) for _ in range(count)]
    rows = [{"prompt": f"say {word}", "completion": word * dice.randint(1, 2)} for word in words]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_study(folder: Path, text: str = STUDY) -> Path:
    """Study file, data and model in a folder of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model"
    if not model.exists():
        save_tiny(model)
    write_records(folder / "train.jsonl", 24, seed=1)
    write_records(folder / "validation.jsonl", 6, seed=2)
    path = folder / "study.yaml"
    path.write_text(text.format(model=model))
    return path


def small_study(folder: Path) -> Study:
    return load_study(write_study(folder))
