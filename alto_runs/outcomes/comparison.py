"""The winner of a task beside the untuned model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alto_policy.codec import MalformedError, codec_of
from alto_policy.types import JobId, TaskId
from alto_runs.errors import UserError
from alto_runs.files.directory import write_atomically

__all__ = ["Answer", "Comparison", "read_comparisons", "write_comparisons"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What both models write after the same prompt."""

    prompt: str
    untuned: str
    tuned: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Validation losses and answers; those of the winner are of its best adapter, read back.

    With preferences, `preferred` is the share of validation pairs in which the winner prefers the
    better answer by more than the untuned model does.
    """

    task: TaskId
    job: JobId
    untuned_val_loss: float
    val_loss: float
    preferred: float | None = None
    answers: tuple[Answer, ...] = ()


def write_comparisons(path: Path, comparisons: Sequence[Comparison]) -> None:
    record = codec_of(tuple[Comparison, ...]).encode(tuple(comparisons))
    write_atomically(path, json.dumps(record, indent=2, allow_nan=False) + "\n")


def read_comparisons(path: Path) -> tuple[Comparison, ...]:
    """What `write_comparisons` wrote; nothing where there is no such file. Raises UserError."""
    if not path.is_file():
        return ()
    try:
        comparisons: tuple[Comparison, ...] = codec_of(tuple[Comparison, ...]).decode(
            json.loads(path.read_text(encoding="utf-8"))
        )
    except (ValueError, MalformedError) as error:
        raise UserError(f"{path}: not what a run writes: {error}") from error
    return comparisons
