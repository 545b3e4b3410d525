"""Six tasks of different lengths: more than there are GPUs, so that two wait for the others."""

from pathlib import Path

from alto_runs.study import Study, load_study
from tests.tune.small_study import write_study

__all__ = ["six_tasks"]

STUDY = """\
name: six
model: {model}
data: {{train: train.jsonl, validation: validation.jsonl, max_length: 96}}
search: {{learning_rate: [0, 3.0e-3, 3.0e-2, 3.0e+4], rank: [2, 4]}}
reports: 8
executor: {{device: cpu, threads: 1, max_jobs: 6}}
policy: {{name: alto, warmup: 0.25, rules: {{gap: 0.02, overfitting_patience: 1}}}}
tasks:
  longest: {{budget: {{samples: 200}}}}
  short: {{budget: {{samples: 8}}, search: {{rank: [2, 4]}}}}
  long: {{budget: {{samples: 160}}}}
  middle: {{budget: {{samples: 96}}, search: {{learning_rate: [1.0e-3, 2.0e-3], rank: [2, 4]}}}}
  waits: {{budget: {{samples: 120}}, search: {{learning_rate: [3.0e-3, 1.0e-2], rank: [2, 4]}}}}
  waits-too: {{budget: {{samples: 16}}, search: {{rank: [2, 4, 8]}}}}
"""


def six_tasks(folder: Path) -> Study:
    return load_study(write_study(folder, STUDY))
