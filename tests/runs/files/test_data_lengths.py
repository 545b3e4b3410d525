from pathlib import Path

import pytest

from alto_policy.types import TaskId
from alto_runs.errors import UserError
from alto_runs.files.data_lengths import SampleLengths, append_lengths, read_lengths

T = TaskId("t")
PLAIN = SampleLengths(tokens=(5, 7), targets=(2, 3), longest=(5, 7))
PAIRS = SampleLengths(tokens=(9,), targets=(4,), longest=(6,), sequences=2)


def told(lengths: SampleLengths) -> tuple[object, ...]:
    return lengths.tokens, lengths.targets, lengths.longest, lengths.sequences


def test_the_last_line_of_a_task_counts_and_a_torn_one_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "lengths.jsonl"
    assert not read_lengths(path)
    append_lengths(path, T, PLAIN)
    with path.open("a") as file:
        file.write('{"task":"t","leng\n')
    append_lengths(path, TaskId("u"), PLAIN)
    append_lengths(path, T, PAIRS)
    found = read_lengths(path)
    assert {task: told(lengths) for task, lengths in found.items()} == {
        T: told(PAIRS),
        TaskId("u"): told(PLAIN),
    }


@pytest.mark.parametrize(
    ("lengths", "why"),
    [
        ('{"tokens":[1.5],"targets":[1],"longest":[1]}', "lengths.tokens"),
        ('{"tokens":[3,4],"targets":[1],"longest":[3,4]}', "of the same samples"),
    ],
)
def test_what_is_wrong_with_a_line_is_told(lengths: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "lengths.jsonl"
    path.write_text(f'{{"task":"t","lengths":{lengths}}}\n')
    with pytest.raises(UserError, match=rf"lengths.jsonl: line 1: .*{why}"):
        read_lengths(path)
