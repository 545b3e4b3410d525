"""Writes how long the samples of recorded searches are, for `fidelity/makespans.py`.

    python experiments/recordings/sample_lengths.py STUDY OUT

`traces/lengths` holds one file for each data set, with the counts by which a run's log names it.
"""

import argparse
import json
from pathlib import Path

from alto_exec.data.dataset import Dataset
from alto_exec.preparation import prepare
from alto_policy.types import TokenCounts
from alto_runs.study import load_study


def lengths_of(dataset: Dataset, counts: TokenCounts) -> dict[str, object]:
    """Of each training sample: tokens and targets, and where it has two the longest sequence."""
    lengths = dataset.lengths
    told: dict[str, object] = {
        "per_sample": counts.per_sample,
        "validation": counts.validation,
        "sequences": lengths.sequences,
        "tokens": lengths.tokens,
        "targets": lengths.targets,
    }
    return told if lengths.sequences == 1 else told | {"longest": lengths.longest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    (prepared,) = prepare(load_study(options.study))
    counts = prepared.task.tokens
    assert counts is not None
    told = lengths_of(prepared.dataset, counts)
    options.out.write_text(json.dumps(told, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
