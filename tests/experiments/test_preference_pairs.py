"""The preferences that were searched are what their rule makes of the demo's records."""

import json
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "preferences"
RULE = runpy.run_path(str(FOLDER / "make_pairs.py"))


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("split", RULE["SIZES"])
def test_what_is_committed_is_made_by_the_rule(split: str) -> None:
    rows = read(RULE["SOURCE"] / f"{split}.jsonl")[: RULE["SIZES"][split]]
    assert RULE["pairs_of"](rows) == read(FOLDER / "data" / f"{split}.jsonl")


def test_the_worse_answer_is_that_of_the_record_with_the_most_words_in_common() -> None:
    told = {"Birds fly high": "up", "birds swim": "down", "birds fly low": "up", "a fly": "no"}
    rows = [{"prompt": prompt, "completion": end} for prompt, end in told.items()]
    first = RULE["pairs_of"](rows)[0]
    assert first == {"prompt": "Birds fly high", "chosen": "up", "rejected": "down"}
